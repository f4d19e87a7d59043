"""Look for the best genomes: all of them where they are few, NSGA-II where they are not.

Shape legend: N individuals, P of them in a population, M objectives, G genes (integers).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from afpjax.errors import InputError
from afpjax.search.hypervolume import hypervolume, non_dominated
from afpjax.search.nsga2 import NSGA2
from afpjax.search.pareto import Fitness, crowding

FEW = 4096  # genomes; fewer are enumerated

#: (number of the fault draw, genomes [N, G]) -> Fitness of N individuals; runs on the host.
Evaluate = Callable[[int, Int[np.ndarray, "N G"]], Fitness]


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


@dataclass(frozen=True)
class Budget:
    """How much a search may spend: individuals, and generations after the first population."""

    population: int = 40
    generations: int = 20
    renew: bool = False  # a new fault draw every generation; survivors are then measured again

    def __post_init__(self) -> None:
        if self.generations < 1:
            raise InputError(f"generations is {self.generations}: give at least 1")


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
    progress: Callable[[int], Any] = lambda generations: None,
) -> Explored:
    """The front of all genomes, gene g being 0 … cardinality[g]-1; exact below `FEW` genomes.

    `initial` genomes, the first of them in any case, are up to half of the first population; the
    rest is random. `focus` is `evaluate` with narrower limits, around what somebody will choose
    from: the second half of the generations then looks there alone, beginning with what the first
    half found nearest, and up to half of the front is from there. `progress` is told of every
    finished generation (an enumeration is cut in as many parts). Raises `Infeasible` where no
    feasible genome is found.
    """
    if prod(int(choices) for choices in cardinality) < FEW:
        return _enumerate(cardinality, evaluate, budget, progress)
    algorithm = _algorithm(budget.population, tuple(map(int, cardinality)))
    seen: set[bytes] = set()

    def run(key: PRNGKeyArray, evaluate: Evaluate, draws: range, initial: Any) -> list[Evaluated]:
        def measured(draw: int, genomes: np.ndarray) -> Fitness:
            seen.update(genome.tobytes() for genome in genomes)
            return evaluate(draw if budget.renew else 0, genomes)

        found = []
        for state in _generations(key, algorithm, measured, draws, budget.renew, initial):
            found.append(Evaluated(*map(np.asarray, (state.population, *state.fitness))))
            progress(1)
        return found

    near = 0 if focus is None else budget.generations // 2
    wide = budget.generations - near
    populations = run(key, evaluate, range(wide + 1), initial)
    front, history = _feasible(populations[-1]), [_best(each).objectives for each in populations]
    if focus is not None and near:
        given = front.genomes if initial is None else np.concatenate([initial[:1], front.genomes])
        draws = range(wide, budget.generations + 1)
        violation = np.asarray(focus(draws[0] if budget.renew else 0, given).violation)
        nearest = given[np.argsort(violation, kind="stable")][: budget.population // 2]
        populations = run(jax.random.fold_in(key, 1), focus, draws, nearest)
        if budget.renew:  # all on the last draw
            front = Evaluated(front.genomes, *map(np.asarray, evaluate(draws[-1], front.genomes)))
        history += [_joined(front, _best(each)).objectives for each in populations]
        front = _joined(front, _best(populations[-1]), budget.population)
    return Explored(
        front.genomes,
        front.objectives,
        "nsga2",
        budget.generations,
        len(seen),
        tuple(history),
    )


@lru_cache(maxsize=8)
def _algorithm(population: int, cardinality: tuple[int, ...]) -> NSGA2:
    """One instance for all searches of one size: an instance compiles once."""
    return NSGA2.integers(population, np.array(cardinality))


def _enumerate(
    cardinality: np.ndarray, evaluate: Evaluate, budget: Budget, progress: Callable[[int], Any]
) -> Explored:
    genomes = np.indices(tuple(cardinality), np.int32).reshape(len(cardinality), -1).T
    scores = []
    for part in np.array_split(genomes, budget.generations):
        scores += [evaluate(0, part)] if len(part) else []
        progress(1)
    fitness = [np.concatenate(columns) for columns in zip(*scores, strict=True)]
    front = _feasible(Evaluated(genomes, *fitness))
    history = (front.objectives,)
    return Explored(front.genomes, front.objectives, "enumeration", 0, len(genomes), history)


def _generations(
    key: PRNGKeyArray,
    algorithm: NSGA2,
    evaluate: Evaluate,
    draws: range,
    renew: bool,
    initial: np.ndarray | None,
):
    """NSGA-II's states, one for each draw after the first, evaluated on the host."""
    params = algorithm.default_params
    start_key, loop_key = jax.random.split(key)
    population = _first(start_key, algorithm, initial)
    state = algorithm.init(start_key, population, evaluate(draws[0], population), params)
    for draw in draws[1:]:
        ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, draw))
        offspring, state = algorithm.ask(ask_key, state, params)
        if renew:
            survivors = np.asarray(algorithm.get_population(state))
            state = algorithm.rescore(state, evaluate(draw, survivors))
        fitness = evaluate(draw, np.asarray(offspring))
        state, _ = algorithm.tell(tell_key, offspring, fitness, state, params)
        yield state


def _first(key: PRNGKeyArray, algorithm: NSGA2, initial: np.ndarray | None) -> np.ndarray:
    population = np.array(algorithm.sample(key))
    if initial is not None:
        _, places = np.unique(initial, axis=0, return_index=True)
        given = initial[np.sort(places)]
        # Half the population stays random, so that a search is never only around its seeds. The
        # first seed is always there, the others are thinned evenly.
        most = min(len(given), len(population) // 2)
        population[:most] = given[np.linspace(0, len(given) - 1, most).round().astype(int)]
    return population


def _best(found: Evaluated) -> Evaluated:
    """Feasible genomes that no other beats, each once, in lexicographic order."""
    found = found.at(found.violation <= 0)
    found = found.at(np.unique(found.genomes, axis=0, return_index=True)[1])
    return found.at(non_dominated(found.objectives))


def _feasible(found: Evaluated) -> Evaluated:
    """`_best`, which must not be empty."""
    if (found.violation > 0).all():
        raise Infeasible(found.genomes[found.violation.argmin()])
    return _best(found)


def _joined(wide: Evaluated, near: Evaluated, most: int | None = None) -> Evaluated:
    """The best of both, thinned to `most`: of those near, half or what the others leave room for.

    Thinned by crowding distance, so that the ends of both stay.
    """
    both = Evaluated(*map(np.concatenate, zip(near, wide, strict=True)))
    best = _best(both)
    if most is None or len(best.genomes) <= most:
        return best
    known = {genome.tobytes() for genome in near.genomes}
    is_near = np.array([genome.tobytes() in known for genome in best.genomes])
    room = max(most // 2, most - int((~is_near).sum()))
    parts = [_thinned(best.at(is_near), room)]
    parts.append(_thinned(best.at(~is_near), most - len(parts[0].genomes)))
    return _best(Evaluated(*map(np.concatenate, zip(*parts, strict=True))))


def _thinned(found: Evaluated, most: int) -> Evaluated:
    if len(found.genomes) <= most:
        return found
    distance = crowding(jnp.asarray(found.objectives), jnp.zeros(len(found.genomes), jnp.int32))
    return found.at(np.sort(np.argsort(-np.asarray(distance), kind="stable")[:most]))


def as_fitness(objectives: Sequence[Any], violation: Any) -> Fitness:
    """Columns of objectives and a violation as the search takes them, float32."""
    columns = [jnp.asarray(np.asarray(column, np.float32)) for column in objectives]
    return Fitness(jnp.stack(columns, axis=1), jnp.asarray(np.asarray(violation, np.float32)))
