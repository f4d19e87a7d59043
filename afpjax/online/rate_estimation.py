"""How often a device's bits flip now, from canaries that fail on it.

A probe sends canaries (images whose right answer is known) through the network with all layers on
one device, its weights loaded anew. How many fail at which rate is measured beforehand, under other
draws. Canaries of one probe share its weight faults, so their count is beta-binomial: its mean and
its spread over draws are taken from those draws, at each rate of a grid. Shape legend: R rates, K
draws, B images, J probes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

#: Rates that are told apart: half as often or twice as often is another rate, finer is not.
RATE_GRID = (0.0, 0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
# Thresholds of the likelihood-ratio statistic: 1 % to give a known rate up, 5 % for the interval.
_GIVE_UP = float(stats.chi2.ppf(0.99, 1))
_INTERVAL = float(stats.chi2.ppf(0.95, 1))


class FailureCurve(NamedTuple):
    """How canaries fail at each rate: the two parameters of a beta distribution over draws."""

    rates: Float[np.ndarray, " R"]
    alpha: Float[np.ndarray, " R"]  # weight of canaries that fail
    beta: Float[np.ndarray, " R"]  # weight of canaries that do not


class RateEstimate(NamedTuple):
    """The rate that explains what was seen best, and those that explain it well (95 %)."""

    rate: float
    interval: tuple[float, float]


def failure_curve(rates: Sequence[float], failed: Bool[np.ndarray, "R K B"]) -> FailureCurve:
    """The beta distributions with the mean and the variance over draws that were seen.

    Jeffreys' half failure and half success keep a share of 0 or 1 possible to be wrong.
    """
    _, draws, images = failed.shape
    mean = (failed.sum(axis=(1, 2)) + 0.5) / (draws * images + 1)
    between = failed.mean(axis=2).var(axis=1, ddof=1) if draws > 1 else np.zeros(len(mean))
    within = mean * (1 - mean)
    correlation = np.clip((between / within - 1 / images) / (1 - 1 / images), 1e-3, 0.9)
    total = 1 / correlation - 1
    return FailureCurve(np.asarray(rates, np.float64), mean * total, (1 - mean) * total)


def log_likelihood(
    curve: FailureCurve, failed: Int[np.ndarray, " J"], canaries: int
) -> Float[np.ndarray, " R"]:
    """Of every rate, given how many of the canaries of each probe failed."""
    of_probes = stats.betabinom.logpmf(failed[:, None], canaries, curve.alpha, curve.beta)
    return np.asarray(of_probes).sum(axis=0)


def estimate_rate(
    curve: FailureCurve,
    failed: Int[np.ndarray, " J"],
    canaries: int,
    known: Sequence[float] = (),
) -> RateEstimate:
    """The likeliest rate of the curve; the first of `known` that the probes do not rule out.

    A known rate stays unless the likelihood ratio speaks against it at 1 %: rates that are not
    known to change do not wander with the noise of the probes.
    """
    likelihood = log_likelihood(curve, failed, canaries)
    statistic = 2 * (likelihood.max() - likelihood)
    within = curve.rates[statistic <= _INTERVAL]
    rate = float(curve.rates[likelihood.argmax()])
    for known_rate in known:
        index = np.flatnonzero(np.isclose(curve.rates, known_rate))
        if index.size and statistic[index[0]] <= _GIVE_UP:
            rate = float(curve.rates[index[0]])
            break
    return RateEstimate(rate, (min(float(within.min()), rate), max(float(within.max()), rate)))
