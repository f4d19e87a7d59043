"""Intervals of a proportion: of every stratum of a campaign, and of strata together.

A trial is one fault drawn without replacement from a stratum of N; its outcome y in [0, 1] is the
share of a fixed set of images whose class changed. What is estimated is the mean of y over all N.
The sum of y is treated as a count of successes: of all variables in [0, 1] with a mean p, 0 or 1
has the largest variance, p (1 - p), so this errs on the safe side. Where faults rarely move more
than a few images the sums of squares shorten the interval (`effective_ratio`).

Two kinds: "clopper-pearson" inverts the binomial's tails, or the hypergeometric's where the sample
is a visible part of the stratum, and covers at least as often as it says. "wilson" is the score
interval with ends no nearer than exact one-sided limits of level `ONE_SIDED` · alpha, as Brown,
Cai and DasGupta (Statistical Science 16, 2001, section 4.1.1) modify it, for every count. Wilson's
own covers as little as 84 % instead of 95 % where one success is expected in six campaigns, and is
blind to what is missing from a sample of nearly all faults. The modified one covers 93 % or more of
the time, about 95 % in the mean, for any p and N and from 50 trials up (92.5 % from 10 up): exact
sums, in the tests.

What strata say together (`stratified`): T = Σ W_h · mean_h with W_h = N_h / N is unbiased whatever
the allocation (Cochran, Sampling Techniques, 1977, chapter 5). Its interval is that of a proportion
with the number of trials that would give the same variance. Two things go wrong with the plain
recipe, and are mended here. A stratum whose outcomes are all alike has no variance to show: its
rate is shrunk towards that of all strata together. And one rarely sampled stratum can hide more
than a symmetric interval around T allows: one more outcome in it, of weight W_h / n_h, is added to
T and to its spread, as Fay and Feuer (Statistics in Medicine 16, 1997) do for standardised rates.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Num, Shaped
from scipy import special, stats

from afpjax.inputs.errors import InputError

CONFIDENCE = 0.95
KINDS = ("wilson", "clopper-pearson")
EXACT = 2.0**31  # strata of up to so many faults are inverted exactly
SMALL = 1e-3  # a smaller part of a stratum is as good as drawn with replacement
ONE_SIDED = 0.9  # 1 in the paper, where the coverage dips to 92.7 %
HALF = 0.5  # faults: the limits of a finite stratum are numbers of bad ones, its mean need not be
UNSEEN = 4.0  # squares that a trial not yet seen may add to the sum of squares

Floats = Float[np.ndarray, "*S"]


def interval(
    kind: str,
    successes: Num[Any, "*S"],
    trials: Integer[Any, "*S"],
    *,
    population: Integer[Any, "*S"] | None = None,
    squares: Num[Any, "*S"] | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[Float[np.ndarray, "*S"], Float[np.ndarray, "*S"]]:
    """Low and high ends, float64, for strata of any shape; low <= successes / trials <= high.

    `successes`: sums of the outcomes y; `population`: N of every stratum (None: drawn with
    replacement, or N without end); `squares`: sums of y². No trial leaves (0, 1), all N of them no
    width. Raises `InputError` for an unknown kind, a confidence outside (0, 1), more successes
    than trials or more trials than the stratum has.
    """
    check_kind(kind, confidence)
    hits, count, size, whole = _checked(successes, trials, population)
    mean = hits / np.maximum(count, 1)
    if squares is not None:
        ratio = effective_ratio(hits, count, np.ravel(squares).astype(np.float64))
        hits, count, size = hits * ratio, count * ratio, size * ratio
    low, high = _limits(kind, hits, count, size, 1 - confidence)
    low, high = np.minimum(low, mean), np.maximum(high, mean)
    low, high = np.where(whole, mean, low), np.where(whole, mean, high)
    low, high = np.where(count > 0, low, 0.0), np.where(count > 0, high, 1.0)
    shape = np.broadcast_shapes(np.shape(successes), np.shape(trials))
    return low.reshape(shape), high.reshape(shape)


def effective_ratio(hits: Floats, count: Floats, squares: Floats) -> Floats:
    """How many independent 0-or-1 trials one trial is worth, at least 1.

    Korn and Graubard (Survey Methodology 24, 1998): p (1 - p) over the variance of y. The measured
    variance knows nothing of rare large outcomes, so the sum of squares counts `UNSEEN` more: as
    if the next trials changed every image. With 0-or-1 outcomes the ratio is 1.
    """
    mean = hits / np.maximum(count, 1)
    spread = np.maximum(squares - hits * mean, 0.0) + UNSEEN
    return np.maximum(count * mean * (1 - mean) / spread, 1.0)


def score_limits(
    mean: Float[Any, "*S"], count: Num[Any, "*S"], quantile: float
) -> tuple[Float[Any, "*S"], Float[Any, "*S"]]:
    """Wilson's score limits (1927) of a mean of `count` > 0 trials; count may be infinite."""
    spread = quantile**2 / count
    centre = (mean + spread / 2) / (1 + spread)
    half = np.sqrt(mean * (1 - mean) * spread + spread**2 / 4) / (1 + spread)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def exact_limits(hits: Floats, count: Floats, size: Floats, tail: float) -> tuple[Floats, Floats]:
    """One-sided limits of level 1 - tail each, from samples of `count` out of `size`.

    Clopper and Pearson (1934); the beta quantiles continue the binomial's to fractional counts,
    linear interpolation the hypergeometric's.
    """
    low, high = beta_limits(hits, count, tail)
    finite = (size <= EXACT) & (count > SMALL * size) & (count >= 1)
    if finite.any():
        n = np.floor(count[finite])
        of = np.round(size[finite] * n / count[finite])
        sampled = hits[finite] / count[finite] * n
        high[finite] = _hypergeometric_high(sampled, n, of, tail)
        low[finite] = 1 - _hypergeometric_high(n - sampled, n, of, tail)
    return low, high


def beta_limits(hits: Floats, count: Floats, tail: float) -> tuple[Floats, Floats]:
    """Clopper-Pearson limits from beta quantiles, for a population without end."""
    misses = np.maximum(count - hits, 0.0)
    low = special.betaincinv(np.maximum(hits, 1e-300), misses + 1, tail)
    high = special.betainccinv(hits + 1, np.maximum(misses, 1e-300), tail)
    return np.where(hits > 0, low, 0.0), np.where(misses > 0, high, 1.0)


def check_kind(kind: str, confidence: float) -> None:
    """Raise `InputError` for a kind of interval that there is none of, or no confidence."""
    if kind not in KINDS:
        raise InputError(f"interval: {kind!r} is none of {', '.join(KINDS)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: {confidence} is outside (0, 1); give 0.95, for instance")


def check_populations(population: Integer[Any, "*S"]) -> None:
    """Raise `InputError` for the first stratum without faults."""
    empty = np.flatnonzero(np.ravel(population) <= 0)
    if empty.size:
        raise InputError(f"stratum {empty[0]}: its population is 0; leave it out")


def _limits(
    kind: str, hits: Floats, count: Floats, size: Floats, alpha: float
) -> tuple[Floats, Floats]:
    count = np.maximum(count, 1e-9)
    if kind == "clopper-pearson":
        low, high = exact_limits(hits, count, size, alpha / 2)
    else:
        mean, part = hits / count, np.where(np.isinf(size), 0.0, count / size)
        low, high = exact_limits(hits, count, size, ONE_SIDED * alpha)
        # The finite population's variance is (N - n) / (N - 1) of the binomial's.
        alike = count / np.maximum(1 - part, 1e-300)
        score = score_limits(mean, alike, float(stats.norm.isf(alpha / 2)))
        low, high = np.minimum(low, score[0]), np.maximum(high, score[1])
    low, high = low - HALF / size, high + HALF / size
    # What was seen is certain: the rest of the stratum can only be all 0 or all 1.
    seen, unseen = hits / size, np.where(np.isinf(size), 1.0, 1 - count / size)
    return np.maximum(low, seen), np.minimum(high, seen + unseen)


def _hypergeometric_high(hits: Floats, count: Floats, size: Floats, tail: float) -> Floats:
    """The upper limit, linear between whole numbers of successes; equal strata are done once."""
    low, high = np.floor(hits), np.ceil(hits)
    rows = np.stack([np.concatenate([low, high]), np.tile(count, 2), np.tile(size, 2)])
    distinct, place = np.unique(rows, axis=1, return_inverse=True)
    below, above = np.split(_most(distinct[0], distinct[1], distinct[2], tail)[place.ravel()], 2)
    return (below + (hits - low) * (above - below)) / size


def _most(hits: Floats, count: Floats, size: Floats, tail: float) -> Floats:
    """The most bad ones of `size` under which `hits` or fewer in the sample are no surprise.

    Bisection, after two steps around the binomial's limit drawn in by the sampled part.
    """
    low, high = hits, size - count + hits
    mean, part = hits / count, count / size
    reach = (beta_limits(hits, count, tail)[1] - mean) * np.sqrt(1 - part) * size
    step = np.ceil(0.06 * reach) + 1
    tries = [np.ceil(mean * size + reach - step), np.ceil(mean * size + reach + step)]
    while tries or (low < high).any():
        middle = tries.pop() if tries else np.ceil((low + high) / 2)
        middle = np.clip(middle, np.minimum(low + 1, high), high)
        likely = stats.hypergeom.cdf(hits, size, middle, count) > tail
        low, high = np.where(likely, middle, low), np.where(likely, high, middle - 1)
    return low


def _checked(
    successes: Any, trials: Any, population: Any
) -> tuple[Floats, Floats, Floats, Shaped[np.ndarray, "*S"]]:
    """Sums, trials and strata's sizes as float64 of one shape, and where the sample is all."""
    faults = np.asarray(np.iinfo(np.int64).max) if population is None else np.asarray(population)
    arrays = np.broadcast_arrays(np.asarray(successes), np.asarray(trials), faults)
    hits, count, faults = (np.ravel(array) for array in arrays)
    if (count > faults).any():
        at = int(np.argmax(count > faults))
        raise InputError(
            f"interval: {count[at]} trials of stratum {at}, which has but {faults[at]} faults"
        )
    size, whole = np.maximum(faults.astype(np.float64), 1.0), count == faults
    if population is None:
        size, whole = np.full(hits.shape, np.inf), np.zeros(hits.shape, bool)
    hits, count = hits.astype(np.float64), count.astype(np.float64)
    if not ((hits >= 0) & (hits <= count * (1 + 1e-12))).all():
        raise InputError("interval: more successes than trials, or fewer than none")
    return np.minimum(hits, count), count, size, whole


class StratifiedEstimate(NamedTuple):
    """A mean and its interval for each of G groups of strata, float64; low <= mean <= high."""

    mean: Float[np.ndarray, "G"]
    low: Float[np.ndarray, "G"]
    high: Float[np.ndarray, "G"]


class _GroupSums(NamedTuple):
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
) -> StratifiedEstimate:
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
    sums = _group_sums(hits, count, size, member, spread)
    low, high = _group_ends(kind, sums, 1 - confidence)
    done = sums.variance + sums.hidden + sums.spare <= 0
    low, high = np.where(done, sums.mean, low), np.where(done, sums.mean, high)
    return StratifiedEstimate(sums.mean, np.clip(low, 0, sums.mean), np.clip(high, sums.mean, 1))


def _group_sums(
    hits: np.ndarray,
    count: np.ndarray,
    size: np.ndarray,
    member: np.ndarray,
    squares: np.ndarray | None,
) -> _GroupSums:
    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(member, weights=values)

    def most(values: np.ndarray) -> np.ndarray:
        largest = np.zeros(member.max() + 1)
        np.maximum.at(largest, member, values)
        return largest

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
    return _GroupSums(
        np.minimum(total(weight * rate), 1.0),
        total(scale * measured),
        np.minimum(total(weight * near), 1.0),
        total(scale * shrunk),
        most(one * (1 - rate)),
        most(one * rate),
    )


def _group_ends(kind: str, sums: _GroupSums, alpha: float) -> tuple[np.ndarray, np.ndarray]:
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
