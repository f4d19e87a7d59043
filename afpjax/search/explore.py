"""Look for the best genomes: all of them where they are few, NSGA-II where they are not.

Shape legend: N individuals, P of them in a population, M objectives, G genes (integers).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from afpjax.errors import InputError
from afpjax.search.hypervolume import hypervolume, non_dominated
from afpjax.search.nsga2 import NSGA2
from afpjax.search.pareto import Fitness

FEW = 4096  # genomes; fewer are enumerated

#: (number of the fault draw, genomes [N, G]) -> Fitness of N individuals; runs on the host.
Evaluate = Callable[[int, Int[np.ndarray, "N G"]], Fitness]


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
    progress: Callable[[int], Any] = lambda generations: None,
) -> Explored:
    """The front of all genomes, gene g being 0 … cardinality[g]-1; exact below `FEW` genomes.

    `initial` genomes, the first of them in any case, are up to half of the first population; the
    rest is random. `progress` is told of every finished generation (an enumeration is cut in as
    many parts). Raises `Infeasible` where no feasible genome is found.
    """
    if prod(int(choices) for choices in cardinality) < FEW:
        return _enumerate(cardinality, evaluate, budget, progress)
    algorithm = _algorithm(budget.population, tuple(map(int, cardinality)))
    seen: set[bytes] = set()

    def measured(draw: int, genomes: np.ndarray) -> Fitness:
        seen.update(genome.tobytes() for genome in genomes)
        return evaluate(draw, genomes)

    populations = []
    for state in _generations(key, algorithm, measured, budget, initial):
        populations.append(tuple(map(np.asarray, (state.population, *state.fitness))))
        progress(1)
    front, objectives = _feasible(*populations[-1])
    history = tuple(_best(*each)[1] for each in populations)
    return Explored(front, objectives, "nsga2", budget.generations, len(seen), history)


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
    front, objectives = _feasible(genomes, *fitness)
    return Explored(front, objectives, "enumeration", 0, len(genomes), (objectives,))


def _generations(
    key: PRNGKeyArray,
    algorithm: NSGA2,
    evaluate: Evaluate,
    budget: Budget,
    initial: np.ndarray | None,
):
    """NSGA-II's states, one for each generation, evaluated on the host."""
    params = algorithm.default_params
    start_key, loop_key = jax.random.split(key)
    population = _first(start_key, algorithm, initial)
    state = algorithm.init(start_key, population, evaluate(0, population), params)
    for number in range(1, budget.generations + 1):
        ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, number))
        offspring, state = algorithm.ask(ask_key, state, params)
        draw = number if budget.renew else 0
        if budget.renew:
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


def _best(
    genomes: np.ndarray, objectives: np.ndarray, violation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Feasible genomes that no other beats, each once, in lexicographic order."""
    feasible = violation <= 0
    genomes, places = np.unique(genomes[feasible], axis=0, return_index=True)
    objectives = objectives[feasible][places]
    best = non_dominated(objectives)
    return genomes[best], objectives[best]


def _feasible(
    genomes: np.ndarray, objectives: np.ndarray, violation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_best`, which must not be empty."""
    if (violation > 0).all():
        raise Infeasible(genomes[violation.argmin()])
    return _best(genomes, objectives, violation)


def as_fitness(objectives: Sequence[Any], violation: Any) -> Fitness:
    """Columns of objectives and a violation as the search takes them, float32."""
    columns = [jnp.asarray(np.asarray(column, np.float32)) for column in objectives]
    return Fitness(jnp.stack(columns, axis=1), jnp.asarray(np.asarray(violation, np.float32)))
