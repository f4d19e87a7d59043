"""AFarePart's choice of a mapping for an experiment: what jobs that need one have in common."""

import numpy as np
from jaxtyping import Bool, Int

from afpjax.experiment import Experiment
from afpjax.search import partition
from afpjax.search.baselines import cnnparted, fault_unaware, most_robust_within
from afpjax.search.objectives import Caps, costs
from afpjax.search.pareto import non_dominated
from afpjax.search.partition import Front
from afpjax.search.race import race_for

LABELS = {"weights": "weight faults", "activations": "activation faults", "both": "both faults"}
_CHOICE = 2**20  # number of the first trial by which a front's mapping is chosen

Assignment = Int[np.ndarray, " L"]


def chosen(experiment: Experiment) -> Assignment:
    """The mapping that job `partition` selects: under both faults, as that job does it.

    A single device needs no search.
    """
    if len(experiment.platform.names) == 1:
        return np.zeros(len(experiment.graph.layers), np.int64)
    refuse_effort(experiment)
    with experiment.explained():
        known, cheap = baselines(experiment)
        limit = allowance(experiment, known["fault-unaware"])
        front = search(experiment, "both", cheap, limit)
    kept = still_best(front, measure_front(experiment, front))
    return front.mappings[select(experiment, "both", front, limit, kept)]


def refuse_effort(experiment: Experiment) -> None:
    """An effort that no search can keep to is refused before any of them."""
    race_for(experiment.tables, experiment.objective("both"), experiment.budget, focused=True)


def baselines(
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


def allowance(experiment: Experiment, unaware: Assignment) -> Caps:
    """What AFarePart's choice may cost: so much more than the fault-unaware one."""
    settings, cost = experiment.config.search, costs(experiment.tables, unaware[None])
    return Caps(
        float(cost.latency_ms[0]) * (1 + settings.allow_latency),
        float(cost.energy_mj[0]) * (1 + settings.allow_energy),
    )


def search(
    experiment: Experiment, name: str, cheap: Int[np.ndarray, "P L"], allowance: Caps
) -> Front:
    """AFarePart's front under one kind of fault; `cheap` mappings are among its first."""
    description = f"Searching under {LABELS[name]}"
    with experiment.work.progress.task(description, experiment.budget.generations) as task:
        return partition.search(
            experiment.key(f"search {name}"),
            experiment.tables,
            experiment.objective(name),
            experiment.budget,
            experiment.caps,
            initial=cheap,
            allowance=allowance,
            progress=task.advance,
        )


def measure_front(experiment: Experiment, front: Front) -> Bool[np.ndarray, "P K B"]:
    trials = experiment.config.search.final_trials
    with experiment.work.progress.task("Measuring the front", len(front.mappings) * trials) as task:
        faults = experiment.scenario("both")
        return partition.measure(experiment.held_out, faults, front.mappings, trials, task.advance)


def still_best(front: Front, correct: Bool[np.ndarray, "P K B"]) -> list[int]:
    """Indices of the mappings that no other beats once measured on held-out images."""
    points = [front.latency_ms, front.energy_mj, 1 - correct.mean(axis=(1, 2))]
    return np.flatnonzero(non_dominated(np.stack(points, axis=1).astype(np.float64))).tolist()


def select(
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
        accuracy = experiment.objective(name).accuracy(front.mappings[among], trials, task.advance)
    chosen = most_robust_within(
        front.latency_ms[among],
        front.energy_mj[among],
        1 - accuracy,
        latency_cap=allowance.latency_ms,
        energy_cap=allowance.energy_mj,
    )
    return among[chosen]
