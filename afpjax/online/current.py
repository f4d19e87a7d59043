"""How often a device's bits flip now, from canaries that fail on it.

A probe sends canaries through the network with all layers on one device, its weights loaded anew.
How many fail at which rate is known beforehand, under other draws. Canaries of one probe share its
weight faults, so their count is beta-binomial: its mean and its spread over draws, at each rate of
a grid, are those of the draws known beforehand. Shape legend: R rates, K draws, J probes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

#: Rates that are told apart: half as often or twice as often is another rate, finer is not.
GRID = (0.0, 0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
_KEEP = float(stats.chi2.ppf(0.99, 1))  # a known rate stays until the probes speak so much against
_LIMITS = float(stats.chi2.ppf(0.95, 1))


class Curve(NamedTuple):
    """How canaries fail at each rate: a beta distribution over draws, its two parameters."""

    rates: Float[np.ndarray, " R"]
    failing: Float[np.ndarray, " R"]
    holding: Float[np.ndarray, " R"]


class Estimate(NamedTuple):
    """The rate that explains what was seen best, and those that explain it well (95 %)."""

    rate: float
    interval: tuple[float, float]


def curve(rates: Sequence[float], failed: Bool[np.ndarray, "R K B"]) -> Curve:
    """The beta distributions with the mean and the variance over draws that were seen.

    Jeffreys' half failure and half success keep a share of 0 or 1 possible to be wrong.
    """
    _, draws, images = failed.shape
    mean = (failed.sum(axis=(1, 2)) + 0.5) / (draws * images + 1)
    between = failed.mean(axis=2).var(axis=1, ddof=1) if draws > 1 else np.zeros(len(mean))
    within = mean * (1 - mean)
    alike = np.clip((between / within - 1 / images) / (1 - 1 / images), 1e-3, 0.9)
    total = 1 / alike - 1
    return Curve(np.asarray(rates, np.float64), mean * total, (1 - mean) * total)


def log_likelihood(
    curve: Curve, failed: Int[np.ndarray, " J"], canaries: int
) -> Float[np.ndarray, " R"]:
    """Of every rate, given how many of the canaries of each probe failed."""
    counts = failed[:, None]
    each = stats.betabinom.logpmf(counts, canaries, curve.failing, curve.holding)
    return np.asarray(each).sum(axis=0)


def estimate(
    curve: Curve,
    failed: Int[np.ndarray, " J"],
    canaries: int,
    known: Sequence[float] = (),
) -> Estimate:
    """The likeliest rate of the curve; the first of `known` that the probes do not rule out.

    A known rate stays unless the likelihood ratio speaks against it at 1 %: rates that are not
    known to change do not wander with the noise of the probes.
    """
    likelihood = log_likelihood(curve, failed, canaries)
    lost = 2 * (likelihood.max() - likelihood)
    within = curve.rates[lost <= _LIMITS]
    rate = float(curve.rates[likelihood.argmax()])
    for each in known:
        place = np.flatnonzero(np.isclose(curve.rates, each))
        if place.size and lost[place[0]] <= _KEEP:
            rate = float(curve.rates[place[0]])
            break
    return Estimate(rate, (min(float(within.min()), rate), max(float(within.max()), rate)))
