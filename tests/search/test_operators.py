"""Variation and selection: what may change, how often, and by what distribution.

Every statistical test is a fixed computation (its seeds are written down), so it cannot flicker;
bands are wide enough that a sound operator passes with nearly any seed.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pymoo.operators.crossover.sbx import cross_sbx
from pymoo.operators.mutation.pm import mut_pm
from scipy import stats

from afpjax.search import operators

DRAWS = 20_000
CARDINALITY = np.array([1, 2, 3, 5, 1, 8], np.int32)
LEAST_LIKELY = 1e-5  # of a p-value

tournaments = jax.jit(jax.vmap(operators.tournament, in_axes=(0, None)))


def many(operator, *arguments, draws=DRAWS, seed=0):
    """The operator's results under many keys, by NumPy."""
    keys = jax.random.split(jax.random.key(seed), draws)
    result = jax.jit(jax.vmap(lambda key: operator(key, *arguments)))(keys)
    return jax.tree.map(np.asarray, result)


def assert_uniform(values, choices):
    counts = np.array([(values == choice).sum() for choice in choices])
    assert counts.sum() == len(values)
    assert len(choices) == 1 or stats.chisquare(counts).pvalue > LEAST_LIKELY, counts


# --- categories -----------------------------------------------------------------------------


def test_random_categories_are_uniform():
    genomes = many(operators.random_categories, jnp.asarray(CARDINALITY))
    assert genomes.dtype == np.int32
    for gene, choices in enumerate(CARDINALITY):
        assert_uniform(genomes[:, gene], np.arange(choices))


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_reset_gives_every_other_value_alike_and_never_the_old_one(place):
    genome = np.floor(place * (CARDINALITY - 1)).astype(np.int32)
    mutate = partial(operators.reset_mutation, cardinality=jnp.asarray(CARDINALITY))
    mutants = many(mutate, jnp.asarray(genome), 1.0)
    assert mutants.dtype == np.int32
    for gene, choices in enumerate(CARDINALITY):
        others = np.setdiff1d(np.arange(choices), genome[gene])
        assert_uniform(mutants[:, gene], others if choices > 1 else [0])


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_reset_strikes_each_gene_at_its_rate_and_by_itself(rate):
    mutate = partial(operators.reset_mutation, cardinality=jnp.full(8, 3, jnp.int32))
    changed = many(mutate, jnp.ones(8, jnp.int32), rate) != 1
    for count in changed.sum(axis=0):
        assert stats.binomtest(int(count), DRAWS, rate).pvalue > LEAST_LIKELY
    if rate:
        together = np.corrcoef(changed.T.astype(float))
        assert np.abs(together - np.eye(8)).max() < 5 / np.sqrt(DRAWS)


# --- two-point crossover --------------------------------------------------------------------


def crossed(genes, rate=1.0, draws=DRAWS):
    """For pairs without a common gene: which genes of the first child are the second parent's."""
    first, second = jnp.zeros(genes, jnp.int32), jnp.ones(genes, jnp.int32)
    one, other = many(operators.two_point_crossover, first, second, rate, draws=draws)
    np.testing.assert_array_equal(one + other, 1)  # nothing is lost between the two children
    return one == 1


@pytest.mark.parametrize("genes", [1, 6, 40])
def test_what_crosses_over_is_one_segment_and_its_cuts_are_uniform(genes):
    swapped = crossed(genes)
    ends = np.diff(np.pad(swapped.astype(int), [(0, 0), (1, 1)]), axis=1)
    assert (ends == 1).sum(axis=1).tolist() == [1] * DRAWS
    if genes == 6:
        start, length = swapped.argmax(axis=1), swapped.sum(axis=1)
        pairs = [(a, b) for a in range(genes) for b in range(a + 1, genes + 1)]
        counts = [((start == a) & (start + length == b)).sum() for a, b in pairs]
        assert sum(counts) == DRAWS and stats.chisquare(counts).pvalue > LEAST_LIKELY


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_crossover_happens_at_its_rate(rate):
    happened = crossed(5, rate).any(axis=1).sum()
    assert stats.binomtest(int(happened), DRAWS, rate).pvalue > LEAST_LIKELY


# --- tournament -----------------------------------------------------------------------------


def duels(size, criteria, draws=2000):
    criteria = [jnp.asarray(column, jnp.float32) for column in criteria]
    return np.asarray(tournaments(jax.random.split(jax.random.key(0), draws), criteria))


@pytest.mark.parametrize("size", [2, 3, 10])
def test_everybody_fights_exactly_twice(size):
    """Who beats everyone wins twice, who loses to everyone never, and so for every place.

    With an odd number one individual may meet itself, which is a fight too.
    """
    strength = np.random.default_rng(0).permutation(size)
    wins = np.stack([np.bincount(row, minlength=size) for row in duels(size, [strength])])
    assert (wins.sum(axis=1) == size).all() and wins.max() <= 2
    assert wins[:, strength == 0].min() == 2 - size % 2
    assert wins[:, strength == size - 1].max() == size % 2


def test_fighters_are_paired_at_random():
    """The second best of ten wins both fights unless it meets the best: twice with chance 1/9."""
    wins = np.stack([np.bincount(row, minlength=10) for row in duels(10, [np.arange(10)])])
    lost = 2 * len(wins) - wins[:, 1].sum()
    assert stats.binomtest(int(lost), 2 * len(wins), 1 / 9).pvalue > LEAST_LIKELY


def test_later_criteria_decide_only_between_equals():
    """Pairs of two: by violation, where equal by rank, where equal by crowding."""
    for columns, winner in (
        ([[0, 1], [5, 0], [0, -9]], 0),
        ([[1, 0], [0, 5], [-9, 0]], 1),
        ([[2, 2], [1, 0], [-9, 0]], 1),
        ([[2, 2], [3, 3], [-1, -2]], 1),
        ([[2, 2], [3, 3], [-np.inf, -2]], 0),
    ):
        assert (duels(2, columns, draws=50) == winner).all()


def test_chance_decides_between_equals():
    """Always the first of two would favour low indices, that is: parents over offspring."""
    won = (duels(2, [[1, 1]], draws=5000) == 0).sum()
    assert stats.binomtest(int(won), 10_000, 0.5).pvalue > LEAST_LIKELY


# --- real genes -----------------------------------------------------------------------------

LOWER = np.array([0, -1, 0, 2, 0], np.float32)
UPPER = np.array([1, 1, 10, 3, 1], np.float32)
BOUNDS = {"lower": jnp.asarray(LOWER), "upper": jnp.asarray(UPPER)}
FIRST = np.array([0.2, 0.9, 4.9, 2.0, 0.98], np.float32)
SECOND = np.array([0.7, -0.5, 5.1, 2.9, 0.99], np.float32)


def assert_same_distribution(ours, theirs):
    for gene in range(ours.shape[1]):
        assert stats.kstest(ours[:, gene], theirs[:, gene]).pvalue > LEAST_LIKELY, gene


def sbx(rate, **options):
    crossover = partial(operators.simulated_binary_crossover, **BOUNDS, **options)
    return many(crossover, jnp.asarray(FIRST), jnp.asarray(SECOND), rate)


def test_binary_crossover_has_pymoos_distribution():
    parents = np.stack([np.tile(FIRST, (DRAWS, 1)), np.tile(SECOND, (DRAWS, 1))]).astype(float)
    column = np.ones((DRAWS, 1))
    theirs = cross_sbx(parents, LOWER, UPPER, 15 * column, 0.5, 0.5 * column, seed=1)
    for ours, expected in zip(sbx(1.0), theirs, strict=True):
        assert ((ours >= LOWER) & (ours <= UPPER)).all()
        assert_same_distribution(ours, expected)


def test_binary_crossover_spreads_as_its_paper_says_far_from_bounds():
    """Deb and Agrawal 1995: density (n + 1)/2 b^n up to b = 1 and (n + 1)/2 b^-(n + 2) beyond."""
    genes = 4
    bounds = {"lower": jnp.full(genes, -1e4), "upper": jnp.full(genes, 1e4)}
    crossover = partial(
        operators.simulated_binary_crossover, **bounds, spread_index=2.0, gene_rate=1.0
    )
    one, other = many(crossover, jnp.full(genes, -0.5), jnp.full(genes, 0.5), 1.0)
    np.testing.assert_allclose(one + other, 0, atol=1e-4)  # the parents' mean is kept

    def distribution(spread):
        return np.where(spread <= 1, 0.5 * spread**3, 1 - 0.5 * np.maximum(spread, 1) ** -3)

    for gene in range(genes):
        spread = np.abs(one[:, gene] - other[:, gene])
        assert stats.kstest(spread, distribution).pvalue > LEAST_LIKELY


def test_binary_crossover_of_equal_parents_and_without_luck_changes_nothing():
    crossover = partial(operators.simulated_binary_crossover, **BOUNDS)
    for first, second, rate in ((FIRST, FIRST, 1.0), (FIRST, SECOND, 0.0)):
        one, other = many(crossover, jnp.asarray(first), jnp.asarray(second), rate, draws=100)
        assert (one == first).all() and (other == second).all()


def test_polynomial_mutation_has_pymoos_distribution():
    mutate = partial(operators.polynomial_mutation, **BOUNDS, individual_rate=1.0)
    ours = many(mutate, jnp.asarray(FIRST), 1.0)
    theirs = mut_pm(
        np.tile(FIRST, (DRAWS, 1)).astype(float),
        LOWER.astype(float),
        UPPER.astype(float),
        np.full(DRAWS, 20.0),
        np.ones(DRAWS),
        at_least_once=False,
        seed=1,
    )
    assert ((ours >= LOWER) & (ours <= UPPER)).all()
    assert_same_distribution(ours, theirs)


@pytest.mark.parametrize("operator", ["crossover", "mutation"])
def test_operators_of_real_genes_happen_at_their_rates(operator):
    """One coin for the individual, then one for each gene."""
    if operator == "crossover":
        made, own, gene = sbx(0.6, gene_rate=0.5)[0], 0.6, 0.5
    else:
        mutate = partial(operators.polynomial_mutation, **BOUNDS, individual_rate=0.8)
        made, own, gene = many(mutate, jnp.asarray(FIRST), 0.5), 0.8, 0.5
    changed = (made != FIRST)[:, :3]
    for count in changed.sum(axis=0):
        assert stats.binomtest(int(count), DRAWS, own * gene).pvalue > LEAST_LIKELY
    pairs = int((changed[:, 0] & changed[:, 1]).sum())
    assert stats.binomtest(pairs, DRAWS, own * gene**2).pvalue > LEAST_LIKELY
