"""Dominance, ranks, crowding and copies, held against moocore, pymoo and loops.

How our crowding relates to pymoo's: ours is pymoo's distance of each front's distinct objective
vectors, taken in lexicographic order; the first holder of a vector gets it, every other holder -1.
So where all values differ, the two are equal as they stand.
"""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

from afpjax.inputs.errors import InputError
from afpjax.search import pareto
from afpjax.search.pareto import Fitness, hypervolume, non_dominated

from .genomes import fitness

LARGEST = np.finfo(np.float32).max
STEPS = (None, 8, 3)  # values differ, some are tied, most are tied

rank_of = jax.jit(pareto.pareto_rank, static_argnames=("enough",))
crowding_of = jax.jit(pareto.crowding)
guarded = jax.jit(pareto.guard)
assess = jax.jit(pareto.assess, static_argnames=("enough",))
duplicates = jax.jit(pareto.duplicates)


def points(seed, size, objectives, steps):
    rng = np.random.default_rng(seed)
    if steps is None:
        return rng.random((size, objectives), np.float32)
    return rng.integers(0, steps, (size, objectives)).astype(np.float32)


def violations(seed, size):
    return np.random.default_rng(seed).choice([0, 0, 1, 2.5], size).astype(np.float32)


def beats(one, other):
    """Deb's rule for two (objectives, violation), in words of its own."""
    if one[1] != other[1]:
        return one[1] < other[1]
    pairs = list(zip(one[0], other[0], strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def peeled(objectives, violation):
    """Rank by taking away, again and again, whoever nobody left beats."""
    people = list(zip(objectives, violation, strict=True))
    rank, left, front = np.zeros(len(people), int), set(range(len(people))), 0
    while left:
        best = {i for i in left if not any(beats(people[j], people[i]) for j in left)}
        rank[list(best)] = front
        left, front = left - best, front + 1
    return rank


def crowding_by_pymoo(objectives, rank):
    """pymoo's distance of every front's distinct vectors in lexicographic order; copies -1."""
    expected = np.full(len(objectives), -1.0)
    for front in np.unique(rank):
        members = np.flatnonzero(rank == front)
        distinct, first = np.unique(objectives[members], axis=0, return_index=True)
        alone = len(distinct) == 1
        expected[members[first]] = np.inf if alone else calc_crowding_distance(distinct)
    return expected


# --- dominance and rank ---------------------------------------------------------------------


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("size", "objectives"), [(1, 2), (32, 1), (33, 3), (100, 4)])
def test_rank_equals_moocores(size, objectives, steps):
    for seed in range(5):
        values = points(seed, size, objectives, steps)
        np.testing.assert_array_equal(rank_of(fitness(values)), moocore.pareto_rank(values))


@pytest.mark.parametrize("steps", STEPS)
def test_dominance_and_rank_under_constraints_are_debs_rule_in_a_loop(steps):
    for seed in range(4):
        values, broken = points(seed, 60, 2, steps), violations(seed, 60)
        people = list(zip(values, broken, strict=True))
        expected = [[beats(one, other) for other in people] for one in people]
        given = fitness(values, broken)
        np.testing.assert_array_equal(pareto.dominates(given, given), np.array(expected))
        rank = np.asarray(rank_of(given))
        np.testing.assert_array_equal(rank, peeled(values, broken))
        assert rank[broken == 0].max() < rank[broken > 0].min()


def test_ranking_stops_once_enough_are_ranked():
    for seed in range(10):
        values = points(seed, 100, 2, 8)
        true = moocore.pareto_rank(values)
        split = np.sort(true)[49]
        rank = rank_of(fitness(values), enough=50)
        np.testing.assert_array_equal(rank, np.where(true <= split, true, 100))


def test_no_square_matrix_of_bytes_is_stored():
    """Peers hold N x N booleans or more; one bit per pair is enough."""
    size = 4096
    needs = rank_of.lower(fitness(np.zeros((size, 3)))).compile().memory_analysis()
    assert needs is not None and needs.temp_size_in_bytes < 2 * size**2 / 8


# --- crowding -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("size", "objectives"), [(3, 2), (40, 2), (60, 4)])
def test_crowding_equals_pymoos_of_distinct_vectors(size, objectives, steps):
    for seed in range(10):
        values = points(seed, size, objectives, steps)
        rank = moocore.pareto_rank(values).astype(np.int32)
        distance = crowding_of(jnp.asarray(values), jnp.asarray(rank))
        expected = crowding_by_pymoo(values.astype(np.float64), rank)
        np.testing.assert_allclose(distance, expected, rtol=2e-4, atol=1e-6)


def test_a_flat_objective_counts_nothing_and_gives_no_nan():
    """0/0 there is NaN in QDax and EvoX."""
    curve = points(0, 20, 1, None)
    values = np.hstack([curve, 1 - curve, np.full((20, 1), 0.3, np.float32)])
    front = jnp.zeros(20, jnp.int32)
    flat = np.asarray(crowding_of(jnp.asarray(values), front))
    curved = np.asarray(crowding_of(jnp.asarray(values[:, :2]), front))
    np.testing.assert_allclose(flat, curved * 2 / 3, rtol=1e-6)
    assert np.isinf(flat).sum() == 2


def test_the_widest_range_of_floats_does_not_overflow():
    values = np.array([[-LARGEST, LARGEST], [0, 0], [LARGEST, -LARGEST]], np.float32)
    distance = crowding_of(jnp.asarray(values), jnp.zeros(3, jnp.int32))
    np.testing.assert_array_equal(distance, [np.inf, 1, np.inf])


# --- guard ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_failed_individuals_come_after_all_others(bad):
    """pymoo ranks NaN as incomparable, so it stays on the first front."""
    values = points(0, 12, 2, None)
    broken = np.zeros(12, np.float32)
    values[3, 1], broken[7] = bad, bad  # one failed objective, one failed violation
    broken[5] = 1e30
    raw = fitness(values, broken)
    np.testing.assert_array_equal(np.flatnonzero(pareto.failed(raw)), [3, 7])
    clean = guarded(raw)
    assert all(np.isfinite(part).all() for part in clean)
    rank = np.asarray(rank_of(clean))
    assert rank[3] == rank[7] == rank.max() > rank[5] > np.delete(rank, [3, 5, 7]).max()


def test_failed_individuals_stretch_nobodys_distance():
    """In pymoo an infinite objective shrinks the distances of its whole front to nothing."""
    values = points(0, 12, 2, None)
    healthy = guarded(fitness(values))
    values = np.vstack([values, [[np.inf, 0]]])
    clean = guarded(fitness(values))
    alone, together = rank_of(healthy), rank_of(clean)
    np.testing.assert_array_equal(together[:12], alone)
    np.testing.assert_array_equal(
        crowding_of(clean.objectives, together)[:12], crowding_of(healthy.objectives, alone)
    )


def test_guard_leaves_sound_numbers_alone_and_knows_no_negative_violation():
    values = points(0, 6, 2, None)
    clean = pareto.guard(fitness(values, [0, -3, 2, -0.0, 1e-30, 5]))
    np.testing.assert_array_equal(clean.objectives, values)
    np.testing.assert_array_equal(clean.violation, np.array([0, 0, 2, 0, 1e-30, 5], np.float32))


@pytest.mark.parametrize(
    ("objectives", "violation", "message"),
    [
        (np.zeros((4, 2), np.float32), np.zeros(3, np.float32), "shape"),
        (np.zeros(4, np.float32), np.zeros(4, np.float32), "shape"),
        (np.zeros((4, 2), np.float32), np.zeros(4, bool), "dtypes"),
    ],
)
def test_guard_refuses_what_is_no_fitness(objectives, violation, message):
    with pytest.raises(InputError, match=message):
        pareto.guard(Fitness(objectives, violation))


# --- copies ---------------------------------------------------------------------------------


def copies_by_loop(genomes):
    seen, marks = set(), []
    for genome in genomes:
        marks.append(genome.tobytes() in seen)
        seen.add(genome.tobytes())
    return np.array(marks)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.float32])
@pytest.mark.parametrize(("size", "genes"), [(50, 1), (100, 160)])
def test_copies_are_those_that_a_loop_finds(dtype, size, genes):
    rng = np.random.default_rng(0)
    values = {np.float32: [0, 1, 1.5, 2], bool: [0, 1]}.get(dtype, [0, 1, 2])
    genomes = rng.choice(values, (size, genes)).astype(dtype)
    genomes[rng.integers(0, size, size // 3)] = genomes[0]
    np.testing.assert_array_equal(duplicates(jnp.asarray(genomes)), copies_by_loop(genomes))


def test_genomes_alike_but_for_order_or_one_gene_are_no_copies():
    """All 4,096 genomes of six genes of four values: a careless sum of genes would mix them up."""
    every = np.indices((4,) * 6, np.int32).reshape(6, -1).T
    np.testing.assert_array_equal(
        duplicates(jnp.asarray(np.concatenate([every, every[::-1]]))), np.arange(8192) >= 4096
    )


def test_copies_rank_behind_everyone_and_push_nobody_back():
    genomes = np.random.default_rng(0).integers(0, 3, (40, 3)).astype(np.int32)
    copy = copies_by_loop(genomes)
    values = (genomes @ np.array([[9, 1], [1, 9], [3, 3]], np.int32) % 11).astype(np.float32)
    rank, distance = map(np.asarray, assess(jnp.asarray(genomes), fitness(values), enough=40))
    assert copy.any() and (rank[copy] == 40).all()
    np.testing.assert_array_equal(rank[~copy], moocore.pareto_rank(values[~copy]))
    expected = crowding_by_pymoo(values[~copy], rank[~copy])
    np.testing.assert_allclose(distance[~copy], expected, rtol=1e-5)


# --- finished fronts, in NumPy ----------------------------------------------------------------


def shares(seed, size, objectives, steps):
    """In float64, from 0 to 1, both ends included where there are steps."""
    rng = np.random.default_rng(seed)
    if steps is None:
        return rng.random((size, objectives))
    return rng.integers(0, steps + 1, (size, objectives)) / steps


@pytest.mark.parametrize("steps", [None, 16, 3])
@pytest.mark.parametrize(("size", "objectives"), [(1, 2), (50, 1), (200, 3), (40, 4), (100_000, 3)])
def test_fronts_and_volumes_are_moocores(size, objectives, steps):
    """With every copy. The reference cuts through the points: some lie beyond it, or on it."""
    for seed in range(5 if size < 1000 else 1):
        values = shares(seed, size, objectives, steps or (100 if size > 1000 else None))
        expected = moocore.is_nondominated(values, keep_weakly=True)
        np.testing.assert_array_equal(non_dominated(values), expected)
        for reference in (np.full(objectives, 1.1), np.linspace(2 / 3, 1, objectives)):
            expected = moocore.hypervolume(values, ref=reference)
            if size < 1000:
                found = hypervolume(values, reference)
                assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_volumes_known_by_hand():
    assert hypervolume(np.array([[1.0, 2], [2, 1]]), np.array([3.0, 3])) == 3
    assert hypervolume(np.array([[1.0, 2], [2, 1], [1, 2]]), np.array([3.0, 3])) == 3
    assert hypervolume(np.array([[0, 0, 0, 0]]), np.array([1, 2, 3, 4])) == 24
    assert hypervolume(np.array([[-1.0], [0]]), np.array([2.0])) == 3
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0
    assert hypervolume(np.array([[1.0, 1], [np.inf, 0], [0, 3]]), np.array([3.0, 3])) == 4


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        ([[0, np.nan]], [1, 1], "NaN"),
        ([[0, 0]], [1, np.nan], "NaN"),
        ([[0, 0]], [1, np.inf], "infinite"),
        ([[0, -np.inf]], [1, 1], "infinite"),
        ([[0, 0]], [1, 1, 1], "2 objectives"),
    ],
)
def test_a_volume_that_does_not_exist_is_refused(values, reference, message):
    with pytest.raises(InputError, match=message):
        hypervolume(np.array(values, float), np.array(reference, float))
    if message == "NaN" and np.isnan(values).any():
        with pytest.raises(InputError, match="NaN"):
            non_dominated(np.array(values, float))
