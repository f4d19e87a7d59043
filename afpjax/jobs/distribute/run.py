"""Job `distribute`: neurons shared out over devices, and what is left when devices are lost."""

from collections.abc import Sequence
from time import monotonic

import numpy as np

from afpjax.config.config import Config
from afpjax.config.work import Work, summed
from afpjax.experiment import Experiment, prepare
from afpjax.hardware.board import Board, load_board
from afpjax.hardware.platform import Link, load_link
from afpjax.jobs.distribute import compared
from afpjax.jobs.distribute.cases import Case, Distribution, difference
from afpjax.jobs.distribute.cases import Outcome as Lost
from afpjax.jobs.distribute.result import (
    BoardUsed,
    DistributeResult,
    Kept,
    LayerPlacement,
    MethodResult,
    ResourcesResult,
    ScoresUsed,
    StabilityResult,
    WholeNetwork,
)
from afpjax.jobs.distribute.search import searched
from afpjax.jobs.distribute.view import view
from afpjax.jobs.shared import plans, records, scoring
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import Estimate, HeldOutImages, NumberFormat, Speed
from afpjax.neurons.distribute import NORMALISATIONS
from afpjax.neurons.methods import method
from afpjax.neurons.resources import resources
from afpjax.statistics.intervals import wilson

_SPENT = b"distribute: seconds and passes"

_LOADED_ALIKE = ("robustdice", "random", "topk")  # what they hold follows from the clusters


def plan(config: Config, work: Work) -> object:
    """Scores, and every method's placement under every set of lost devices."""
    experiment, settings = prepare(config, work), config.distribute
    _ = load_board(settings.board), load_link(settings.link)  # refused now, if at all
    images, held = plans.counts(experiment)
    losses = {
        n: [lost for lost in settings.lost or range(1, n) if lost < n] for n in settings.devices
    }
    first, names = settings.devices[0], settings.methods
    some = sum(plans.failures(first, lost) for lost in losses[first])
    every = sum(plans.failures(n, lost) for n, counts in losses.items() for lost in counts)
    known = [method(name) for name in names]
    rows = every * (len(names) + sum(way.spare for way in known))
    on_curve = sum(way.by_threshold for way in known)
    rows += some * (on_curve * len(settings.curve) + 2 * bool(settings.curve))
    rows += some * compared.CASES * settings.compare
    chance = len(names) * bool(settings.failure) * min(2**first, plans.MOST)
    flips = len(names) * settings.flips * (some + chance) * config.search.final_trials
    mappings = config.search.population * (config.search.generations + 1) * (settings.search != 0)
    steps = [
        *([] if settings.importance else plans.scoring(experiment)),
        plans.Step("losing devices", (rows + chance) * held, every * held),
        plans.Step("losing devices, bits flipped too", flips * held),
        plans.Step("searching thresholds", mappings * some * images, 0),
    ]
    return plans.shown(experiment, steps)


def run(config: Config, work: Work) -> Outcome:
    """Accuracy of every method when devices are lost, what it costs, and who computes what."""
    experiment, settings = prepare(config, work), config.distribute
    board, link = load_board(settings.board), load_link(settings.link, "distribute.link")
    link = link.resending(experiment.faults.sent_times)
    distribution = Distribution(experiment, scoring.scored(experiment))
    parts = {
        "curve": list(compared.curve_cases(distribution)),
        "scores": compared.scores_cases(distribution) if settings.compare else [],
        "scales": compared.scale_cases(distribution) if settings.compare else [],
        "methods": list(distribution.cases()),
    }
    measured, throughput = _timed(distribution, parts)
    stable = [row for n in settings.devices if (row := distribution.stability(n)) is not None]
    substitutes = compared.substitutes(distribution) if settings.compare else None
    result = DistributeResult(
        model=records.model(experiment),
        data=HeldOutImages(experiment.data_name, len(experiment.held.labels)),
        format=NumberFormat(config.format.kind, experiment.format.width),
        clean=_clean(experiment),
        scores=_scores(distribution),
        substitute=settings.substitute,
        classifier=settings.classifier,
        thresholds=distribution.thresholds,
        methods=_methods(distribution, measured["methods"], stable),
        stability=stable or None,
        curve=compared.curve(measured["curve"]) or None,
        ablation=[
            Kept(scores="+".join(names), **case.kept(right))
            for names, (case, right) in zip(compared.SUBSETS, measured["scores"], strict=False)
        ]
        or None,
        normalisations=[
            Kept(normalise=scale, **case.kept(right))
            for scale, (case, right) in zip(NORMALISATIONS, measured["scales"], strict=False)
        ]
        or None,
        substitutes=substitutes,
        resources=_resources(distribution, parts["methods"], board, link),
        board=BoardUsed(board.name, link.name, settings.stream, config.platform.batch),
        placement=_placement(distribution),
        notes=[*records.notes(experiment), *compared.notes(distribution)],
        expected=compared.expected(distribution) or None,
        flips=compared.flips(distribution) or None,
        search=searched(distribution, board, link),
        throughput=throughput,
    )
    return Outcome(result, view=view(result))


def _timed(
    distribution: Distribution, parts: dict[str, list[Case]]
) -> tuple[dict[str, list[Lost]], Speed]:
    """What was measured, all together, and its speed: over all attempts, where interrupted."""
    experiment = distribution.experiment
    evaluator = scoring.without_neurons(experiment, distribution.settings.substitute)
    before, start = evaluator.evaluations, monotonic()

    def spent() -> tuple[float, float]:
        return monotonic() - start, float((evaluator.evaluations - before) * evaluator.count)

    cases = [case for part in parts.values() for case in part]
    with summed(experiment.work.memory, _SPENT, spent) as total:
        rights = iter(distribution.measured(cases, "Losing devices"))
        seconds, passes = total()
    measured = {name: list(zip(part, rights, strict=False)) for name, part in parts.items()}
    speed = Speed(passes / seconds, evaluator.clean_rate(losing=True), int(passes))
    return measured, speed


def _clean(experiment: Experiment) -> WholeNetwork:
    right = scoring.without_neurons(experiment, experiment.config.distribute.substitute).whole()
    bounds = wilson(int(right.sum()), len(right))
    return WholeNetwork(Estimate(float(right.mean()), *bounds))


def _scores(distribution: Distribution) -> ScoresUsed:
    scored, settings = distribution.scored, distribution.settings
    return ScoresUsed(
        names=settings.scores,
        normalise=settings.normalise,
        images=scored.images,
        source=scored.source,
        divergence=scored.divergence,
        target=scored.target,
    )


def _methods(
    distribution: Distribution, measured: Sequence[Lost], stable: Sequence[StabilityResult]
) -> list[MethodResult]:
    """Every method beside RobustDiCE with as many devices, as many of them lost."""
    own = {
        (case.placement.devices, case.failed): (case, right)
        for case, right in measured
        if case.method == "robustdice"
    }
    spread = {row.devices: row.memory.bounds for row in stable}
    rows = []
    for case, right in measured:
        rival = own.get((case.placement.devices, case.failed))
        beside = rival is not None and case.method != "robustdice"
        alike = case.method in _LOADED_ALIKE
        rows.append(
            MethodResult(
                **case.kept_by_sets(right),
                optimistic=_optimistic(distribution, case, right),
                difference=difference(rival, (case, right)) if rival and beside else None,
                memory_interval=spread.get(case.placement.devices) if alike else None,
            )
        )
    return rows


def _optimistic(distribution: Distribution, case: Case, right: np.ndarray) -> float | None:
    """LOP's accuracy where the devices with the least important neurons fail, as its paper has it.

    None for other methods, and where sets are a sample without this one.
    """
    if case.method != "lop":
        return None
    worth = np.zeros(case.placement.devices)
    for name, held in zip(case.placement.layers, case.placement.holds, strict=True):
        points = distribution.points(name).sum(axis=1)
        worth += held @ points / max(points.sum(), np.finfo(np.float64).tiny)
    least = tuple(sorted(np.argsort(worth, kind="stable")[: case.failed].tolist()))
    if least not in case.failures.sets:
        return None
    return float(right[case.failures.sets.index(least)].mean())


def _resources(
    distribution: Distribution, cases: Sequence[Case], board: Board, link: Link
) -> list[ResourcesResult]:
    """Memory, energy and frames per second of every placement, with no device lost."""
    graph, images = distribution.experiment.graph, distribution.settings.stream
    batch, rows = distribution.experiment.config.platform.batch, []
    distinct = {(case.placement.method, case.placement.devices): case for case in cases}
    for (name, devices), case in distinct.items():
        loads = case.placement.loads()
        cost = resources(graph, loads, board, link, batch=batch, images=images)
        memory, energy = float(cost.memory_mb.max()), float(cost.energy_j.max())
        rows.append(ResourcesResult(name, devices, memory, energy, cost.fps, case.memory))
    return rows


def _placement(distribution: Distribution) -> list[LayerPlacement]:
    """Which devices hold each neuron, on the first number of devices."""
    devices = distribution.settings.devices[0]
    placement = distribution.place("robustdice", devices)
    rows = []
    for name, threshold, held in zip(
        placement.layers, distribution.thresholds, placement.holds, strict=True
    ):
        masks = (held * (1 << np.arange(devices, dtype=object))[:, None]).sum(axis=0)
        rows.append(
            LayerPlacement(
                name,
                held.shape[1],
                threshold,
                distribution.clusters(name, threshold),
                float(held.sum() / held.shape[1]),
                [int(mask) for mask in masks],
            )
        )
    return rows
