"""What strata say together: a layer's or the network's estimate, with its interval.

T = Σ W_h · mean_h with W_h = N_h / N is unbiased whatever the allocation (Cochran, Sampling
Techniques, 1977, chapter 5). Its interval is that of a proportion with the number of trials that
would give the same variance. Two things go wrong with the plain recipe, and are mended here. A
stratum whose outcomes are all alike has no variance to show: its rate is shrunk towards that of all
strata together. And one rarely sampled stratum can hide more than a symmetric interval around T
allows: one more outcome in it, of weight W_h / n_h, is added to T and to its spread, as Fay and
Feuer (Statistics in Medicine 16, 1997) do for standardised rates.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Num
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.proportions import CONFIDENCE, beta_limits, check_kind, score_limits
from afpjax.statistics.sampling import check_populations


class Estimate(NamedTuple):
    """A mean and its interval for each of G groups of strata, float64; low <= mean <= high."""

    mean: Float[np.ndarray, "G"]
    low: Float[np.ndarray, "G"]
    high: Float[np.ndarray, "G"]


class _Sums(NamedTuple):
    """What an interval needs of the strata of each group."""

    mean: Float[np.ndarray, "G"]
    variance: Float[np.ndarray, "G"]  # of the mean, as measured
    near: Float[np.ndarray, "G"]  # the mean with the strata's rates shrunk to the group's
    shrunk: Float[np.ndarray, "G"]  # the variance with these
    hidden: Float[np.ndarray, "G"]  # the most that one more success adds to the mean
    spare: Float[np.ndarray, "G"]  # the most that one more failure takes from it


def stratified(
    kind: str,
    successes: Num[Any, "H"],
    trials: Integer[Any, "H"],
    population: Integer[Any, "H"],
    *,
    groups: Integer[Any, "H"] | None = None,
    squares: Num[Any, "H"] | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean over all faults of every group of strata; without `groups` all strata are one group.

    `successes` and `squares`: sums of the outcomes y in [0, 1], and of y² (without them y counts
    as 0 or 1). `groups[h]` in 0 … G-1 is the group of stratum h. A group with a stratum of which
    nothing was drawn has no estimate: `InputError`, as for empty strata.
    """
    check_kind(kind, confidence)
    check_populations(population)
    hits, count = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    size = np.asarray(population).astype(np.float64)
    if (count < 1).any():
        raise InputError(f"stratum {int(np.argmin(count))}: no trial yet, so no estimate of it")
    if (np.asarray(trials) > np.asarray(population)).any():
        raise InputError("strata: more trials than there are faults")
    member = np.zeros(len(hits), np.int64) if groups is None else np.asarray(groups)
    spread = None if squares is None else np.asarray(squares, np.float64)
    sums = _sums(hits, count, size, member, spread)
    low, high = _ends(kind, sums, 1 - confidence)
    done = sums.variance + sums.hidden + sums.spare <= 0
    low, high = np.where(done, sums.mean, low), np.where(done, sums.mean, high)
    return Estimate(sums.mean, np.clip(low, 0, sums.mean), np.clip(high, sums.mean, 1))


def _sums(
    hits: np.ndarray,
    count: np.ndarray,
    size: np.ndarray,
    member: np.ndarray,
    squares: np.ndarray | None,
) -> _Sums:
    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(member, weights=values)

    def most(values: np.ndarray) -> np.ndarray:
        found = np.zeros(member.max() + 1)
        np.maximum.at(found, member, values)
        return found

    weight = size / total(size)[member]
    rate = np.minimum(hits / count, 1.0)
    pooled = ((total(hits) + 0.5) / (total(count) + 1))[member]
    rest = 1 - count / size  # the part of a stratum that is still unknown
    near = np.where(rest > 0, (hits + pooled) / (count + 1), rate)
    scale = weight**2 / count * rest
    one = weight / count * np.sqrt(rest)
    measured = rate * (1 - rate)
    if squares is not None:
        within = np.maximum(squares / count - rate**2, 0.0)
        measured = np.minimum(measured, within)
        shrunk = np.minimum(near * (1 - near), (within * count + pooled) / (count + 1))
    else:
        shrunk = near * (1 - near)
    return _Sums(
        np.minimum(total(weight * rate), 1.0),
        total(scale * measured),
        np.minimum(total(weight * near), 1.0),
        total(scale * shrunk),
        most(one * (1 - rate)),
        most(one * rate),
    )


def _ends(kind: str, sums: _Sums, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The wider, at each end, of the effective sample's interval and Fay and Feuer's."""
    quantile = float(stats.norm.isf(alpha / 2))
    mean = sums.mean
    count = sums.near * (1 - sums.near) / np.maximum(sums.shrunk, 1e-300)
    count = np.maximum(count, 1e-9)
    if kind == "wilson":
        low, high = score_limits(mean, count, quantile)
    else:
        low, high = beta_limits(mean * count, count, alpha / 2)
    up = sums.hidden + quantile * np.sqrt(sums.variance + sums.hidden**2)
    down = sums.spare + quantile * np.sqrt(sums.variance + sums.spare**2)
    return np.minimum(low, mean - down), np.maximum(high, mean + up)
