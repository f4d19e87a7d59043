"""Intervals of proportions against scipy, enumeration, and exact sums of their coverage."""

import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.proportions import KINDS, interval

COUNTS = [(0, 10), (1, 10), (3, 10), (10, 10), (997, 1000), (1, 100_000), (400, 900)]


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_clopper_pearson_equals_scipy(confidence):
    hits, count = np.transpose(COUNTS)
    low, high = interval("clopper-pearson", hits, count, confidence=confidence)
    for k, (successes, trials) in enumerate(COUNTS):
        found = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
        np.testing.assert_allclose((low[k], high[k]), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy_but_for_the_ends_that_it_gets_wrong(confidence):
    """Scipy's, or the exact one-sided limit of level 0.9 alpha where that lies further out."""
    hits, count = np.transpose(COUNTS)
    low, high = interval("wilson", hits, count, confidence=confidence)
    tail = 0.9 * (1 - confidence)
    for k, (successes, trials) in enumerate(COUNTS):
        test = stats.binomtest(successes, trials)
        score = test.proportion_ci(confidence, method="wilson")
        exact = test.proportion_ci(1 - 2 * tail, method="exact")
        np.testing.assert_allclose(low[k], min(score.low, exact.low), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(high[k], max(score.high, exact.high), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size, count", [(12, 5), (40, 13), (40, 36), (300, 150)])
def test_finite_strata_are_inverted_by_enumeration(size, count):
    """Clopper-Pearson: the numbers of bad ones for which neither tail is below alpha / 2, and half
    a fault more, within what is certain."""
    hits = np.arange(count + 1)
    low, high = interval(
        "clopper-pearson", hits, np.full(count + 1, count), population=np.full(count + 1, size)
    )
    for k in range(count + 1):
        bad = np.arange(size + 1)
        tails = np.minimum(
            stats.hypergeom.cdf(k, size, bad, count), stats.hypergeom.sf(k - 1, size, bad, count)
        )
        likely = np.flatnonzero(tails > 0.025)
        expected = max(likely.min() - 0.5, k), min(likely.max() + 0.5, size - count + k)
        np.testing.assert_allclose((low[k], high[k]), np.asarray(expected) / size, atol=1e-12)


def least(kind: str, count: int) -> float:
    if kind == "clopper-pearson":
        return 0.95 - 1e-9
    return 0.93 if count >= 50 else 0.925


def coverage_of_finite(kind, size, count):
    hits, bad = np.arange(count + 1), np.arange(size + 1)
    chance = stats.hypergeom.pmf(hits[:, None], size, bad[None], count)
    low, high = interval(kind, hits, np.full(count + 1, count), population=np.full(count + 1, size))
    truth = bad[None] / size
    return (chance * ((low[:, None] <= truth + 1e-12) & (truth <= high[:, None] + 1e-12))).sum(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [30, 200, 600])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8, 0.97])
def test_finite_strata_are_covered_whatever_the_truth(kind, size, part):
    count = int(size * part)
    assert coverage_of_finite(kind, size, count).min() > least(kind, count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [20, 100, 385, 9604])
def test_endless_strata_are_covered_whatever_the_truth(kind, count):
    rates = np.exp(np.linspace(np.log(1e-3 / count), np.log(min(40 / count, 0.5)), 1_500))
    hits = np.arange(min(count, 150) + 1)
    low, high = interval(kind, hits, np.full(len(hits), count))
    inside = (low[:, None] <= rates) & (rates <= high[:, None])
    covered = (stats.binom.pmf(hits[:, None], count, rates[None]) * inside).sum(0)
    assert covered.min() > least(kind, count)
    expected = covered[rates * count > 0.2].mean()
    assert expected < (0.99 if kind == "clopper-pearson" else 0.976)


def mixtures():
    """Outcomes: `small` in a share of the faults, 1 in a few of `count` trials, 0 else."""
    for count in (100, 1_000, 9_604):
        for small, often, rare in [(0.02, 1.0, 2), (0.02, 1.0, 0), (0.1, 0.3, 3), (0.3, 0.02, 20)]:
            yield count, small, often, rare / count


@pytest.mark.parametrize("kind", KINDS)
def test_measured_variance_shortens_intervals_and_keeps_their_coverage(kind):
    rng, runs, shorter = np.random.default_rng(0), 2_000, []
    for count, small, often, rare in mixtures():
        ones = rng.binomial(count, rare, runs)
        smalls = rng.binomial(count - ones, often)
        hits, squares = small * smalls + ones, small**2 * smalls + ones
        truth = small * often * (1 - rare) + rare
        every = np.full(runs, count)
        low, high = interval(kind, hits, every, squares=squares)
        assert ((low <= truth) & (truth <= high)).mean() > 0.93, (count, small, often, rare)
        wide = interval(kind, hits, every)
        assert (wide[0] <= low + 1e-12).all() and (high <= wide[1] + 1e-12).all()
        shorter.append((high - low).mean() / (wide[1] - wide[0]).mean())
    assert min(shorter) < 0.3 and max(shorter) > 0.99


def test_squares_of_0_or_1_outcomes_change_nothing():
    hits, count, size = np.asarray([0, 3, 50]), np.asarray([50, 50, 50]), np.asarray([60, 200, 900])
    plain = interval("wilson", hits, count, population=size)
    np.testing.assert_array_equal(
        interval("wilson", hits, count, population=size, squares=hits), plain
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_interval_holds_its_mean_and_what_is_certain(kind):
    rng = np.random.default_rng(2)
    size = np.asarray(10 ** rng.uniform(0, 14, 400), np.uint64) + np.uint64(1)
    count = np.minimum(rng.integers(1, 3_000, 400), size.astype(np.int64))
    hits = count * rng.choice([0, 1e-3, 0.3, 1], 400) * rng.random(400)
    squares = hits * rng.random(400)
    for given in (None, squares):
        low, high = interval(kind, hits, count, population=size, squares=given)
        mean, whole = hits / count, count == size
        assert (low >= 0).all() and (high <= 1).all()
        assert (low <= mean).all() and (mean <= high).all()
        assert (low >= hits / size - 1e-12).all()
        assert (high <= 1 - (count - hits) / size + 1e-12).all()
        assert whole.any() and (low == mean)[whole].all() and (high == mean)[whole].all()
        assert (low[~whole] < high[~whole]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_trials_say_nothing_and_shapes_are_kept(kind):
    low, high = interval(kind, np.zeros((2, 3)), np.zeros((2, 3), int))
    assert (low == 0).all() and (high == 1).all() and low.shape == (2, 3)
    low, high = interval(kind, np.asarray(3), np.asarray(10), population=np.asarray(2**62))
    assert low.shape == () and 0 < low < 0.3 < high < 1


@pytest.mark.parametrize("kind", KINDS)
def test_fractions_lie_between_whole_numbers(kind):
    """One more outcome never moves an end the other way."""
    hits = np.linspace(0, 20, 401)
    for size in (25, 2**40):
        ends = interval(kind, hits, np.full(401, 20), population=np.full(401, size))
        assert all((np.diff(end) >= -1e-9).all() for end in ends)


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(kind="wald"), "'wald' is none of wilson, clopper-pearson"),
        (dict(confidence=1.0), r"confidence: 1.0 is outside \(0, 1\)"),
        (dict(successes=[1, 6]), "more successes than trials"),
        (dict(successes=[1, -1]), "fewer than none"),
        (dict(successes=[1, float("nan")]), "more successes than trials"),
        (dict(population=[5, 4]), "5 trials of stratum 1, which has but 4 faults"),
    ],
)
def test_what_is_no_proportion(given, message):
    asked = dict(kind="wilson", successes=[1, 2], trials=[5, 5], population=[9, 9], confidence=0.95)
    asked |= given
    with pytest.raises(InputError, match=message):
        interval(
            str(asked["kind"]),
            np.asarray(asked["successes"]),
            np.asarray(asked["trials"]),
            population=np.asarray(asked["population"]),
            confidence=float(asked["confidence"]),  # pyright: ignore
        )
