"""Scores of different units on one scale, so that a distance between neurons means something.

RobustDiCE takes Euclidean distances over l1, Taylor and Jensen-Shannon scores (Algorithm 1, line
15) and does not say how they are made comparable. Raw l1 is larger than the other two by orders of
magnitude: they would vanish beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Num
from scipy.stats import rankdata

from afpjax.inputs.errors import InputError

Vector = Float64[np.ndarray, "C"]


def points(
    scores: Mapping[str, Num[Any, "C"]], names: Sequence[str], normalise: str
) -> Float64[np.ndarray, "C S"]:
    """A layer's neurons as points, one axis for each of the named scores, in the order of `names`.

    `scores` are the layer's, finite, [C] each. `normalise`, over the neurons of the layer:
    - "minmax": (s - min) / (max - min), from 0 to 1;
    - "zscore": (s - mean) / standard deviation (of the population);
    - "rank": the rank, equal scores by their mean rank, from 0 (lowest) to 1 (highest) in any
      layer, so that one threshold means the same in large layers and in small ones;
    - "raw": s as it is.
    A score that is the same for all neurons tells none from another: it is zero everywhere, but
    with "raw". Raises `InputError` for another `normalise`.
    """
    if normalise not in _SCALES:
        raise InputError(
            f"distribute.normalise: {normalise!r} is none of {', '.join(NORMALISATIONS)}"
        )
    return np.stack(
        [_SCALES[normalise](np.asarray(scores[name], np.float64)) for name in names], axis=1
    )


def _minmax(score: Vector) -> Vector:
    low, high = score.min(), score.max()
    return np.zeros_like(score) if low == high else (score - low) / (high - low)


def _zscore(score: Vector) -> Vector:
    # From 0 to 1 first: squares of tiny scores would be rounded to zero, those of equal ones not.
    score = _minmax(score)
    return score if not score.any() else (score - score.mean()) / score.std()


def _rank(score: Vector) -> Vector:
    if score.min() == score.max():
        return np.zeros_like(score)
    return (rankdata(score) - 1) / (len(score) - 1)


def _raw(score: Vector) -> Vector:
    return score


_SCALES: Mapping[str, Callable[[Vector], Vector]] = {
    "minmax": _minmax,
    "zscore": _zscore,
    "rank": _rank,
    "raw": _raw,
}
NORMALISATIONS = tuple(_SCALES)
