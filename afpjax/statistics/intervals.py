"""Intervals for what a fault campaign estimates: accuracies with error bars that hold.

Shape legend: K trials (fault draws), B images. The K·B outcomes are crossed, not independent: all
images of a trial share its weight faults, all trials share the images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.proportions import CONFIDENCE, ONE_SIDED, beta_limits, score_limits


def wilson(
    successes: float | int, count: float | int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); `count` may be an effective size."""
    if not count > 0 or not 0 <= successes <= count:
        raise InputError(f"interval: {successes} of {count} is no proportion")
    quantile = float(stats.norm.ppf((1 + confidence) / 2))
    low, high = score_limits(np.asarray(successes / count), np.asarray(float(count)), quantile)
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A measured number and the interval that it lies in, both as they are (fractions of 1)."""

    value: float
    low: float
    high: float

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


def estimated(correct: Bool[np.ndarray, "K B"]) -> Estimate:
    """An accuracy with its 95 % interval over new images and new fault draws."""
    return Estimate(float(correct.mean()), *accuracy_interval(correct))


def accuracy_interval(
    correct: Shaped[np.ndarray, "K B"], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the accuracy over new images and new fault draws, from outcomes [K, B].

    Outcomes are right or wrong, or shares in [0, 1].

    Two-way random effects give the variance of the mean, and with it the number of independent
    outcomes that would be as informative; Wilson's interval with that number and Student's
    quantile, its ends modified as in `proportions`, stays honest near 0 and 1 (Korn and Graubard,
    Survey Methodology 24, 1998, do the same for clustered samples). Where all outcomes are alike,
    the B images count, once each.

    The variance is as good as the trials and images that were seen. Where a few faults do all the
    damage (single flips of high bits) it takes 100 trials and more for it to be right: 16 trials
    cover 81 %, 200 cover 95 %, and fewer where all other trials change images alike. Trials of
    many flips are alike, and 4 will do. `masks_interval` allows for what was not seen. Likewise
    where two images in a hundred are all that faults ever change, 100 images cover 88 %, 400
    cover 94 %.
    """
    mean = float(correct.mean())
    variance, freedom = mean_variance(correct)
    effective = mean * (1 - mean) / variance if variance > 0 else float(correct.shape[1])
    quantile = float(stats.t.ppf((1 + confidence) / 2, freedom))
    return _ends(mean, min(max(effective, 1.0), float(correct.size)), quantile)


def masks_interval(
    correct: Bool[np.ndarray, "K B"], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """`accuracy_interval` that also allows for a mask, or an image, unlike all that were seen.

    It is no narrower, nor than the score interval whose variance counts one more mask, or image
    (the wider of the two), that changes everything: 1 / K² or 1 / B² more, but no more in all than
    if masks, or images, were all right or all wrong: p (1 - p) / K or / B. Outcomes all alike count
    as min(K, B) independent ones. So the width of a few masks is near the binomial's, and the
    allowance is gone (1 / K beside 1 / √K) where hundreds were seen.

    Covers 93 % and more from 8 masks and 16 images up (tests/campaigns/test_coverage.py).
    """
    mean = float(correct.mean())
    if 0 < mean < 1:
        variance = mean_variance(correct)[0] + _unseen(correct)
        effective = min(max(mean * (1 - mean) / variance, 1.0), float(correct.size))
    else:
        effective = float(min(correct.shape))
    low, high = _ends(mean, effective, float(stats.norm.ppf((1 + confidence) / 2)))
    own = accuracy_interval(correct, confidence)
    return min(low, own[0]), max(high, own[1])


def images_interval(
    hits: Int[np.ndarray, "B"],
    faults: int,
    confidence: float = CONFIDENCE,
    *,
    images: float | int = np.inf,
) -> tuple[float, float]:
    """Interval of the share of (fault, image) pairs that are hits, over other images.

    `hits` counts for each image how many of the `faults`, which are given and not drawn, hit it.
    The B images are drawn from `images` of them, so that none are left to chance where these are
    all (Cochran, Sampling Techniques, 1977, chapter 9: clusters of equal size). As in
    `accuracy_interval`, pairs that would be as informative if each were drawn by itself make it a
    score interval; where no pair or every pair is a hit, the B images count, once each.
    """
    shares = hits / faults
    count, mean = len(shares), float(shares.mean())
    left = 1 - count / images
    if left <= 0:
        return mean, mean
    variance = float(shares.var(ddof=1)) / count if count > 1 else 0.0
    effective = mean * (1 - mean) / variance if variance > 0 else float(count)
    quantile = float(stats.t.ppf((1 + confidence) / 2, max(count - 1, 1)))
    return _ends(mean, max(effective, 1.0) / left, quantile)


def subset_scores(
    hits: Num[Any, "F"], count: Num[Any, "F"], known: Num[Any, "F"], total: Num[Any, "F"]
) -> Float[np.ndarray, "F"]:
    """How many standard deviations `hits` of `count` images are from `known` of `total`.

    One set of images is drawn from the other without replacement (the smaller from the larger), so
    that the hits are hypergeometric: with p of the larger set, N its size and n the smaller's, the
    share of hits has the variance p (1 - p) / n · (N - n) / (N - 1). NaN where that is nothing and
    the shares agree, infinite where they do not.
    """
    ours, theirs = np.asarray(hits, float) / count, np.asarray(known, float) / total
    larger = np.maximum(count, total)
    share = np.where(np.asarray(count) > total, ours, theirs)
    smaller = np.minimum(count, total)
    variance = share * (1 - share) / smaller * (larger - smaller) / np.maximum(larger - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (ours - theirs) / np.sqrt(variance)


def difference_interval(
    one: Shaped[np.ndarray, "K B"], other: Shaped[np.ndarray, "_ _"], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the difference of two accuracies (one - other) on the same draws and images.

    Outcomes are right or wrong, or shares in [0, 1].

    Student's t on the paired differences, two-way; the narrower, the more alike the draws and
    images affect both. Raises `InputError` where the shapes differ.
    """
    if one.shape != other.shape:
        raise InputError(f"difference: outcomes {one.shape} and {other.shape} are not paired")
    difference = one.astype(np.float64) - other
    variance, freedom = mean_variance(difference)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    mean = float(difference.mean())
    return max(mean - half, -1.0), min(mean + half, 1.0)


def share_regained(
    one: Shaped[np.ndarray, "K B"], other: Shaped[np.ndarray, "_ _"], lost: float
) -> Estimate | None:
    """Share of an accuracy `lost` by `other` that `one` has more, with `difference_interval`.

    None where nothing is lost. Raises what that raises.
    """
    if lost <= 0:
        return None
    bounds = (bound / lost for bound in difference_interval(one, other))
    return Estimate(float(one.mean() - other.mean()) / lost, *bounds)


def mean_variance(outcomes: Shaped[np.ndarray, "K B"]) -> tuple[float, float]:
    """Variance of the grand mean over new rows and new columns, and its degrees of freedom.

    Analysis of variance of a crossed layout with one outcome per cell:
    Var = (MS_rows + MS_columns - MS_rest) / (K·B), freedom by Satterthwaite (1946). A component
    that comes out negative counts as zero; with one row, the columns alone are random.
    """
    values = outcomes.astype(np.float64)
    squares, freedoms = _mean_squares(values)
    rows, columns, rest = squares
    total = max(rows + columns - rest, rows, columns)
    if total <= 0:
        return 0.0, float(max(values.size - 1, 1))
    parts = sum(square**2 / freedom for square, freedom in zip(squares[:2], freedoms, strict=True))
    return total / values.size, max(total**2 / parts, 1.0)


def _unseen(correct: Bool[np.ndarray, "K B"]) -> float:
    """What one more mask, or image, that changes everything may add to the variance of the mean."""
    mean, added = float(correct.mean()), [0.0]
    squares, _ = _mean_squares(correct.astype(np.float64))
    for count, square in zip(correct.shape, squares[:2], strict=True):
        most = mean * (1 - mean) / count - square / correct.size
        added.append(min(1 / count**2, most))
    return max(added)


def _ends(mean: float, effective: float, quantile: float) -> tuple[float, float]:
    """Wilson's ends, no nearer than the exact one-sided limits of `proportions`."""
    tail = ONE_SIDED * 2 * float(stats.norm.sf(quantile))
    exact = beta_limits(np.asarray([mean * effective]), np.asarray([effective]), tail)
    score = score_limits(np.asarray([mean]), np.asarray([effective]), quantile)
    return (
        float(np.clip(min(score[0][0], exact[0][0]), 0.0, mean)),
        float(np.clip(max(score[1][0], exact[1][0]), mean, 1.0)),
    )


def _mean_squares(
    values: Float[np.ndarray, "K B"],
) -> tuple[tuple[float, float, float], tuple[int, int]]:
    """Mean squares of rows, columns and the rest (0 where there is but one), and the freedoms."""
    trials, images = values.shape
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    residuals = values - rows[:, None] - columns[None, :] + values.mean()
    freedoms = max(trials - 1, 1), max(images - 1, 1)
    squares = (
        images * float(((rows - values.mean()) ** 2).sum()) / freedoms[0],
        trials * float(((columns - values.mean()) ** 2).sum()) / freedoms[1],
        float((residuals**2).sum()) / (freedoms[0] * freedoms[1]),
    )
    return squares, freedoms
