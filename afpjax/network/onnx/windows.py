"""ONNX operators over neighbouring pixels or channels: convolution, pooling and resizing."""

from collections.abc import Callable, Iterable, Sequence
from math import floor, prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from afpjax.network.onnx.elementwise import (
    Operator,
    Value,
    known,
    numbers,
    plain,
    refuse_unless,
)
from afpjax.network.onnx.reductions import per_channel

#: Elements of one value, for one image: a gigabyte in float32.
MOST_ELEMENTS = 2**28
#: Where a pixel of a resized image lies in the original, by coordinate_transformation_mode.
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)
#: Which of the sizes' factors is every axis's, by keep_aspect_ratio_policy.
POLICIES = {"not_larger": min, "not_smaller": max}
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def refuse_excess(sizes: Iterable[int]) -> None:
    """Raise `ValueError` for a value that is larger than any network's."""
    for size in sizes:
        if size > MOST_ELEMENTS:
            raise ValueError(f"it makes {size:,} numbers of one image; reduce its size")


class SlidingWindow(NamedTuple):
    """Where a window goes: by axis, its size, steps and padding."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: list[tuple[int, int]]
    over: tuple[int, ...]  # what `ceil_mode` adds at the far end

    def reduced(self, x: Value, start: float, function: Callable[[Any, Any], Any]) -> Value:
        """One number for each place of the window, on [B, C, ...]."""
        padded = [
            (low, high + more) for (low, high), more in zip(self.pads, self.over, strict=True)
        ]
        return lax.reduce_window(
            x,
            start,
            function,
            (1, 1, *self.sizes),
            (1, 1, *self.strides),
            ((0, 0), (0, 0), *padded),
            None,
            (1, 1, *self.dilations),
        )


def window(
    x: Value,
    kernel_shape: Sequence[int],
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> SlidingWindow:
    """What a node's attributes come to on [B, C, ...]; steps are 1 where it does not say."""
    refuse_unless("auto_pad", auto_pad, "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    ones, axes, image = (1,) * len(kernel_shape), len(kernel_shape), x.shape[2:]
    steps, spread = tuple(strides or ones), tuple(dilations or ones)
    reach = [step * (size - 1) + 1 for size, step in zip(kernel_shape, spread, strict=True)]
    if auto_pad.startswith("SAME"):
        kind = auto_pad.replace("SAME_UPPER", "SAME")
        padding = list(lax.padtype_to_pads(image, reach, steps, kind))
    else:
        both = tuple(pads) if pads and auto_pad == "NOTSET" else (0,) * (2 * axes)
        padding = list(zip(both[:axes], both[axes:], strict=True))
    over = [0] * axes
    if ceil_mode:
        extents = zip(image, reach, steps, padding, strict=True)
        over = [_overhang(*extent) for extent in extents]
    return SlidingWindow(tuple(kernel_shape), steps, spread, padding, tuple(over))


def _overhang(size: int, reach: int, stride: int, pads: tuple[int, int]) -> int:
    """How far the last window hangs over the padding; one that would start in it is left out."""
    whole = size + sum(pads)
    count = -(-(whole - reach) // stride) + 1
    if (count - 1) * stride >= size + pads[0]:
        count -= 1
    return max((count - 1) * stride + reach - whole, 0)


def conv(
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    **attributes: Any,
) -> Value:
    """Conv: x [B, C, ...], w [outputs, C / group, ...], b [outputs] -> [B, outputs, ...]."""
    if kernel_shape and tuple(kernel_shape) != w.shape[2:]:
        raise ValueError(f"its kernel_shape is {list(kernel_shape)}, its weights {list(w.shape)}")
    over = window(x, w.shape[2:], **attributes)
    y = lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(w),
        over.strides,
        over.pads,
        rhs_dilation=over.dilations,
        feature_group_count=group,
    )
    return y if b is None else y + per_channel(b, y)


def max_pool(
    x: Value, *, kernel_shape: Sequence[int], storage_order: int = 0, **attributes: Any
) -> Value:
    """MaxPool, values only: padding never wins. `storage_order` is that of the places."""
    return window(x, kernel_shape, **attributes).reduced(x, -jnp.inf, lax.max)


def average_pool(
    x: Value, *, kernel_shape: Sequence[int], count_include_pad: int = 0, **attributes: Any
) -> Value:
    """AveragePool: padding counts if `count_include_pad`, what `ceil_mode` adds never does."""
    over = window(x, kernel_shape, **attributes)
    sums = over.reduced(x, 0.0, lax.add)
    counts = np.ones((), np.float32)
    for axis, size in enumerate(x.shape[2:]):
        low, high = over.pads[axis]
        valid = (-low, size + high) if count_include_pad else (0, size)
        starts = np.arange(sums.shape[2 + axis])[:, None] * over.strides[axis] - low
        taps = starts + np.arange(over.sizes[axis]) * over.dilations[axis]
        inside = ((taps >= valid[0]) & (taps < valid[1])).sum(1).astype(np.float32)
        counts = counts[..., None] * inside
    # Per axis, not per pixel and channel: a count of ones over the image would be one more image.
    small = counts.flat[:1].reshape((1,) * counts.ndim) if np.ptp(counts) == 0 else counts
    return sums / small[None, None]


def lp_pool(x: Value, *, kernel_shape: Sequence[int], p: int = 2, **attributes: Any) -> Value:
    """The p-norm of what each window holds."""
    over = window(x, kernel_shape, **attributes)
    return over.reduced(jnp.abs(x) ** p, 0.0, lax.add) ** (1 / p)


def local_response(
    x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Value:
    """LRN: divided by a power of the mean square of `size` channels around each."""
    before = (size - 1) // 2
    squares = lax.reduce_window(
        x * x,
        0.0,
        lax.add,
        (1, size, *(1,) * (x.ndim - 2)),
        (1,) * x.ndim,
        ((0, 0), (before, size - 1 - before), *((0, 0),) * (x.ndim - 2)),
    )
    return x / (bias + alpha / size * squares) ** beta


def _global(function: Callable[..., Value]) -> Operator:
    return plain(lambda x: function(x, axis=tuple(range(2, x.ndim)), keepdims=True))


def global_lp_pool(x: Value, *, p: int = 2) -> Value:
    over = tuple(range(2, x.ndim))
    return (jnp.abs(x) ** p).sum(over, keepdims=True) ** (1 / p)


class Sampling(NamedTuple):
    """How a resized pixel is made of its neighbours: the node's attributes of the same meaning."""

    mode: str
    coordinates: str
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
    """To `sizes`, or by `scales`, along `axes` (all where none are given), axis by axis.

    `roi` and `extrapolation_value` are for cropping, and antialiasing is another filter: neither
    is supported.
    """
    refuse_unless("antialias", antialias, 0)
    refuse_unless("coordinate_transformation_mode", coordinate_transformation_mode, *COORDINATES)
    refuse_unless("keep_aspect_ratio_policy", keep_aspect_ratio_policy, "stretch", *POLICIES)
    refuse_unless("mode", mode, "nearest", "linear", "cubic")
    refuse_unless("nearest_mode", nearest_mode, *NEAREST)
    how = Sampling(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside)
    )
    over = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    lengths = [x.shape[axis] for axis in over]
    if sizes is not None and np.size(sizes):
        wanted = numbers(sizes, "sizes")
        factors = [size / length for size, length in zip(wanted, lengths, strict=True)]
        if keep_aspect_ratio_policy in POLICIES:
            factors = [POLICIES[keep_aspect_ratio_policy](factors)] * len(over)
            wanted = [floor(f * length + 0.5) for f, length in zip(factors, lengths, strict=True)]
    else:
        factors = known(scales, "scales").astype(np.float64).tolist()
        # In float32, as scales are: 0.7 of 10 is 7.
        wanted = [
            floor(np.float32(f) * np.float32(length))
            for f, length in zip(factors, lengths, strict=True)
        ]
    shape = list(x.shape)
    for axis, size in zip(over, wanted, strict=True):
        shape[axis] = size
    refuse_excess([prod(shape), *shape])
    for axis, size, factor in zip(over, wanted, factors, strict=True):
        if size != x.shape[axis] or factor != 1:
            x = _along(x, axis, size, factor, how)
    return x


def _along(x: Value, axis: int, size: int, factor: float, how: Sampling) -> Value:
    """One axis resized: a sum of as many pixels as there are taps."""
    indices, weights = _taps(x.shape[axis], size, factor, how)
    broadcast = [-1 if place == axis else 1 for place in range(x.ndim)]
    made: Any = 0
    for index, weight in zip(indices, weights, strict=True):
        taken = jnp.take(x, index, axis=axis, mode="clip")
        made = made + (taken if how.mode == "nearest" else taken * weight.reshape(broadcast))
    return made


def _taps(length: int, size: int, factor: float, how: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """For each tap, by pixel of the output: which pixel it reads, and its weight [float32]."""
    places = _places(length, size, factor, how.coordinates)
    if how.mode == "nearest":
        rounded = {
            "round_prefer_floor": np.ceil(places - 0.5),
            "round_prefer_ceil": np.floor(places + 0.5),
            "floor": np.floor(places),
            "ceil": np.ceil(places),
        }
        index = np.clip(rounded[how.nearest], 0, length - 1).astype(np.int32)
        return index[None], np.ones((1, size), np.float32)
    reach = np.arange(2) if how.mode == "linear" else np.arange(-1, 3)
    index = np.floor(places) + reach[:, None]
    distance = np.abs(places - index)
    weights = 1 - distance if how.mode == "linear" else _cubic(distance, how.a)
    if how.exclude_outside:
        weights = np.where((index >= 0) & (index < length), weights, 0)
        weights = weights / weights.sum(0)
    return np.clip(index, 0, length - 1).astype(np.int32), weights.astype(np.float32)


def _places(length: int, size: int, factor: float, coordinates: str) -> np.ndarray:
    """Where the output's pixels lie among the input's."""
    # In float32, as scales are: 3.5 / 0.7 is then 5, and no pixel more.
    pixel, scale = np.arange(size, dtype=np.float32), np.float32(factor)
    if coordinates == "align_corners":
        return pixel * np.float32(length - 1) / np.float32(max(size - 1, 1))
    if coordinates == "asymmetric":
        return pixel / scale
    if coordinates == "pytorch_half_pixel" and size == 1:
        return np.zeros(1, np.float32)
    shift = 0.0
    if coordinates == "half_pixel_symmetric":  # both ends share what rounding the size took away
        shift = length / 2 * (1 - size / (factor * length))
    return np.float32(shift) + (pixel + np.float32(0.5)) / scale - np.float32(0.5)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: two cubics that meet at one pixel and end at two."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


NUMPY: dict[str, Operator] = {}
JAX: dict[str, Operator] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "GlobalAveragePool": _global(jnp.mean),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": _global(jnp.max),
    "LRN": local_response,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "Resize": resize,
}
