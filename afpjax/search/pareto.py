"""Who dominates whom: constrained Pareto ranks, crowding distances and duplicate genomes, in JAX.

Legend: N individuals or points, M objectives (all minimised), G genes, W words of 32 bits.
What is in JAX is one compiled program of fixed shape: individuals are ranked last, never removed.
`non_dominated` and `hypervolume` are exact answers about finished fronts, in NumPy on the host.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped, UInt

from afpjax.inputs.errors import InputError


class Fitness(NamedTuple):
    """What a search knows of N individuals: objectives [N, M] and violation [N], both floats.

    Objectives are minimised. Violation is 0 (or less) where every constraint is met, and how much
    they are missed by where not.
    """

    objectives: Any  # float [N, M], JAX's or NumPy's
    violation: Any


def failed(fitness: Fitness) -> Bool[Array, " N"]:
    """Which individuals have an objective or a violation that is NaN or infinite. Shape [N]."""
    return ~(jnp.isfinite(fitness.objectives).all(axis=1) & jnp.isfinite(fitness.violation))


def guard(fitness: Fitness) -> Fitness:
    """Make every number finite and comparable; to be called once, where fitness enters.

    A failed individual gets the largest float as violation and in every objective, so it comes
    after all others and, as its front is its own, stretches nobody's crowding distance.
    Raises InputError where shapes are not [N, M] and [N] or dtypes are not floats.
    """
    objectives, violation = jnp.asarray(fitness.objectives), jnp.asarray(fitness.violation)
    if objectives.ndim != 2 or violation.shape != objectives.shape[:1]:
        raise InputError(
            f"fitness has objectives of shape {objectives.shape} and violation of shape "
            f"{violation.shape}: give [individuals, objectives] and [individuals]"
        )
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in (objectives, violation)):
        raise InputError(
            f"fitness has dtypes {objectives.dtype} and {violation.dtype}: convert both to floats"
        )
    bad = failed(Fitness(objectives, violation))
    return Fitness(
        jnp.where(bad[:, None], jnp.finfo(objectives.dtype).max, objectives),
        jnp.where(bad, jnp.finfo(violation.dtype).max, jnp.maximum(violation, 0)),
    )


def assess(
    genomes: Shaped[Array, "N G"], fitness: Fitness, *, enough: int
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    """Rank (copies of a genome last, at N) and crowding distance of N individuals."""
    copies = duplicates(genomes)
    rank = pareto_rank(fitness, last=copies, enough=enough)
    return rank, crowding(fitness.objectives, rank)


def dominates(one: Fitness, other: Fitness) -> Bool[Array, "A B"]:
    """Entry [a, b]: `one`'s a beats `other`'s b by Deb's rule. Shape [A, B].

    The less violating wins; among equally violating ones, Pareto dominance decides.
    Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002, section VI.
    """
    no_worse, better = jnp.bool_(True), jnp.bool_(False)
    for mine, theirs in zip(one.objectives.T, other.objectives.T, strict=True):
        no_worse &= mine[:, None] <= theirs[None, :]
        better |= mine[:, None] < theirs[None, :]
    mine, theirs = one.violation[:, None], other.violation[None, :]
    return (mine < theirs) | ((mine == theirs) & no_worse & better)


def pareto_rank(
    fitness: Fitness, *, last: Bool[Array, " N"] | None = None, enough: int | None = None
) -> Int[Array, " N"]:
    """The front (0 is best) that each individual belongs to. Shape [N], int32.

    Peels one front after the other from a dominance matrix of one bit per pair, until at least
    `enough` individuals are ranked (default: all). The rest, and those marked `last`, get N.
    Fitness must have passed `guard`.
    """
    size = fitness.violation.shape[0]
    enough = size if enough is None else enough
    dominators = _dominators(fitness)
    left = jnp.ones(size, bool) if last is None else ~last

    def peel(carry):
        rank, left, front = carry
        best = left & ~((dominators & _words_of(left)[:, None]) != 0).any(axis=0)
        return jnp.where(best, front, rank), left & ~best, front + 1

    def unfinished(carry):
        rank, left, _ = carry
        return left.any() & ((rank < size).sum() < enough)

    start = (jnp.full(size, size, jnp.int32), left, jnp.int32(0))
    return lax.while_loop(unfinished, peel, start)[0]


def _dominators(fitness: Fitness) -> UInt[Array, "W N"]:
    """Bit b of word [w, n]: individual 32 w + b dominates n. Memory N²/8 bytes, no more."""
    size = fitness.violation.shape[0]
    words = -(-size // 32)
    spare = 32 * words - size  # never left, so what fills the last word does not matter
    rows = jax.tree.map(lambda x: jnp.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1)), fitness)
    single = dominates(rows, fitness).reshape(words, 32, size).astype(jnp.uint32)
    place = jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    # One fused reduction: the compiler never stores the matrix of single bits.
    return (single << place).sum(axis=1, dtype=jnp.uint32)


def _words_of(flags: Bool[Array, " N"]) -> UInt[Array, " W"]:
    """Flag 32 w + b as bit b of word w."""
    flags = jnp.pad(flags, (0, -flags.shape[0] % 32)).reshape(-1, 32)
    bits = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.where(flags, bits[None, :], jnp.uint32(0)).sum(axis=1, dtype=jnp.uint32)


def crowding(objectives: Float[Array, "N M"], rank: Int[Array, " N"]) -> Float[Array, " N"]:
    """How far apart an individual's neighbours in its own front lie. Shape [N].

    The mean over objectives of the gap between both neighbours over the front's range; infinite
    at a front's ends (Deb et al. 2002, section III-B). An objective that is flat in a front counts
    as 0 there. Objectives must be finite.

    The front is the set of its distinct objective vectors: the first holder of a vector gets its
    distance, every other holder -1, so no copy is ever kept before a point that is new.
    Accuracies on a finite set move in steps, hence copies are many. Ties in one objective
    are ordered by the others, so the result does not depend on the individuals' order.
    """
    order = jnp.lexsort((*reversed(objectives.T), rank))
    points, fronts = objectives[order], rank[order]
    again = (points[1:] == points[:-1]).all(axis=1) & (fronts[1:] == fronts[:-1])
    again = jnp.concatenate([jnp.zeros(1, bool), again])
    fronts = jnp.where(again, rank.shape[0] + 1, fronts)  # copies leave their front
    gaps, flats = zip(*(_gaps(values, fronts) for values in points.T), strict=True)
    alone = jnp.stack(flats).all(axis=0)
    distance = jnp.where(alone, jnp.inf, jnp.stack(gaps).mean(axis=0))
    return jnp.zeros_like(distance).at[order].set(jnp.where(again, -1, distance))


def _gaps(
    values: Float[Array, " N"], fronts: Int[Array, " N"]
) -> tuple[Float[Array, " N"], Bool[Array, " N"]]:
    """Scaled gap around each point in one objective, and whether its front is flat there."""
    groups = values.shape[0] + 2
    order = jnp.lexsort((values, fronts))  # stable: ties stay in the caller's order
    values, fronts = values[order] / 2, fronts[order]  # halves: no range of floats overflows
    change = fronts[1:] != fronts[:-1]
    edge = jnp.ones(1, bool)
    border = jnp.concatenate([edge, change]) | jnp.concatenate([change, edge])
    low = jax.ops.segment_min(values, fronts, groups, indices_are_sorted=True)
    high = jax.ops.segment_max(values, fronts, groups, indices_are_sorted=True)
    spread = high[fronts] - low[fronts]
    flat = ~(spread > 0)
    gap = jnp.where(border, jnp.inf, jnp.roll(values, -1) - jnp.roll(values, 1))
    scaled = jnp.where(flat, 0, gap / jnp.where(flat, 1, spread))
    return jnp.zeros_like(scaled).at[order].set(scaled), jnp.zeros_like(flat).at[order].set(flat)


def duplicates(genomes: Shaped[Array, "N G"]) -> Bool[Array, " N"]:
    """Which genomes equal, bit for bit, one of a lower index. Shape [N].

    Sorted by a 64-bit hash and compared exactly with the neighbour: nothing is marked wrongly,
    and a copy is missed only where two different genomes share all 64 bits.
    """
    words = _words(genomes)
    place = jnp.arange(words.shape[1], dtype=jnp.uint32)
    hashes = [
        _scramble(words ^ _scramble(place + jnp.uint32(seed))[None, :]).sum(1, dtype=jnp.uint32)
        for seed in (0x9E3779B9, 0x7F4A7C15)
    ]
    order = jnp.lexsort(hashes)  # stable: of equal genomes the lowest index comes first
    arranged = words[order]
    same = (arranged[1:] == arranged[:-1]).all(axis=1)
    return jnp.zeros(len(words), bool).at[order[1:]].set(same)


def _words(genomes: Shaped[Array, "N G"]) -> UInt[Array, "N H"]:
    """The genomes' bits as 32-bit words."""
    width = genomes.dtype.itemsize
    if width >= 4:
        return lax.bitcast_convert_type(genomes, jnp.uint32).reshape(len(genomes), -1)
    if genomes.dtype == bool:
        return genomes.astype(jnp.uint32)
    narrow = jnp.uint8 if width == 1 else jnp.uint16
    return lax.bitcast_convert_type(genomes, narrow).astype(jnp.uint32)


def _scramble(words: UInt[Array, "..."]) -> UInt[Array, "..."]:
    """A bijection of 32-bit words in which every input bit reaches every output bit."""
    words = (words ^ (words >> jnp.uint32(16))) * jnp.uint32(0x21F0AAAD)
    words = (words ^ (words >> jnp.uint32(15))) * jnp.uint32(0xD35A2D97)
    return words ^ (words >> jnp.uint32(15))


def non_dominated(points: Num[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
    """Which points no other point dominates; copies of such a point all count. Shape [N].

    Exact, for enumerations: memory N·M, time N times the number of distinct points found.
    Raises InputError where a point is NaN.
    """
    _refuse_nan(points)
    distinct, origin = np.unique(points, axis=0, return_inverse=True)
    on_front = np.zeros(len(distinct), bool)
    left = np.arange(len(distinct))
    while left.size:  # in lexicographic order, so the first one left cannot be dominated
        best = distinct[left[0]]
        on_front[left[0]] = True
        left = left[(distinct[left] < best).any(axis=1)]
    return on_front[origin.reshape(-1)]


def hypervolume(points: Num[np.ndarray, "N M"], reference: Num[np.ndarray, " _"]) -> float:
    """The volume that the points dominate, up to the reference point. Exact, in float64.

    Sorted sweep in two objectives; with more, slices along the last one (N times the cost of one
    objective fewer). Points not better than the reference in every objective add nothing; no
    points, no volume. Raises InputError where a number is NaN or minus infinity, or where the
    reference has another number of objectives.
    """
    points = np.asarray(points, np.float64)
    reference = np.asarray(reference, np.float64)
    _refuse_nan(points)
    _refuse_nan(reference)
    if points.shape[1] != reference.size:
        raise InputError(
            f"hypervolume: points have {points.shape[1]} objectives, the reference point "
            f"{reference.size}: give one reference number per objective"
        )
    if np.isneginf(points).any() or not np.isfinite(reference).all():
        raise InputError("hypervolume: an infinite volume: give finite points and reference")
    inside = points[(points < reference).all(axis=1)]
    return float(_volume(inside, reference)) if len(inside) else 0.0


def _volume(points: Num[np.ndarray, "N M"], reference: Num[np.ndarray, " M"]) -> np.floating:
    if points.shape[1] == 1:
        return reference[0] - points.min()
    if points.shape[1] == 2:
        return _area(points, reference)
    points = points[non_dominated(points)]
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.diff(points[:, -1], append=reference[-1])
    total = np.float64(0)
    for count, depth in enumerate(depths, start=1):
        if depth > 0:  # between this height and the next, the first `count` points are there
            total += depth * _volume(points[:count, :-1], reference[:-1])
    return total


def _area(points: Num[np.ndarray, "N 2"], reference: Num[np.ndarray, " 2"]) -> np.floating:
    """Strips between one point's first objective and the next one's."""
    points = points[np.argsort(points[:, 0], kind="stable")]
    widths = np.diff(points[:, 0], append=reference[0])
    heights = reference[1] - np.minimum.accumulate(points[:, 1])
    return np.dot(widths, heights)


def _refuse_nan(points: Num[np.ndarray, "..."]) -> None:
    if np.issubdtype(points.dtype, np.floating) and np.isnan(points).any():
        raise InputError("points hold NaN: leave failed individuals out")
