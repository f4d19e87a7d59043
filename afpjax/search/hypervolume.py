"""Exact answers about finished fronts, in NumPy on the host: who is on one, and what it is worth.

Legend: N points, M objectives, all minimised.
"""

import numpy as np
from jaxtyping import Bool, Num

from afpjax.inputs.errors import InputError


def non_dominated(points: Num[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
    """Which points no other point dominates; copies of such a point all count. Shape [N].

    Exact, for enumerations: memory N·M, time N times the number of distinct points found.
    Raises InputError where a point is NaN.
    """
    _refuse_nan(points)
    distinct, origin = np.unique(points, axis=0, return_inverse=True)
    on_front = np.zeros(len(distinct), bool)
    left = np.arange(len(distinct))
    while left.size:  # in lexicographic order, so the first one left cannot be dominated
        best = distinct[left[0]]
        on_front[left[0]] = True
        left = left[(distinct[left] < best).any(axis=1)]
    return on_front[origin.reshape(-1)]


def hypervolume(points: Num[np.ndarray, "N M"], reference: Num[np.ndarray, " _"]) -> float:
    """The volume that the points dominate, up to the reference point. Exact, in float64.

    Sorted sweep in two objectives; with more, slices along the last one (N times the cost of one
    objective fewer). Points not better than the reference in every objective add nothing; no
    points, no volume. Raises InputError where a number is NaN or minus infinity, or where the
    reference has another number of objectives.
    """
    points = np.asarray(points, np.float64)
    reference = np.asarray(reference, np.float64)
    _refuse_nan(points)
    _refuse_nan(reference)
    if points.shape[1] != reference.size:
        raise InputError(
            f"hypervolume: points have {points.shape[1]} objectives, the reference point "
            f"{reference.size}: give one reference number per objective"
        )
    if np.isneginf(points).any() or not np.isfinite(reference).all():
        raise InputError("hypervolume: an infinite volume: give finite points and reference")
    inside = points[(points < reference).all(axis=1)]
    return float(_volume(inside, reference)) if len(inside) else 0.0


def _volume(points: Num[np.ndarray, "N M"], reference: Num[np.ndarray, " M"]) -> np.floating:
    if points.shape[1] == 1:
        return reference[0] - points.min()
    if points.shape[1] == 2:
        return _area(points, reference)
    points = points[non_dominated(points)]
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.diff(points[:, -1], append=reference[-1])
    total = np.float64(0)
    for count, depth in enumerate(depths, start=1):
        if depth > 0:  # between this height and the next, the first `count` points are there
            total += depth * _volume(points[:count, :-1], reference[:-1])
    return total


def _area(points: Num[np.ndarray, "N 2"], reference: Num[np.ndarray, " 2"]) -> np.floating:
    """Strips between one point's first objective and the next one's."""
    points = points[np.argsort(points[:, 0], kind="stable")]
    widths = np.diff(points[:, 0], append=reference[0])
    heights = reference[1] - np.minimum.accumulate(points[:, 1])
    return np.dot(widths, heights)


def _refuse_nan(points: Num[np.ndarray, "..."]) -> None:
    if np.issubdtype(points.dtype, np.floating) and np.isnan(points).any():
        raise InputError("points hold NaN: leave failed individuals out")
