"""RobustDiCE's thresholds by NSGA-II, from a strong start: the exploration that the paper leaves.

Choices are levels of ladders of thresholds (`robust.levels`), one of each group of layers. Known
beforehand are all constant thresholds, and the combinations that a separable model expects to be
best; NSGA-II refines them. Everything that was measured is remembered, so no constant threshold is
ever better than the front on the images of the search.

Legend: N choices, G genes (groups of layers), M objectives, P individuals.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float64, Int, PRNGKeyArray

from afpjax.inputs.errors import InputError
from afpjax.neurons.separable import alone, combined, genomes_alone, penalties
from afpjax.search.explore import as_fitness, thinned
from afpjax.search.pareto import non_dominated
from afpjax.search.nsga2 import NSGA2
from afpjax.search.operators import reset_mutation

Progress = Callable[[int], Any]
_RESET = 0.15  # of the mutations go to any level, the others a step or two


@runtime_checkable
class Problem(Protocol):
    """What a search has to know; `robust.thresholds.Trade` is one.

    The first two objectives are the accuracy lost and the memory; level 0 of each gene loses
    nothing and takes most memory.
    """

    @property
    def cardinality(self) -> Int[np.ndarray, "G"]: ...

    @property
    def rows_each(self) -> int: ...

    @property
    def clean(self) -> float: ...

    def memory(self, choices: Int[np.ndarray, "N G"]) -> Float64[np.ndarray, "N"]: ...

    def constants(self) -> Int[np.ndarray, "N G"]: ...

    def of_choices(
        self, choices: Int[np.ndarray, "N G"], progress: Progress = ...
    ) -> Float64[np.ndarray, "N M"]: ...


@dataclass(frozen=True, eq=False)
class Found:
    """Choices that no other measured one beats, least memory first, and how they were found."""

    choices: Int[np.ndarray, "N G"]
    objectives: Float64[np.ndarray, "N M"]
    constants: Int[np.ndarray, "C G"]  # constant thresholds, in their order
    of_constants: Float64[np.ndarray, "C M"]
    start: Float64[np.ndarray, "S M"]  # the front before NSGA-II, for comparison
    evaluations: int  # rows: choices measured times sets of failed devices
    generations: int


@dataclass(eq=False)
class Archive:
    """Every choice that was measured, within a budget."""

    problem: Problem
    left: int  # choices that may still be measured
    progress: Progress
    known: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def measure(self, choices: Int[np.ndarray, "N G"]) -> Float64[np.ndarray, "N M"]:
        """Objectives of choices; NaN for those that the budget has no room for."""
        choices = np.ascontiguousarray(choices, np.int32)
        new = {each.tobytes(): each for each in choices if each.tobytes() not in self.known}
        new = dict(list(new.items())[: self.left])
        if new:
            found = self.problem.of_choices(np.stack(list(new.values())), self.progress)
            self.known |= {
                name: (each, cost) for (name, each), cost in zip(new.items(), found, strict=True)
            }
            self.left -= len(new)
        width = len(next(iter(self.known.values()))[1])
        none = (None, np.full(width, np.nan))
        return np.stack([self.known.get(each.tobytes(), none)[1] for each in choices])

    def everything(self) -> tuple[Int[np.ndarray, "N G"], Float64[np.ndarray, "N M"]]:
        choices, objectives = zip(*self.known.values(), strict=True)
        return np.stack(choices), np.stack(objectives)

    def front(self) -> tuple[Int[np.ndarray, "N G"], Float64[np.ndarray, "N M"]]:
        """What no other beats, each outcome once, least memory first."""
        choices, objectives = self.everything()
        order = np.lexsort((*choices.T[::-1], objectives[:, 0], objectives[:, 1]))
        choices, objectives = choices[order], objectives[order]
        _, first = np.unique(objectives, axis=0, return_index=True)
        first = np.sort(first)
        kept = first[non_dominated(objectives[first])]
        return choices[kept], objectives[kept]


def search_thresholds(
    key: PRNGKeyArray,
    problem: Problem,
    *,
    rows: int,
    population: int = 32,
    generations: int = 100,
    progress: Progress = lambda rows: None,
) -> Found:
    """Choices of thresholds that no other found one beats, from at most `rows` evaluated rows.

    Up to half of them goes into genes alone and what they suggest; NSGA-II stops after
    `generations` or when the rows are spent. The result is a function of the key and the problem.
    `progress` is told of every row. Raises `InputError` where there are not rows enough for the
    constant thresholds.
    """
    constants = problem.constants()
    archive = Archive(problem, rows // problem.rows_each, progress)
    distinct = len(np.unique(constants, axis=0))
    if archive.left < distinct:
        raise InputError(
            f"distribute.search: {rows} rows, and the constant thresholds take "
            f"{distinct * problem.rows_each}; give more"
        )
    of_constants = archive.measure(constants)
    _start(archive, population)
    start = archive.front()[1]
    done = _refine(key, archive, population, generations)
    spent = len(archive.known) * problem.rows_each
    return Found(*archive.front(), constants, of_constants, start, spent, done)


def _start(archive: Archive, population: int) -> None:
    """Measure genes alone, and the combinations that are expected to be the best."""
    problem = archive.problem
    levels = alone(problem.cardinality, archive.left // 2)
    singles = genomes_alone(levels)
    if len(singles) > archive.left // 2:  # not even one level of each
        return
    found = archive.measure(singles) if len(singles) else np.zeros((0, 2))
    kept = 1 - found[:, 0] / max(problem.clean, 1e-9)
    path = combined(penalties(problem.cardinality, levels, kept), problem.memory)
    count = min(len(path), 2 * population, max(archive.left // 2, 1))
    archive.measure(path[_spread(problem.memory(path), count)])


def _spread(values: Float64[np.ndarray, "N"], count: int) -> Int[np.ndarray, "n"]:
    """Places of `count` values, or fewer, about equally far apart; `values` ascend."""
    wanted = np.linspace(values[0], values[-1], count)
    return np.unique(np.abs(values[:, None] - wanted).argmin(axis=0))


def _refine(key: PRNGKeyArray, archive: Archive, population: int, generations: int) -> int:
    """NSGA-II from the best known; how many generations there were."""
    cardinality = archive.problem.cardinality
    if (cardinality < 2).all() or archive.left <= 0:
        return 0
    algorithm = _algorithm(population, tuple(map(int, cardinality)))
    params, start_key = algorithm.default_params, jax.random.fold_in(key, 0)
    first = _best(archive, population, np.asarray(algorithm.sample(start_key)))
    state = algorithm.init(start_key, first, _fitness(archive.measure(first)), params)
    for generation in range(generations):
        if archive.left <= 0 or len(archive.known) >= np.prod(cardinality.astype(float)):
            return generation
        ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation + 1))
        offspring, state = algorithm.ask(ask_key, state, params)
        fitness = _fitness(archive.measure(np.asarray(offspring)))
        state, _ = algorithm.tell(tell_key, offspring, fitness, state, params)
    return generations


@lru_cache(maxsize=8)
def _algorithm(population: int, cardinality: tuple[int, ...]) -> NSGA2:
    """One instance for all searches of one size: an instance compiles once."""
    mutate = partial(step_mutation, cardinality=jnp.asarray(cardinality, jnp.int32))
    return NSGA2.integers(population, np.array(cardinality), mutate=mutate)


def _best(archive: Archive, count: int, others: Int[np.ndarray, "P G"]) -> Int[np.ndarray, "P G"]:
    """The first population: fronts of what is known, and at random where that is too little."""
    choices, objectives = archive.everything()
    parts, missing = [], count
    while missing and len(choices):
        best = non_dominated(objectives)
        front = choices[best]
        if len(front) > missing:
            none = np.zeros(len(front), bool)
            front = front[thinned(objectives[best].astype(np.float32), none, missing)]
        parts.append(front)
        missing -= len(front)
        choices, objectives = choices[~best], objectives[~best]
    return np.concatenate([*parts, others[:missing]]).astype(np.int32)


def _fitness(objectives: Float64[np.ndarray, "N M"]) -> Any:
    return as_fitness(list(objectives.T), np.zeros(len(objectives)))


def step_mutation(
    key: PRNGKeyArray,
    genome: Int[Array, " G"],
    rate: ArrayLike,
    *,
    cardinality: Int[Array, " G"],
) -> Int[Array, " G"]:
    """Each gene, with probability `rate`, one or two levels up or down; seldom to any other level.

    A step beyond the ladder's end stays at the end.
    """
    hit_key, step_key, reset_key, any_key = jax.random.split(key, 4)
    steps = jnp.asarray([-2, -1, -1, 1, 1, 2], genome.dtype)
    step = jax.random.choice(step_key, steps, genome.shape)
    moved = jnp.clip(genome + step, 0, cardinality.astype(genome.dtype) - 1)
    hit = jax.random.uniform(hit_key, genome.shape, jnp.float32) < rate
    stepped = jnp.where(hit, moved, genome)
    reset = reset_mutation(any_key, genome, rate, cardinality=cardinality)
    return jnp.where(jax.random.uniform(reset_key, (), jnp.float32) < _RESET, reset, stepped)
