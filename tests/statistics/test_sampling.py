"""Sample sizes against the literature's, allocations against enumeration and their own promise."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.sampling import apportion, deviation, equal, neyman, sample_size

RESNET18 = 178_600_000


@pytest.mark.parametrize(
    "population, margin, confidence, size",
    [
        (RESNET18, 0.05, 0.95, 385),
        (RESNET18, 0.01, 0.95, 9_604),
        (RESNET18, 0.01, 0.99, 16_586),
        (27_648, 0.05, 0.95, 379),
        (27_648, 0.01, 0.95, 7_128),
        (27_648, 0.01, 0.99, 10_368),
        (27_648, 0.001, 0.99, 27_195),
    ],
)
def test_sizes_are_leveugles(population, margin, confidence, size):
    got = sample_size(np.asarray([population]), margin, confidence)
    assert abs(got[0] - size) <= 1  # published figures are rounded to the nearest


def test_sizes_follow_the_formula_for_every_stratum_and_proportion():
    population, p = np.asarray([1, 2, 10, 1_000, 10**6]), np.asarray([0.5, 0.1, 0.01, 0.3, 0.001])
    t = stats.norm.ppf(0.975)
    formula = population / (1 + 0.02**2 * (population - 1) / (t**2 * p * (1 - p)))
    np.testing.assert_array_equal(sample_size(population, 0.02, p=p), np.ceil(formula - 1e-9))


def test_huge_strata_do_not_overflow():
    for size in (2**53 + 1, 2**62, 2**64 - 1):
        got = sample_size(np.asarray([size], np.uint64), 0.01)
        np.testing.assert_array_equal(got, [9_604])
    tiny = sample_size(np.asarray([2**40 + 1], np.uint64), 1e-9)
    assert 0 < tiny[0] <= 2**40 + 1 and tiny.dtype == np.int64


@pytest.mark.parametrize("population", [1, 2, 3, 50])
def test_never_more_than_there_are_and_at_least_one(population):
    for margin in (1e-6, 0.3, 0.999):
        assert 1 <= sample_size(np.asarray([population]), margin)[0] <= population


def test_neymans_shares_are_the_best_there_are():
    """Of all ways to share 24 trials out among 3 strata, none has a smaller variance."""
    population, trials, hits = map(np.asarray, ([60, 25, 40], [3, 3, 3], [0, 1, 2]))
    spread = deviation(trials, hits)

    def variance(given):
        """With replacement, as Neyman has it."""
        return float((population**2 * spread**2 / np.asarray(given, np.float64)).sum())

    best = min(variance(g) for g in product(range(3, 19), repeat=3) if sum(g) == 24)
    got = neyman(24, population, trials, hits)
    assert got.sum() == 24 and variance(got) < best * 1.01


def test_a_pilot_that_saw_nothing_still_gets_some():
    got = neyman(1_000, np.full(3, 10**6), np.full(3, 20), np.asarray([0, 10, 20]))
    assert got.sum() == 1_000 and got[1] > 500 and abs(got[0] - got[2]) <= 1 and got[0] > 50
    hits, squares = np.asarray([25, 25]), np.asarray([12.5, 25])
    fractional = neyman(1_000, np.full(2, 10**6), np.full(2, 50), hits, squares=squares)
    assert fractional[1] > fractional[0], "outcomes of one half vary less than 0 or 1"


@pytest.mark.parametrize("seed", range(30))
def test_allocations_add_up_within_their_bounds(seed):
    rng = np.random.default_rng(seed)
    strata = int(rng.integers(1, 30))
    population = np.asarray(10.0 ** rng.uniform(0, 12, strata), np.int64) + 1
    pilot = np.minimum(rng.integers(1, 50, strata), population)
    total = int(rng.integers(pilot.sum(), min(population.sum(), 10**7) + 1))
    hits = np.floor(pilot * rng.random(strata))
    for got in (
        neyman(total, population, pilot, hits),
        equal(total, population, at_least=pilot),
    ):
        assert got.sum() == total and (got >= pilot).all() and (got <= population).all()
    everything = neyman(int(population.sum()), population, pilot, hits)
    np.testing.assert_array_equal(everything, population)


def test_shares_are_equal_where_nothing_binds():
    np.testing.assert_array_equal(equal(10, np.asarray([100, 100, 100])), [4, 3, 3])
    np.testing.assert_array_equal(equal(110, np.asarray([10, 100, 100])), [10, 50, 50])
    np.testing.assert_array_equal(apportion(7, np.zeros(2), 1, np.full(2, 5)), [4, 3])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda n: sample_size(n, 0.0), r"margin: 0\.0 is outside \(0, 1\)"),
        (lambda n: sample_size(n, float("nan")), r"margin: nan is outside \(0, 1\)"),
        (lambda n: sample_size(n, 0.1, 1.0), r"confidence: 1\.0 is outside \(0, 1\)"),
        (lambda n: sample_size(n * [1, 0], 0.1), "stratum 1: its population is 0"),
        (lambda n: equal(3, n * [1, 0]), "stratum 1: its population is 0"),
        (lambda n: sample_size(n, 0.1, p=np.asarray([0.5, 0.0])), r"p of 0.0 to 0.5"),
        (lambda n: neyman(3, n, np.asarray([2, 2]), np.zeros(2)), "3 trials .*; .* have 4"),
        (lambda n: equal(19, n), "there are 18 faults"),
    ],
)
def test_what_cannot_be_is_refused(asked, message):
    """Of two strata of nine faults each."""
    with pytest.raises(InputError, match=message):
        asked(np.asarray([9, 9]))
