"""The search that learns, for an experiment: `search.method = "surrogate"`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from afpjax.config.work import Task
from afpjax.experiment import Experiment
from afpjax.inputs.notes import Note
from afpjax.jobs.shared import searched
from afpjax.jobs.shared.searched import LABELS, Assignment, most_robust
from afpjax.search.maximal import reliability_of
from afpjax.search.objectives import Caps
from afpjax.search.partition import Front
from afpjax.search.surrogate import Surrogate, SurrogateFound, SurrogatePlan, refuse_strategy

METHOD = "surrogate"
CURVE_ROUNDS = 2  # for each allowance of the curve: the moves are known by then
_CHOSEN_FROM = 4  # of the best, on all of the search's images under draws of their own


@dataclass(frozen=True)
class Learnt:
    """One kind of fault: the search, which may be asked for other allowances, and its choice."""

    search: Surrogate
    found: SurrogateFound
    mapping: Assignment
    passes: int  # of an image under faults, up to here


def wanted(experiment: Experiment) -> bool:
    """Whether the experiment asks for it. Raises `InputError` where it cannot be had."""
    if experiment.config.search.method != METHOD:
        return False
    refuse_strategy(experiment.config.faults.strategy)
    return True


def search(experiment: Experiment, name: str, unaware: Assignment, allowance: Caps) -> Learnt:
    """The best mapping within the allowance under one kind of fault, beside the fault-unaware."""
    faults, tables = experiment.scenario(name), experiment.tables
    devices = len(experiment.platform.names)
    key = experiment.key(f"surrogate {name}")
    objective = experiment.loss_objective(name)
    learner = Surrogate(
        int(jax.random.bits(key)),
        tables,
        reliability_of(faults, experiment.quantized, devices),
        objective,
        unaware,
        chance=1 / experiment.config.model.classes,
        caps=experiment.caps,
    )
    plan = SurrogatePlan().within(experiment.config.search.effort, objective.images, learner.moves)
    steps = plan.mappings + learner.moves + 1
    with _bar(experiment, f"Learning under {LABELS[name]}", steps) as told:
        found = learner.search(allowance, plan, progress=told)
    best = found.mappings[:_CHOSEN_FROM]
    chosen = best[most_robust(experiment, name, best, allowance)]
    extra = experiment.config.search.final_trials * experiment.search_evaluator.count * len(best)
    passes = learner.evidence.passes + (extra if len(best) > 1 else 0)
    return Learnt(learner, found, chosen, passes)


class Selection(NamedTuple):
    """The front under both faults with what else was found, as measured on held-out images."""

    front: Front
    correct: Bool[np.ndarray, "P K B"]
    kept: list[int]  # places of the mappings that no other beats
    selected: int  # one of these


def select(
    experiment: Experiment,
    front: Front,
    candidates: Sequence[Assignment],
    others: Sequence[Assignment],
    allowance: Caps,
) -> Selection:
    """The better of the candidates on the search's own measurement, the first of equals.

    Candidates that, held out, another mapping beats in latency, energy and accuracy are none; where
    none is left, all that is on the front is one.
    """
    front = searched.with_more(experiment, front, np.stack([*candidates, *others]))
    correct = searched.measure_front(experiment, front)
    kept = searched.still_best(front, correct)
    places = {tuple(mapping): place for place, mapping in enumerate(front.mappings.tolist())}
    left = [place for place in (places[tuple(each.tolist())] for each in candidates)]
    left = [place for place in left if place in kept] or kept
    return Selection(
        front, correct, kept, searched.select(experiment, "both", front, allowance, left)
    )


def chosen(experiment: Experiment) -> tuple[Assignment, str]:
    """The mapping that job `partition` selects under both faults, and whose it is.

    As that job does it, but for what its curve finds beside. A single device needs no search.
    """
    if len(experiment.platform.names) == 1:
        return np.zeros(len(experiment.graph.layers), np.int64), "afarepart"
    learns = wanted(experiment)
    searched.refuse_effort(experiment)
    with experiment.explained():
        known, cheap = searched.baselines(experiment)
        unaware = known["fault-unaware"]
        limit = searched.allowance(experiment, unaware)
        front = searched.search(experiment, "both", cheap, limit)
    kept = searched.still_best(front, searched.measure_front(experiment, front))
    own = front.mappings[searched.select(experiment, "both", front, limit, kept)]
    if not learns:
        return own, "afarepart"
    other = search(experiment, "both", unaware, limit).mapping
    found = select(experiment, front, [own, other], [], limit)
    mapping = found.front.mappings[found.selected]
    return mapping, METHOD if (mapping == other).all() else "afarepart"


def more(experiment: Experiment, learnt: Learnt, allowance: Caps) -> Int[np.ndarray, "P L"]:
    """The best mappings within another allowance, for a few measurements more."""
    plan = SurrogatePlan(rounds=CURVE_ROUNDS, finalists=4)
    with _bar(experiment, "Learning for another allowance", plan.mappings) as told:
        return learnt.search.search(allowance, plan, progress=told).mappings


def notes(learnt: Learnt) -> list[Note]:
    """That rates were scaled, where they were."""
    first = learnt.search.first_factor
    if first == 1:
        return []
    text = (
        "With the fault-unaware mapping next to nothing is right, and single moves of layers say "
        f"nothing: the search learnt at {first:g} times the fault rates, and chose at the rates "
        "given."
    )
    return [Note("scaled-rates", text, {"factor": first})]


@contextmanager
def _bar(experiment: Experiment, description: str, steps: int) -> Iterator[Callable[[int], None]]:
    """A bar of so many mappings, full at its end whether fewer or more were measured."""
    done = 0

    def told(mappings: int) -> None:
        nonlocal done
        amount = min(mappings, steps - done)
        done += amount
        task.advance(amount)

    task: Task
    with experiment.work.progress.task(description, steps) as task:
        yield told
        told(steps)  # what there was not to measure
