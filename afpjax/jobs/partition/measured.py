"""What job `partition` measures once its mappings are chosen: the table, the sweep, the layers."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from afpjax.data.images import Images
from afpjax.evaluate.sensitivity import sensitivity
from afpjax.experiment import Experiment
from afpjax.faults.inject import flips_of_trial
from afpjax.faults.model import thresholds
from afpjax.jobs.partition.result import Advantage, CleanResult, Flips, Row, Sensitivity, SweepPoint
from afpjax.jobs.shared.records import priced
from afpjax.jobs.shared.result import Estimate, real
from afpjax.network import compiler
from afpjax.search.partition import measure
from afpjax.statistics.intervals import difference_interval, estimated

FACTORS = (0.25, 0.5, 1.0, 2.0)  # of all devices' flip rates
_BATCH = 128  # images per forward pass
_COUNTED = 8  # images and trials over which flips are counted

#: (tool, scenario) -> mapping
Mappings = Mapping[tuple[str, str], Int[np.ndarray, " L"]]


def fault_free(experiment: Experiment) -> CleanResult:
    """Accuracy without faults on the held-out images, in the format and in floating point."""
    held, faults = experiment.held, experiment.scenario("both")
    said = [
        np.asarray(experiment.network(experiment.inputs(part))).argmax(axis=1)
        for part in _parts(held)
    ]
    return CleanResult(
        float(experiment.held_out.clean(faults).mean()),
        float(experiment.search_evaluator.clean(faults).mean()),
        float((np.concatenate(said) == held.labels).mean()),
        len(held.labels),
        experiment.config.search.final_trials,
    )


def _parts(images: Images) -> Iterator[Images]:
    """Few enough images at a time for a whole batch of activations to fit in memory."""
    for start in range(0, len(images.labels), _BATCH):
        yield Images(*(each[start : start + _BATCH] for each in images))


def table(experiment: Experiment, mappings: Mappings) -> list[Row]:
    """Accuracy of every tool's mapping under every kind of fault, held out, and its cost."""
    rows = []
    trials = experiment.config.search.final_trials
    with experiment.work.progress.task("Comparing the tools", len(mappings) * trials) as task:
        for (tool, scenario), mapping in mappings.items():
            faults = experiment.scenario(scenario)
            (correct,) = measure(experiment.held_out, faults, mapping[None], trials, task.advance)
            costs = priced(experiment.tables, mapping)
            rows.append(Row(tool, scenario, estimated(correct), *costs, mapping.tolist()))
    return rows


def advantages(experiment: Experiment, mappings: Mappings) -> list[Advantage]:
    """What AFarePart's mapping keeps more than each other tool's: accuracy, paired on equal draws.

    Where there is a surrogate's, what that keeps more than each. The rows are those that `table`
    has run. Its two intervals side by side do not use that both mappings met the same draws and
    images; these do.
    """
    trials = experiment.config.search.final_trials

    def correct(tool: str, scenario: str) -> np.ndarray:
        mapping = mappings[tool, scenario][None]
        return measure(experiment.held_out, experiment.scenario(scenario), mapping, trials)[0]

    ahead = {"afarepart": ("afarepart", "surrogate"), "surrogate": ("surrogate",)}
    return [
        Advantage(
            scenario,
            other,
            _difference(correct(tool, scenario), correct(other, scenario)),
            tool if tool != "afarepart" else None,
        )
        for tool, apart in ahead.items()
        for other, scenario in mappings
        if other not in apart and (tool, scenario) in mappings
    ]


def _difference(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    return Estimate(float(ours.mean() - theirs.mean()), *difference_interval(ours, theirs))


def sweep(experiment: Experiment, mappings: Mappings) -> list[SweepPoint]:
    """Accuracy of the mappings as all flip rates grow together (the paper's Figures 3 and 4).

    `rate` is the highest of the devices' rates; the draws are the first half of the table's.
    """
    trials = _half(experiment)
    work = len(mappings) * len(FACTORS) * trials
    rows = []
    with experiment.work.progress.task("Sweeping fault rates", work) as task:
        for (tool, scenario), mapping in mappings.items():
            for factor in FACTORS:
                faults = experiment.scenario(scenario, factor)
                (correct,) = measure(
                    experiment.held_out, faults, mapping[None], trials, task.advance
                )
                rate = max(*faults.rates("weight").flat, *faults.rates("activation").flat)
                rows.append(SweepPoint(tool, scenario, real(rate), estimated(correct)))
    return rows


def sensitivities(experiment: Experiment) -> list[Sensitivity]:
    """Every layer on every device: faulty alone, and all faulty but it (search images)."""
    devices = experiment.platform.names
    names = experiment.graph.names
    trials = _half(experiment)
    evaluator, faults = experiment.search_evaluator, experiment.scenario("both")
    with experiment.work.progress.task(
        "Striking layer by layer", 2 * len(names) * len(devices) * trials
    ) as task:
        found = sensitivity(evaluator, faults, len(devices), trials, task.advance)
    return [
        Sensitivity(
            name, device, estimated(found.alone[row, column]), estimated(found.all_but[row, column])
        )
        for row, name in enumerate(names)
        for column, device in enumerate(devices)
    ]


def _half(experiment: Experiment) -> int:
    """Draws for curves of many points: half of the table's."""
    return max(2, experiment.config.search.final_trials // 2)


def flips(experiment: Experiment, mapping: Int[np.ndarray, " L"]) -> list[Flips]:
    """Bits flipped in each layer under a mapping: per trial in weights, per image in activations.

    Means over the first held-out trials and images, both kinds of fault.
    """
    faults, evaluator = experiment.scenario("both"), experiment.held_out
    limits = jax.tree.map(jnp.asarray, thresholds(faults, experiment.quantized, mapping))
    images = jnp.arange(min(_COUNTED, evaluator.count), dtype=jnp.uint32)
    trials = range(min(_COUNTED, experiment.config.search.final_trials))
    shared = (experiment.quantized, images, limits, evaluator.seed)
    lowered = flips_of_trial.lower(faults.spec(), *shared, jnp.uint32(0))
    of_trial = lowered.compile(compiler_options=compiler.sooner())
    counted = [of_trial(*shared, jnp.uint32(trial)) for trial in trials]
    weights = np.mean([np.asarray(each.weights) for each in counted], axis=0)
    activations = np.mean([np.asarray(each.activations) for each in counted], axis=(0, 1))
    return [
        Flips(name, real(weights[row]), real(activations[row]))
        for row, name in enumerate(experiment.graph.names)
    ]
