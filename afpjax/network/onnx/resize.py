"""ONNX's Resize: nearest, linear and cubic, axis by axis, the taps worked out beforehand."""

from collections.abc import Sequence
from math import floor, prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from afpjax.network.onnx.elementwise import Operator, Value, known, refuse_unless
from afpjax.network.onnx.shapes import numbers
from afpjax.network.onnx.work import refuse_excess

#: Where a pixel of the output lies in the input, by coordinate_transformation_mode.
WAYS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)
#: Which of the sizes' factors is every axis's, by keep_aspect_ratio_policy.
POLICIES = {"not_larger": min, "not_smaller": max}
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


class Rule(NamedTuple):
    """How pixels are made of their neighbours: the node's attributes of the same meaning."""

    mode: str
    way: str
    nearest: str
    a: float  # cubic_coeff_a
    exclude_outside: bool


def resize(
    x: Value,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    """To `sizes`, or by `scales`, along `axes` (all where none are given).

    `roi` and `extrapolation_value` are for cropping, and antialiasing is another filter: neither
    is supported.
    """
    refuse_unless("antialias", antialias, 0)
    refuse_unless("coordinate_transformation_mode", coordinate_transformation_mode, *WAYS)
    refuse_unless("keep_aspect_ratio_policy", keep_aspect_ratio_policy, "stretch", *POLICIES)
    refuse_unless("mode", mode, "nearest", "linear", "cubic")
    refuse_unless("nearest_mode", nearest_mode, *NEAREST)
    rule = Rule(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside)
    )
    over = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    shape = list(x.shape)
    if sizes is not None and np.size(sizes):
        wanted = numbers(sizes, "sizes")
        factors = [size / x.shape[axis] for size, axis in zip(wanted, over, strict=True)]
        if keep_aspect_ratio_policy in POLICIES:
            factors = [POLICIES[keep_aspect_ratio_policy](factors)] * len(over)
            wanted = [floor(f * x.shape[axis] + 0.5) for f, axis in zip(factors, over, strict=True)]
    else:
        factors = known(scales, "scales").astype(np.float64).tolist()
        # In float32, as scales are: 0.7 of 10 is 7.
        wanted = [
            floor(np.float32(f) * np.float32(x.shape[axis]))
            for f, axis in zip(factors, over, strict=True)
        ]
    for axis, size in zip(over, wanted, strict=True):
        shape[axis] = size
    refuse_excess([prod(shape), *shape])
    for axis, size, factor in zip(over, wanted, factors, strict=True):
        if size != x.shape[axis] or factor != 1:
            x = _along(x, axis, size, factor, rule)
    return x


def _along(x: Value, axis: int, size: int, factor: float, rule: Rule) -> Value:
    """One axis resized: a sum of as many pixels as the rule has taps."""
    indices, weights = _taps(x.shape[axis], size, factor, rule)
    broadcast = [-1 if place == axis else 1 for place in range(x.ndim)]
    made: Any = 0
    for index, weight in zip(indices, weights, strict=True):
        taken = jnp.take(x, index, axis=axis, mode="clip")
        made = made + (taken if rule.mode == "nearest" else taken * weight.reshape(broadcast))
    return made


def _taps(length: int, size: int, factor: float, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """For each tap, by pixel of the output: which pixel it reads, and its weight [float32]."""
    places = _places(length, size, factor, rule.way)
    if rule.mode == "nearest":
        ways = {
            "round_prefer_floor": np.ceil(places - 0.5),
            "round_prefer_ceil": np.floor(places + 0.5),
            "floor": np.floor(places),
            "ceil": np.ceil(places),
        }
        index = np.clip(ways[rule.nearest], 0, length - 1).astype(np.int32)
        return index[None], np.ones((1, size), np.float32)
    reach = np.arange(2) if rule.mode == "linear" else np.arange(-1, 3)
    index = np.floor(places) + reach[:, None]
    distance = np.abs(places - index)
    weights = 1 - distance if rule.mode == "linear" else _cubic(distance, rule.a)
    if rule.exclude_outside:
        weights = np.where((index >= 0) & (index < length), weights, 0)
        weights = weights / weights.sum(0)
    return np.clip(index, 0, length - 1).astype(np.int32), weights.astype(np.float32)


def _places(length: int, size: int, factor: float, way: str) -> np.ndarray:
    """Where the output's pixels lie among the input's."""
    # In float32, as scales are: 3.5 / 0.7 is then 5, and no pixel more.
    pixel, scale = np.arange(size, dtype=np.float32), np.float32(factor)
    if way == "align_corners":
        return pixel * np.float32(length - 1) / np.float32(max(size - 1, 1))
    if way == "asymmetric":
        return pixel / scale
    if way == "pytorch_half_pixel" and size == 1:
        return np.zeros(1, np.float32)
    shift = 0.0
    if way == "half_pixel_symmetric":  # what rounding the size took away is shared by both ends
        shift = length / 2 * (1 - size / (factor * length))
    return np.float32(shift) + (pixel + np.float32(0.5)) / scale - np.float32(0.5)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: two cubics that meet at one pixel and end at two."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


OPERATORS: dict[str, Operator] = {"Resize": resize}
