"""Job `partition`: AFarePart's offline phase beside its baselines (AFarePart, Sections V-A and VI).

For each kind of fault (weights, activations, both) the search runs by itself, as the rows of the
paper's Table II do. What is reported was measured afterwards, on held-out images and fresh draws.
"""

import numpy as np
from jaxtyping import Bool, Int

from afpjax.config import Config
from afpjax.experiment import SCENARIOS, Experiment, prepare
from afpjax.jobs import measured, records
from afpjax.jobs.summary import comparison
from afpjax.outcome import Outcome, Work
from afpjax.search.baselines import cnnparted, fault_unaware
from afpjax.search.hypervolume import non_dominated
from afpjax.search.partition import Front, measure, race_for, search
from afpjax.search.problem import Caps, costs
from afpjax.search.select import most_robust_within

TOOLS = ("cnnparted", "fault-unaware", "afarepart")
LABELS = {"weights": "weight faults", "activations": "activation faults", "both": "both faults"}
_CHOICE = 2**20  # number of the first trial by which a front's mapping is chosen

Assignment = Int[np.ndarray, " L"]


def run(config: Config, work: Work) -> Outcome:
    """The whole comparison: `result.json` as the contract has it, and the printed table."""
    experiment = prepare(config, work)
    # An effort that no search can keep to is refused before any of them.
    race_for(experiment.tables, experiment.struck("both"), experiment.budget, focused=True)
    with experiment.explained():
        baselines, cheap = _baselines(experiment)
        allowance = _allowance(experiment, baselines["fault-unaware"])
        fronts = {name: _search(experiment, name, cheap, allowance) for name in SCENARIOS}
    front, correct = fronts["both"], _measure_front(experiment, fronts["both"])
    kept = _still_best(front, correct)
    among = {name: list(range(len(each.mappings))) for name, each in fronts.items()}
    among["both"] = kept
    selected = {
        name: _select(experiment, name, each, allowance, among[name])
        for name, each in fronts.items()
    }
    mappings = {
        (tool, name): fronts[name].mappings[selected[name]]
        if tool == "afarepart"
        else baselines[tool]
        for name in SCENARIOS
        for tool in TOOLS
    }
    without = experiment.held_out.clean(experiment.scenario("both"))
    points = {index: _point(front, index, correct[index], without) for index in kept}
    chosen = points[selected["both"]]
    result = {
        "model": records.model(experiment),
        "devices": list(experiment.platform.names),
        **records.conditions(experiment),
        "clean": measured.fault_free(experiment),
        "selected": chosen
        | {"flips": measured.flips(experiment, front.mappings[selected["both"]])},
        "table": measured.table(experiment, mappings),
        "advantages": measured.advantages(experiment, mappings),
        "front": list(points.values()),
        "search": _searched(front),
        "sensitivity": measured.sensitivities(experiment),
        "sweep": measured.sweep(experiment, mappings),
        "costs": records.layer_costs(experiment, experiment.tables),
    }
    return Outcome(result, comparison(result))


def _baselines(
    experiment: Experiment,
) -> tuple[dict[str, Assignment], Int[np.ndarray, "P L"]]:
    """The mappings of the tools that know nothing of faults, and both their fronts.

    The fault-unaware choice leads the second: what AFarePart may cost is measured against it, so
    its search must know it.
    """
    tables, caps, budget = experiment.tables, experiment.caps, experiment.budget
    progress = experiment.work.progress
    with progress.task("Searching, fault-unaware", budget.generations) as task:
        key = experiment.key("fault-unaware")
        unaware, free = fault_unaware(key, tables, budget, caps, progress=task.advance)
    with progress.task("Searching, CNNParted", budget.generations) as task:
        segments = experiment.config.search.segments
        key = experiment.key("cnnparted")
        parted, cut = cnnparted(key, tables, budget, caps, segments=segments, progress=task.advance)
    return {"cnnparted": parted, "fault-unaware": unaware}, np.concatenate(
        [unaware[None], free, cut]
    )


def _allowance(experiment: Experiment, unaware: Assignment) -> Caps:
    """What AFarePart's choice may cost: so much more than the fault-unaware one."""
    settings, cost = experiment.config.search, costs(experiment.tables, unaware[None])
    return Caps(
        float(cost.latency_ms[0]) * (1 + settings.allow_latency),
        float(cost.energy_mj[0]) * (1 + settings.allow_energy),
    )


def _search(
    experiment: Experiment, name: str, cheap: Int[np.ndarray, "P L"], allowance: Caps
) -> Front:
    """AFarePart's front under one kind of fault; `cheap` mappings are among its first."""
    description = f"Searching under {LABELS[name]}"
    with experiment.work.progress.task(description, experiment.budget.generations) as task:
        return search(
            experiment.key(f"search {name}"),
            experiment.tables,
            experiment.struck(name),
            experiment.budget,
            experiment.caps,
            initial=cheap,
            allowance=allowance,
            progress=task.advance,
        )


def _measure_front(experiment: Experiment, front: Front) -> Bool[np.ndarray, "P K B"]:
    trials = experiment.config.search.final_trials
    with experiment.work.progress.task("Measuring the front", len(front.mappings) * trials) as task:
        faults = experiment.scenario("both")
        return measure(experiment.held_out, faults, front.mappings, trials, task.advance)


def _still_best(front: Front, correct: Bool[np.ndarray, "P K B"]) -> list[int]:
    """Indices of the mappings that no other beats once measured on held-out images."""
    points = [front.latency_ms, front.energy_mj, 1 - correct.mean(axis=(1, 2))]
    return np.flatnonzero(non_dominated(np.stack(points, axis=1).astype(np.float64))).tolist()


def _select(
    experiment: Experiment,
    name: str,
    front: Front,
    allowance: Caps,
    among: list[int],
) -> int:
    """The front's mapping by AFarePart's rule, on the search's images under draws it has not seen.

    The draws that a front was searched with flatter the mappings that fit them; the held-out images
    are not for choosing at all. They only say, by `among`, which mappings of the front are left.
    """
    trials = range(_CHOICE, _CHOICE + experiment.config.search.final_trials)
    description = f"Choosing under {LABELS[name]}"
    with experiment.work.progress.task(description, len(among) * len(trials)) as task:
        accuracy = experiment.struck(name).accuracy(front.mappings[among], trials, task.advance)
    chosen = most_robust_within(
        front.latency_ms[among],
        front.energy_mj[among],
        1 - accuracy,
        latency_cap=allowance.latency_ms,
        energy_cap=allowance.energy_mj,
    )
    return among[chosen]


def _point(
    front: Front,
    index: int,
    correct: Bool[np.ndarray, "K B"],
    clean: Bool[np.ndarray, " B"],
) -> records.Record:
    """One mapping of the front as it was measured."""
    return {
        "mapping": records.as_list(front.mappings[index]),
        "latency_ms": front.latency_ms[index],
        "energy_mj": front.energy_mj[index],
        **records.estimate(correct),
        "accuracy_drop": clean.mean() - correct.mean(),
    }


def _searched(front: Front) -> records.Record:
    return {
        "method": front.method,
        "generations": front.generations,
        "evaluations": front.evaluations,
        "hypervolume": front.hypervolume,
        "reference_point": list(front.reference_point),
        "history": list(front.history),
        **_effort(front),
    }


def _effort(front: Front) -> records.Record:
    """Passes of an image under faults, and how many mappings met how many fault draws."""
    spent = front.spent
    if spent is None:
        return {}
    draws = [{"draws": draws, "mappings": count} for draws, count in spent.mappings]
    limit = {"total": spent.total} if spent.total else {}
    return {"effort": limit | {"spent": spent.passes, "draws": draws}}
