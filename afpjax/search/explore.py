"""Look for the best genomes: all of them where they are few, NSGA-II where they are not.

Shape legend: N genomes, P of them in a population, M objectives, G genes (integers).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from afpjax.evaluate.evaluator import Progress
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.search.nsga2 import NSGA2, NSGA2State
from afpjax.search.pareto import Fitness, crowding, hypervolume, non_dominated

FEW = 4096  # genomes; fewer are enumerated
_SMALL = 200  # individuals
_ROWS = 64  # a front is filled up to a multiple, as every number of rows compiles
_crowding = jax.jit(crowding)


class Evaluated(NamedTuple):
    """Genomes with their fitness."""

    genomes: Int[np.ndarray, "N G"]
    objectives: Float[np.ndarray, "N M"]
    violation: Float[np.ndarray, " N"]

    def at(self, places: Any) -> "Evaluated":
        return Evaluated(*(column[places] for column in self))


class Infeasible(InputError):
    """Every genome that was tried breaks a limit; `closest` is the one that breaks them least."""

    def __init__(self, closest: Int[np.ndarray, " G"], what: str = "no mapping") -> None:
        super().__init__(f"{what} keeps within the limits on memory, latency and energy")
        self.closest = closest


#: (number of the fault draw, genomes [N, G]) -> Fitness of N individuals; runs on the host.
Evaluate = Callable[[int, Int[np.ndarray, "N G"]], Fitness]
#: Number of the fault draw -> the front of all genomes evaluated under it.
Settle = Callable[[int], Evaluated]


@dataclass(frozen=True)
class Budget:
    """How much a search may spend: individuals, and generations after the first population."""

    population: int = 40
    generations: int = 20
    renew: bool = False  # a new fault draw every generation; survivors are then measured again
    effort: int = 0  # image passes of all fault draws together; 0: as many as it takes

    def __post_init__(self) -> None:
        if self.generations < 1:
            raise InputError(f"generations is {self.generations}: give at least 1")
        if self.effort < 0:
            raise InputError(f"search.effort: {self.effort} image passes; give 0 for no limit")


@dataclass(frozen=True)
class Explored:
    """The genomes that no other found one beats, lexicographically, and how they were found."""

    genomes: Int[np.ndarray, "P G"]
    objectives: Float[np.ndarray, "P M"]
    method: str  # "enumeration" or "nsga2"
    generations: int
    evaluations: int  # genomes evaluated, copies not counted
    history: tuple[Float[np.ndarray, "_ M"], ...]  # the front after every generation

    def hypervolumes(self, reference: Float[np.ndarray, " M"]) -> list[float]:
        """The volume that each generation's front dominates, up to `reference`."""
        return [hypervolume(front, reference) for front in self.history]


def explore(
    key: PRNGKeyArray,
    cardinality: Int[np.ndarray, " G"],
    evaluate: Evaluate,
    budget: Budget,
    *,
    initial: Int[np.ndarray, "_ G"] | None = None,
    focus: Evaluate | None = None,
    settle: Settle | None = None,
    progress: Progress = lambda generations: None,
    until: Callable[[], bool] = lambda: False,
    exact: bool = True,
) -> Explored:
    """The front of all genomes, gene g being 0 … cardinality[g]-1; exact below `FEW` genomes.

    `initial` genomes, the first of them in any case, are up to half of the first population; the
    rest is random. `focus` is `evaluate` with narrower limits, around what somebody will choose
    from: the second half of the generations then looks there alone, beginning with what the first
    half found nearest, and up to half of the front is from there. Where `settle` is given,
    `evaluate` only estimates: survivors are then judged again beside their offspring, and the front
    is what `settle` says. `progress` is told of every finished generation (an enumeration
    is cut in as many parts). Generations end before their number once `until` says so, which it is
    asked after each. Without `exact`, few genomes are searched by generations too. Raises
    `Infeasible` where no feasible genome is found.
    """
    if exact and few(cardinality):
        return _enumerate(cardinality, evaluate, budget, settle, progress)
    algorithm = _algorithm(budget.population, tuple(map(int, cardinality)))
    seen: set[bytes] = set()

    def run(key: PRNGKeyArray, evaluate: Evaluate, draws: range, initial: Any) -> list[Evaluated]:
        def measured(draw: int, genomes: np.ndarray) -> Fitness:
            seen.update(genome.tobytes() for genome in genomes)
            return evaluate(draw if budget.renew else 0, genomes)

        populations = []
        again = budget.renew or settle is not None
        for population in _generations(key, algorithm, measured, draws, again, initial):
            populations.append(population)
            progress(1)
            if until():
                break
        return populations

    near = _near(budget, focus is not None)
    wide = budget.generations - near
    populations = run(key, evaluate, range(wide + 1), initial)
    front, history = feasible(populations[-1]), [best(p).objectives for p in populations]
    if focus is not None and near and not until():
        known = front.genomes if initial is None else np.concatenate([initial[:1], front.genomes])
        draws = range(wide, budget.generations + 1)
        violation = np.asarray(focus(draws[0] if budget.renew else 0, known).violation)
        nearest = known[np.argsort(violation, kind="stable")][: budget.population // 2]
        populations = run(jax.random.fold_in(key, 1), focus, draws, nearest)
        if budget.renew:  # all on the last draw
            front = Evaluated(front.genomes, *map(np.asarray, evaluate(draws[-1], front.genomes)))
        history += [joined(front, best(p)).objectives for p in populations]
        front = joined(front, best(populations[-1]), budget.population)
    if settle is not None:
        front = settle(budget.generations if budget.renew else 0)
        history[-1] = front.objectives
    return Explored(*front[:2], "nsga2", len(history), len(seen), tuple(history))


def few(cardinality: Int[np.ndarray, " G"]) -> bool:
    """Whether `explore` tries all genomes."""
    return prod(int(choices) for choices in cardinality) < FEW


def populations(budget: Budget, focused: bool) -> int:
    """How often `explore` has a population evaluated, at most, where genomes are not few."""
    near = 2 + budget.renew if _near(budget, focused) else 0
    return 1 + budget.generations + near


def _near(budget: Budget, focused: bool) -> int:
    """How many generations look in the focus alone."""
    return budget.generations // 2 if focused else 0


@lru_cache(maxsize=8)
def _algorithm(population: int, cardinality: tuple[int, ...]) -> NSGA2:
    """One instance for all searches of one size: an instance compiles once."""
    return NSGA2.integers(population, np.array(cardinality))


def _enumerate(
    cardinality: np.ndarray,
    evaluate: Evaluate,
    budget: Budget,
    settle: Settle | None,
    progress: Progress,
) -> Explored:
    genomes = np.indices(tuple(cardinality), np.int32).reshape(len(cardinality), -1).T
    scores, parts = [], budget.generations if settle is None else 1
    for part in np.array_split(genomes, parts):
        scores += [evaluate(0, part)] if len(part) else []
        progress(budget.generations // parts)
    every = Evaluated(genomes, *(np.concatenate(columns) for columns in zip(*scores, strict=True)))
    front = feasible(every)
    if settle is not None:
        front = settle(0)
    return Explored(*front[:2], "enumeration", 0, len(genomes), (front.objectives,))


def _generations(
    key: PRNGKeyArray,
    algorithm: NSGA2,
    evaluate: Evaluate,
    draws: range,
    again: bool,
    initial: np.ndarray | None,
) -> Iterator[Evaluated]:
    """NSGA-II's populations, one for each draw after the first, evaluated on the host.

    With `again`, survivors are evaluated anew, together with their offspring. What a generation
    leaves and what the next one asks for come from the device together.
    """
    params, steps = algorithm.default_params, compiled_steps(algorithm)
    start_key, loop_key = jax.random.split(key)
    population = _first(start_key, algorithm, initial)
    state = steps.init(start_key, population, evaluate(draws[0], population), params)
    last = None
    for draw in draws[1:]:
        ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, draw))
        offspring, _ = steps.ask(ask_key, state, params)
        young, *known = _fetched((offspring, state.population, *state.fitness))
        survivors = Evaluated(*known)
        if last is not None:
            yield survivors
        last = survivors
        old = len(young) if again else 0
        both = evaluate(draw, np.concatenate([survivors.genomes[:old], young]))
        both = Fitness(*map(np.asarray, both))
        if again:
            state = steps.rescore(state, Fitness(*(column[:old] for column in both)))
        fitness = Fitness(*(column[old:] for column in both))
        state, _ = steps.tell(tell_key, offspring, fitness, state, params)
    yield Evaluated(*_fetched((state.population, *state.fitness)))


def _fetched(arrays: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """Arrays from the device, all at once."""
    return jax.device_get(arrays)


class SearchSteps(NamedTuple):
    """NSGA-II's steps, compiled on their own."""

    init: Callable[..., NSGA2State]
    ask: Callable[..., tuple[Any, NSGA2State]]
    rescore: Callable[..., NSGA2State]
    tell: Callable[..., tuple[NSGA2State, Any]]


@lru_cache(maxsize=8)
def compiled_steps(algorithm: NSGA2) -> SearchSteps:
    """An algorithm's steps; where populations are small, in programs that compile sooner."""
    options = compiler.sooner() if algorithm.population_size <= _SMALL else None
    steps = (algorithm.init, algorithm.ask, algorithm.rescore, algorithm.tell)
    return SearchSteps(*(jax.jit(_plain(step), compiler_options=options) for step in steps))


def _plain(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: step(*arguments)


def _first(key: PRNGKeyArray, algorithm: NSGA2, initial: np.ndarray | None) -> np.ndarray:
    population = np.array(algorithm.sample(key))
    if initial is not None:
        _, places = np.unique(initial, axis=0, return_index=True)
        seeds = initial[np.sort(places)]
        # Half the population stays random, so that a search is never only around its seeds. The
        # first seed is always there, the others are thinned evenly.
        most = min(len(seeds), len(population) // 2)
        population[:most] = seeds[np.linspace(0, len(seeds) - 1, most).round().astype(int)]
    return population


def best(evaluated: Evaluated) -> Evaluated:
    """Feasible genomes that no other beats, each once, in lexicographic order."""
    evaluated = evaluated.at(evaluated.violation <= 0)
    evaluated = evaluated.at(np.unique(evaluated.genomes, axis=0, return_index=True)[1])
    return evaluated.at(non_dominated(evaluated.objectives))


def feasible(evaluated: Evaluated) -> Evaluated:
    """`best`, which must not be empty."""
    if (evaluated.violation > 0).all():
        raise Infeasible(evaluated.genomes[evaluated.violation.argmin()])
    return best(evaluated)


def joined(wide: Evaluated, near: Evaluated, most: int | None = None) -> Evaluated:
    """The best of both, thinned to `most`: of those near, half or what the others leave room for.

    Thinned by crowding distance, so that the ends of both stay.
    """
    both = Evaluated(*map(np.concatenate, zip(near, wide, strict=True)))
    front = best(both)
    if most is None:
        return front
    known = {genome.tobytes() for genome in near.genomes}
    is_near = np.array([genome.tobytes() in known for genome in front.genomes])
    return front.at(thinned(front.objectives, is_near, most))


def thinned(
    objectives: Float[np.ndarray, "N M"], is_near: Bool[np.ndarray, " N"], most: int
) -> Int[np.ndarray, " _"]:
    """Which points of a front to keep, `most` of them: of those near, half or more.

    By crowding distance, so that the ends of both parts stay.
    """
    near, far = np.flatnonzero(is_near), np.flatnonzero(~is_near)
    if len(objectives) <= most:
        return np.arange(len(objectives))
    near = near[_spread(objectives[near], max(most // 2, most - len(far)))]
    return np.sort(np.concatenate([near, far[_spread(objectives[far], most - len(near))]]))


def _spread(objectives: np.ndarray, most: int) -> np.ndarray:
    count = len(objectives)
    if count <= most:
        return np.arange(count)
    padded = np.pad(objectives, [(0, -count % _ROWS), (0, 0)])
    rank = (np.arange(len(padded)) >= count).astype(np.int32)
    distance = np.asarray(_crowding(padded, rank))[:count]
    return np.sort(np.argsort(-distance, kind="stable")[:most])


def as_fitness(objectives: Sequence[Any], violation: Any) -> Fitness:
    """Columns of objectives and a violation as the search takes them, float32, on the host."""
    columns = [np.asarray(column, np.float32) for column in objectives]
    return Fitness(np.stack(columns, axis=1), np.asarray(violation, np.float32))
