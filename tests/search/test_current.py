"""Estimates of current rates, beside counts that are simulated from known ones."""

import numpy as np
import pytest
from scipy import stats

from afpjax.online.current import GRID, Curve, curve, estimate, log_likelihood

CANARIES, PROBES = 8, 8
#: Share that fails at each rate, rising to nine in ten, and how alike a draw's canaries are.
MEANS = 0.9 * (1 - np.exp(-8 * np.array(GRID))) + 0.002
MADE = Curve(np.array(GRID), MEANS * 15, (1 - MEANS) * 15)


def drawn(rng, rate, runs, probes=PROBES):
    """Counts of failing canaries, [runs, probes], at a rate of the grid."""
    place = GRID.index(rate)
    chances = rng.beta(MADE.failing[place], MADE.holding[place], (runs, probes))
    return rng.binomial(CANARIES, chances)


def failed_images(rng, means, draws, images, total):
    """Right or wrong [R, K, B] with these means; draws differ as a beta distribution of `total`."""
    means = np.asarray(means)[:, None]
    chances = rng.beta(means * total, (1 - means) * total, (len(means), draws))
    return rng.random((len(means), draws, images)) < chances[..., None]


def test_a_curve_has_the_means_and_the_spread_of_what_was_seen():
    """Many draws: the beta distribution's own parameters come out, within a tenth of their sum."""
    means = [0.05, 0.3, 0.7]
    made = curve((0.0, 0.1, 0.2), failed_images(np.random.default_rng(1), means, 2000, 64, 15.0))
    total = made.failing + made.holding
    np.testing.assert_allclose(made.failing / total, means, atol=0.01)
    np.testing.assert_allclose(total, 15.0, rtol=0.15)


def test_what_never_failed_may_still_fail():
    none = curve((0.0,), np.zeros((1, 10, 20), bool))
    every = curve((0.0,), np.ones((1, 10, 20), bool))
    for made in (none, every):
        assert np.isfinite(log_likelihood(made, np.array([0, 8, 3]), CANARIES)).all()
    assert none.failing[0] < 0.1 * none.holding[0] and every.holding[0] < 0.1 * every.failing[0]


def test_a_single_draw_is_no_spread():
    made = curve((0.1,), np.ones((1, 1, 20), bool))
    assert made.failing[0] > 0 < made.holding[0]


def test_the_likelihood_is_the_beta_binomial_one():
    """By integrating the binomial over the beta distribution, one probe after the other."""
    counts = np.array([0, 3, 8])
    found = log_likelihood(MADE, counts, CANARIES)
    grid = np.linspace(0.0005, 0.9995, 4000)
    for place in (3, 7, 10):
        density = stats.beta.pdf(grid, MADE.failing[place], MADE.holding[place])
        each = [np.trapezoid(density * stats.binom.pmf(k, CANARIES, grid), grid) for k in counts]
        assert found[place] == pytest.approx(np.log(each).sum(), rel=2e-3)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.3])
def test_rates_are_recovered(rate):
    """Of 400 runs the interval holds the true rate in 19 of 20, but for chance; the estimate is
    seldom more than two steps of the grid away."""
    rng = np.random.default_rng(GRID.index(rate))
    inside, near = [], []
    for counts in drawn(rng, rate, 400):
        made = estimate(MADE, counts, CANARIES)
        low, high = made.interval
        assert low <= made.rate <= high and made.rate in GRID
        inside.append(low <= rate <= high)
        near.append(abs(GRID.index(made.rate) - GRID.index(rate)) <= 2)
    assert np.mean(inside) > 0.92
    assert np.mean(near) > 0.9


def test_more_probes_tell_more():
    rng = np.random.default_rng(7)
    widths = [
        np.mean(
            [
                np.diff(estimate(MADE, counts, CANARIES).interval)
                for counts in drawn(rng, 0.1, 100, n)
            ]
        )
        for n in (4, 64)
    ]
    assert widths[1] < 0.5 * widths[0]


@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_a_known_rate_stays_while_the_probes_allow_it(rate):
    """At 1 %: of 1,000 runs some 10 give it up; 30 would be six deviations more."""
    rng = np.random.default_rng(8)
    left = [
        estimate(MADE, counts, CANARIES, [rate]).rate != rate for counts in drawn(rng, rate, 1000)
    ]
    assert sum(left) <= 30


def test_a_known_rate_is_given_up_once_it_has_changed():
    rng = np.random.default_rng(9)
    found = [estimate(MADE, counts, CANARIES, [0.0, 0.02]).rate for counts in drawn(rng, 0.3, 200)]
    assert not {0.0, 0.02} & set(found)


def test_the_first_known_rate_that_is_allowed_is_taken():
    counts = np.array([1, 2, 0, 1])
    likely = estimate(MADE, counts, CANARIES).rate
    lower, higher = GRID[GRID.index(likely) - 1], GRID[GRID.index(likely) + 1]
    assert estimate(MADE, counts, CANARIES, [lower, higher]).rate == lower
    assert estimate(MADE, counts, CANARIES, [higher, lower]).rate == higher
    # A rate that the curve does not have cannot be taken.
    assert estimate(MADE, counts, CANARIES, [0.123]).rate == likely
    assert estimate(MADE, counts, CANARIES, [0.5, lower]).rate == lower
