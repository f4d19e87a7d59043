"""ONNX operators that slide a window: convolution and pooling."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

Attributes = Mapping[str, Any]
Pads = list[tuple[int, int]]


def conv(attributes: Attributes, x: Array, w: Array, b: Array | None = None) -> Array:
    """Conv: x [B, C, ...], w [outputs, C / group, ...], b [outputs] -> [B, outputs, ...]."""
    strides, dilations = _steps(attributes, w.ndim - 2)
    y = lax.conv_general_dilated(
        x,
        w,
        strides,
        _pads(attributes, x.shape[2:], w.shape[2:], strides, dilations),
        rhs_dilation=dilations,
        feature_group_count=attributes.get("group", 1),
    )
    return y if b is None else y + b.reshape(1, -1, *(1,) * (w.ndim - 2))


def max_pool(attributes: Attributes, x: Array) -> Array:
    """MaxPool, values only: padding never wins."""
    window, strides, dilations, pads, over = _pool(attributes, x.shape[2:])
    pads = [(low, high + more) for (low, high), more in zip(pads, over, strict=True)]
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, 1, *window),
        (1, 1, *strides),
        ((0, 0), (0, 0), *pads),
        None,
        (1, 1, *dilations),
    )


def average_pool(attributes: Attributes, x: Array) -> Array:
    """AveragePool: padding counts if `count_include_pad`, what `ceil_mode` adds never does."""
    window, strides, dilations, pads, over = _pool(attributes, x.shape[2:])
    padded = [(low, high + more) for (low, high), more in zip(pads, over, strict=True)]
    sums = lax.reduce_window(
        x,
        0.0,
        lax.add,
        (1, 1, *window),
        (1, 1, *strides),
        ((0, 0), (0, 0), *padded),
        None,
        (1, 1, *dilations),
    )
    counts = np.ones((), np.float32)
    for axis, size in enumerate(x.shape[2:]):
        low, high = pads[axis]
        valid = (-low, size + high) if attributes.get("count_include_pad", 0) else (0, size)
        starts = np.arange(sums.shape[2 + axis])[:, None] * strides[axis] - low
        taps = starts + np.arange(window[axis]) * dilations[axis]
        inside = ((taps >= valid[0]) & (taps < valid[1])).sum(1).astype(np.float32)
        counts = counts[..., None] * inside
    # Per axis, not per pixel and channel: a count of ones over the image would be one more image.
    small = counts.flat[:1].reshape((1,) * counts.ndim) if np.ptp(counts) == 0 else counts
    return sums / small[None, None]


def _pool(attributes: Attributes, sizes: Sequence[int]):
    """A pool's window, strides, dilations, pads, and what `ceil_mode` adds at the far end."""
    window = tuple(attributes["kernel_shape"])
    strides, dilations = _steps(attributes, len(window))
    pads = _pads(attributes, sizes, window, strides, dilations)
    over = [0] * len(window)
    if attributes.get("ceil_mode", 0):
        extents = zip(sizes, window, strides, dilations, pads, strict=True)
        over = [_overhang(*extent) for extent in extents]
    return window, strides, dilations, pads, over


def _overhang(size: int, window: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
    """How far the last window hangs over the padding; one that would start in it is left out."""
    reach = dilation * (window - 1) + 1
    whole = size + sum(pads)
    count = -(-(whole - reach) // stride) + 1
    if (count - 1) * stride >= size + pads[0]:
        count -= 1
    return max((count - 1) * stride + reach - whole, 0)


def _steps(attributes: Attributes, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and dilations, 1 where the node does not say."""
    ones = (1,) * axes
    return tuple(attributes.get("strides") or ones), tuple(attributes.get("dilations") or ones)


def _pads(
    attributes: Attributes,
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """Padding before and after each spatial axis."""
    kind = attributes.get("auto_pad", "NOTSET")
    axes = len(window)
    if kind == "NOTSET":
        given = attributes.get("pads") or (0,) * (2 * axes)
        return list(zip(given[:axes], given[axes:], strict=True))
    if kind == "VALID":
        return [(0, 0)] * axes
    reach = [d * (w - 1) + 1 for w, d in zip(window, dilations, strict=True)]
    return list(lax.padtype_to_pads(sizes, reach, strides, kind.replace("SAME_UPPER", "SAME")))
