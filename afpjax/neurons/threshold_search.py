"""RobustDiCE's thresholds by NSGA-II, from a strong start: the exploration that the paper leaves.

Choices are levels of ladders of thresholds (`thresholds`), one of each group of layers. Known
beforehand are all constant thresholds, and the combinations that a separable model expects to be
best; NSGA-II refines them. Everything that was measured is remembered, so no constant threshold is
ever better than the front on the images of the search.

The separable model: a network keeps about the product of what it keeps when each layer alone is
thinned. That needs as many measurements as there are levels, not combinations of them, and says for
every memory which combination to try.

Legend: N choices, G genes (groups of layers), K levels of a gene (level 0 of each costs most memory
and loses nothing), M objectives, P individuals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float64, Int, PRNGKeyArray

from afpjax.evaluate.evaluator import Progress
from afpjax.inputs.errors import InputError
from afpjax.neurons.cluster_thresholds import Trade
from afpjax.search.explore import as_fitness, compiled_steps, thinned
from afpjax.search.nsga2 import NSGA2
from afpjax.search.operators import reset_mutation
from afpjax.search.pareto import non_dominated

_STATES = 2048  # partial combinations that are followed
_FLOOR = 1e-3  # of the accuracy: what is lost altogether is no worse than this
_RESET = 0.15  # of the mutations go to any level, the others a step or two


@dataclass(frozen=True, eq=False)
class ThresholdFront:
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

    trade: Trade
    left: int  # choices that may still be measured
    progress: Progress
    known: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def measure(self, choices: Int[np.ndarray, "N G"]) -> Float64[np.ndarray, "N M"]:
        """Objectives of choices; NaN for those that the budget has no room for."""
        choices = np.ascontiguousarray(choices, np.int32)
        names = [choice.tobytes() for choice in choices]
        new = {n: c for n, c in zip(names, choices, strict=True) if n not in self.known}
        new = dict(list(new.items())[: self.left])
        if new:
            objectives = self.trade.of_choices(np.stack(list(new.values())), self.progress)
            for (name, choice), cost in zip(new.items(), objectives, strict=True):
                self.known[name] = choice, cost
            self.left -= len(new)
        width = len(next(iter(self.known.values()))[1])
        unmeasured = (None, np.full(width, np.nan))
        return np.stack([self.known.get(name, unmeasured)[1] for name in names])

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
    trade: Trade,
    *,
    rows: int,
    population: int = 32,
    generations: int = 100,
    progress: Progress = lambda rows: None,
) -> ThresholdFront:
    """Choices of thresholds that no other found one beats, from at most `rows` evaluated rows.

    Up to half of them goes into genes alone and what they suggest; NSGA-II stops after
    `generations` or when the rows are spent. The result is a function of the key and the trade.
    `progress` is told of every row. Raises `InputError` where there are not rows enough for the
    constant thresholds.
    """
    constants = trade.constants()
    archive = Archive(trade, rows // trade.rows_each, progress)
    distinct = len(np.unique(constants, axis=0))
    if archive.left < distinct:
        raise InputError(
            f"distribute.search: {rows} rows, and the constant thresholds take "
            f"{distinct * trade.rows_each}; give more"
        )
    of_constants = archive.measure(constants)
    _start(archive, population)
    start = archive.front()[1]
    done = _refine(key, archive, population, generations)
    spent = len(archive.known) * trade.rows_each
    return ThresholdFront(*archive.front(), constants, of_constants, start, spent, done)


def _start(archive: Archive, population: int) -> None:
    """Measure genes alone, and the combinations that are expected to be the best."""
    trade = archive.trade
    levels = levels_alone(trade.ladders.cardinality, archive.left // 2)
    singles = genomes_alone(levels)
    if len(singles) > archive.left // 2:  # not even one level of each
        return
    alone = archive.measure(singles) if len(singles) else np.zeros((0, 2))
    kept = 1 - alone[:, 0] / max(trade.clean, 1e-9)
    path = combined(penalties(trade.ladders.cardinality, levels, kept), trade.ladders.memory)
    count = min(len(path), 2 * population, max(archive.left // 2, 1))
    archive.measure(path[_evenly(trade.ladders.memory(path), count)])


def _evenly(values: Float64[np.ndarray, "N"], count: int) -> Int[np.ndarray, "n"]:
    """Indices of `count` values, or fewer, about equally far apart; `values` ascend."""
    wanted = np.linspace(values[0], values[-1], count)
    return np.unique(np.abs(values[:, None] - wanted).argmin(axis=0))


def _refine(key: PRNGKeyArray, archive: Archive, population: int, generations: int) -> int:
    """NSGA-II from the best known; how many generations there were."""
    cardinality = archive.trade.ladders.cardinality
    if (cardinality < 2).all() or archive.left <= 0:
        return 0
    algorithm = _algorithm(population, tuple(map(int, cardinality)))
    params, start_key = algorithm.default_params, jax.random.fold_in(key, 0)
    first = _best(archive, population, np.asarray(algorithm.sample(start_key)))
    steps = compiled_steps(algorithm)
    state = steps.init(start_key, first, _fitness(archive.measure(first)), params)
    for generation in range(generations):
        if archive.left <= 0 or len(archive.known) >= np.prod(cardinality.astype(float)):
            return generation
        ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation + 1))
        offspring, state = steps.ask(ask_key, state, params)
        fitness = _fitness(archive.measure(np.asarray(offspring)))
        state, _ = steps.tell(tell_key, offspring, fitness, state, params)
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


def levels_alone(cardinality: Int[np.ndarray, "G"], most: int) -> list[Int[np.ndarray, "_"]]:
    """Of each gene, which levels to measure with all others at 0: all, or evenly spread, in all
    at most `most` of them where each gene has its last level."""
    levels = [np.arange(1, size) for size in cardinality]
    stride = 1

    def thinned_out() -> list[Int[np.ndarray, "_"]]:
        """Each `stride`-th level of a gene, the last among them."""
        return [own[::-1][::stride][::-1] for own in levels]

    while sum(map(len, thinned_out())) > most and stride < max(cardinality):
        stride += 1
    return thinned_out()


def genomes_alone(levels: Sequence[Int[np.ndarray, "_"]]) -> Int[np.ndarray, "N G"]:
    """Each gene at each of its levels, all others at 0; genes in their order."""
    genomes = np.zeros((sum(map(len, levels)), len(levels)), np.int32)
    gene = np.repeat(np.arange(len(levels)), [len(own) for own in levels])
    genomes[np.arange(len(genomes)), gene] = np.concatenate(levels)
    return genomes


def penalties(
    cardinality: Int[np.ndarray, "G"],
    levels: Sequence[Int[np.ndarray, "_"]],
    kept: Float64[np.ndarray, "N"],
) -> list[Float64[np.ndarray, "_"]]:
    """-log of what each gene's levels keep of the accuracy, from `genomes_alone` in its order.

    Levels in between are interpolated; what seems to gain by chance counts as losing nothing.
    """
    penalty, start = [], 0
    for size, own in zip(cardinality, levels, strict=True):
        loss = -np.log(np.clip(kept[start : start + len(own)], _FLOOR, 1.0))
        start += len(own)
        known = np.concatenate([[0], own])
        penalty.append(np.interp(np.arange(size), known, np.concatenate([[0.0], loss])))
    return penalty


def combined(
    penalty: Sequence[Float64[np.ndarray, "_"]],
    memory: Callable[[Int[np.ndarray, "N G"]], Float64[np.ndarray, "N"]],
) -> Int[np.ndarray, "N G"]:
    """The combinations that are best for some memory if penalties add up; least memory first.

    A knapsack, gene by gene, of which the best partial combinations are followed; exact up to
    2048 of them, beyond that the best of as many equal steps of memory.
    """
    genomes, cost = np.zeros((1, len(penalty)), np.int32), np.zeros(1)
    for gene, own in enumerate(penalty):
        count = len(genomes)
        genomes = np.repeat(genomes, len(own), axis=0)
        genomes[:, gene] = np.tile(np.arange(len(own)), count)
        cost = (cost[:, None] + own).ravel()
        kept = _undominated(memory(genomes), cost)
        genomes, cost = genomes[kept], cost[kept]
    return genomes


def _undominated(
    memory: Float64[np.ndarray, "N"], cost: Float64[np.ndarray, "N"]
) -> Int[np.ndarray, "n"]:
    order = np.lexsort((cost, memory))
    falling = np.minimum.accumulate(cost[order])
    kept = order[np.concatenate([[True], cost[order][1:] < falling[:-1]])]
    if len(kept) <= _STATES:
        return kept
    ascending = memory[kept]
    part = (ascending - ascending[0]) / (ascending[-1] - ascending[0])
    step = np.floor(part * (_STATES - 1))
    last = np.append(step[1:] != step[:-1], True)  # of a step the last costs least
    return kept[last]
