"""AFarePart's choice of a mapping for an experiment: what jobs that need one have in common."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

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
    return among[most_robust(experiment, name, front.mappings[among], allowance)]


def most_robust(
    experiment: Experiment, name: str, mappings: Int[np.ndarray, "P L"], allowance: Caps
) -> int:
    """Index of the most accurate within the allowance, by the search's images and draws of choice.

    Equal calls for the same mappings run them once.
    """
    cost = costs(experiment.tables, mappings)
    return most_robust_within(
        np.asarray(cost.latency_ms),
        np.asarray(cost.energy_mj),
        1 - _accuracy_of_choice(experiment, name, mappings),
        latency_cap=allowance.latency_ms,
        energy_cap=allowance.energy_mj,
    )


def _accuracy_of_choice(
    experiment: Experiment, name: str, mappings: Int[np.ndarray, "P L"]
) -> Float[np.ndarray, " P"]:
    trials = range(_CHOICE, _CHOICE + experiment.config.search.final_trials)
    description = f"Choosing under {LABELS[name]}"
    with experiment.work.progress.task(description, len(mappings) * len(trials)) as task:
        return experiment.objective(name).accuracy(mappings, trials, task.advance)


def with_more(experiment: Experiment, front: Front, mappings: Int[np.ndarray, "P L"]) -> Front:
    """A front under both faults, and other mappings that are not on it yet."""
    known = {tuple(mapping) for mapping in front.mappings.tolist()}
    new = dict.fromkeys(map(tuple, mappings.tolist()))
    more = np.array([mapping for mapping in new if mapping not in known], np.int32)
    if not len(more):
        return front
    cost = costs(experiment.tables, more)
    drop = experiment.objective("both").fault_free() - _accuracy_of_choice(experiment, "both", more)
    return replace(
        front,
        mappings=np.concatenate([front.mappings, more]),
        latency_ms=np.r_[front.latency_ms, cost.latency_ms],
        energy_mj=np.r_[front.energy_mj, cost.energy_mj],
        accuracy_drop=np.r_[front.accuracy_drop, drop.astype(np.float32)],
    )
