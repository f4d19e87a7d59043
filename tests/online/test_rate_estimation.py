"""Estimates of current rates, beside counts that are simulated from known ones."""

import numpy as np
import pytest
from scipy import stats

from afpjax.online.rate_estimation import (
    RATE_GRID,
    FailureCurve,
    estimate_rate,
    failure_curve,
    log_likelihood,
)

CANARIES, PROBES = 8, 8
#: Share that fails at each rate, rising to nine in ten, and how alike a draw's canaries are.
MEANS = 0.9 * (1 - np.exp(-8 * np.array(RATE_GRID))) + 0.002
MADE = FailureCurve(np.array(RATE_GRID), MEANS * 15, (1 - MEANS) * 15)


def drawn(rng, rate, runs, probes=PROBES):
    """Counts of failing canaries, [runs, probes], at a rate of the grid."""
    index = RATE_GRID.index(rate)
    chances = rng.beta(MADE.alpha[index], MADE.beta[index], (runs, probes))
    return rng.binomial(CANARIES, chances)


def failed_images(rng, means, draws, images, total):
    """Right or wrong [R, K, B] with these means; draws differ as a beta distribution of `total`."""
    means = np.asarray(means)[:, None]
    chances = rng.beta(means * total, (1 - means) * total, (len(means), draws))
    return rng.random((len(means), draws, images)) < chances[..., None]


def test_a_curve_has_the_means_and_the_spread_of_what_was_seen():
    """Many draws: the beta distribution's own parameters come out, within a tenth of their sum."""
    means = [0.05, 0.3, 0.7]
    made = failure_curve(
        (0.0, 0.1, 0.2), failed_images(np.random.default_rng(1), means, 2000, 64, 15.0)
    )
    total = made.alpha + made.beta
    np.testing.assert_allclose(made.alpha / total, means, atol=0.01)
    np.testing.assert_allclose(total, 15.0, rtol=0.15)


def test_what_never_failed_may_still_fail():
    none = failure_curve((0.0,), np.zeros((1, 10, 20), bool))
    every = failure_curve((0.0,), np.ones((1, 10, 20), bool))
    for made in (none, every):
        assert np.isfinite(log_likelihood(made, np.array([0, 8, 3]), CANARIES)).all()
    assert none.alpha[0] < 0.1 * none.beta[0] and every.beta[0] < 0.1 * every.alpha[0]


def test_the_likelihood_is_the_beta_binomial_one():
    """By integrating the binomial over the beta distribution, one probe after the other."""
    counts = np.array([0, 3, 8])
    found = log_likelihood(MADE, counts, CANARIES)
    grid = np.linspace(0.0005, 0.9995, 4000)
    for index in (3, 7, 10):
        density = stats.beta.pdf(grid, MADE.alpha[index], MADE.beta[index])
        each = [np.trapezoid(density * stats.binom.pmf(k, CANARIES, grid), grid) for k in counts]
        assert found[index] == pytest.approx(np.log(each).sum(), rel=2e-3)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.3])
def test_rates_are_recovered(rate):
    """Of 400 runs the interval holds the true rate in 19 of 20, but for chance; the estimate is
    seldom more than two steps of the grid away."""
    rng = np.random.default_rng(RATE_GRID.index(rate))
    inside, near = [], []
    for counts in drawn(rng, rate, 400):
        made = estimate_rate(MADE, counts, CANARIES)
        low, high = made.interval
        assert low <= made.rate <= high and made.rate in RATE_GRID
        inside.append(low <= rate <= high)
        near.append(abs(RATE_GRID.index(made.rate) - RATE_GRID.index(rate)) <= 2)
    assert np.mean(inside) > 0.92
    assert np.mean(near) > 0.9


@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_a_known_rate_stays_while_the_probes_allow_it(rate):
    """At 1 %: of 1,000 runs some 10 give it up; 30 would be six deviations more."""
    rng = np.random.default_rng(8)
    left = [
        estimate_rate(MADE, counts, CANARIES, [rate]).rate != rate
        for counts in drawn(rng, rate, 1000)
    ]
    assert sum(left) <= 30


def test_a_known_rate_is_given_up_once_it_has_changed():
    rng = np.random.default_rng(9)
    found = [
        estimate_rate(MADE, counts, CANARIES, [0.0, 0.02]).rate for counts in drawn(rng, 0.3, 200)
    ]
    assert not {0.0, 0.02} & set(found)


def test_the_first_known_rate_that_is_allowed_is_taken():
    counts = np.array([1, 2, 0, 1])
    likely = estimate_rate(MADE, counts, CANARIES).rate
    lower, higher = RATE_GRID[RATE_GRID.index(likely) - 1], RATE_GRID[RATE_GRID.index(likely) + 1]
    assert estimate_rate(MADE, counts, CANARIES, [lower, higher]).rate == lower
    assert estimate_rate(MADE, counts, CANARIES, [higher, lower]).rate == higher
    # A rate that the curve does not have cannot be taken.
    assert estimate_rate(MADE, counts, CANARIES, [0.123]).rate == likely
    assert estimate_rate(MADE, counts, CANARIES, [0.5, lower]).rate == lower
