"""ONNX operators that slide a window over pixels or channels: convolution and pooling."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from afpjax.network.onnx.elementwise import Operator, Value, plain, refuse_unless
from afpjax.network.onnx.reductions import per_channel

Pads = list[tuple[int, int]]


class Window(NamedTuple):
    """Where a window goes: by axis, its size, steps and padding."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads
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


def conv(
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Value:
    """Conv: x [B, C, ...], w [outputs, C / group, ...], b [outputs] -> [B, outputs, ...]."""
    if kernel_shape and tuple(kernel_shape) != w.shape[2:]:
        raise ValueError(f"its kernel_shape is {list(kernel_shape)}, its weights {list(w.shape)}")
    window = _window(x, w.shape[2:], strides, dilations, pads, auto_pad)
    y = lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(w),
        window.strides,
        window.pads,
        rhs_dilation=window.dilations,
        feature_group_count=group,
    )
    return y if b is None else y + per_channel(b, y)


def max_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    storage_order: int = 0,
    strides: Sequence[int] = (),
) -> Value:
    """MaxPool, values only: padding never wins. `storage_order` is that of the places."""
    window = _window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return window.reduced(x, -jnp.inf, lax.max)


def average_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Value:
    """AveragePool: padding counts if `count_include_pad`, what `ceil_mode` adds never does."""
    window = _window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    sums = window.reduced(x, 0.0, lax.add)
    counts = np.ones((), np.float32)
    for axis, size in enumerate(x.shape[2:]):
        low, high = window.pads[axis]
        valid = (-low, size + high) if count_include_pad else (0, size)
        starts = np.arange(sums.shape[2 + axis])[:, None] * window.strides[axis] - low
        taps = starts + np.arange(window.sizes[axis]) * window.dilations[axis]
        inside = ((taps >= valid[0]) & (taps < valid[1])).sum(1).astype(np.float32)
        counts = counts[..., None] * inside
    # Per axis, not per pixel and channel: a count of ones over the image would be one more image.
    small = counts.flat[:1].reshape((1,) * counts.ndim) if np.ptp(counts) == 0 else counts
    return sums / small[None, None]


def lp_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    p: int = 2,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Value:
    """The p-norm of what each window holds."""
    window = _window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return window.reduced(jnp.abs(x) ** p, 0.0, lax.add) ** (1 / p)


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


def _window(
    x: Value,
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil_mode: int = 0,
) -> Window:
    """What a node's attributes come to on [B, C, ...]; steps are 1 where it does not say."""
    ones = (1,) * len(sizes)
    image, steps, spread = x.shape[2:], tuple(strides or ones), tuple(dilations or ones)
    padding = _pads(auto_pad, pads, image, sizes, steps, spread)
    over = [0] * len(sizes)
    if ceil_mode:
        extents = zip(image, sizes, steps, spread, padding, strict=True)
        over = [_overhang(*extent) for extent in extents]
    return Window(tuple(sizes), steps, spread, padding, tuple(over))


def _overhang(size: int, window: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
    """How far the last window hangs over the padding; one that would start in it is left out."""
    reach = dilation * (window - 1) + 1
    whole = size + sum(pads)
    count = -(-(whole - reach) // stride) + 1
    if (count - 1) * stride >= size + pads[0]:
        count -= 1
    return max((count - 1) * stride + reach - whole, 0)


def _pads(
    kind: str,
    given: Sequence[int],
    image: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """Padding before and after each spatial axis."""
    refuse_unless("auto_pad", kind, "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    axes = len(window)
    if kind == "NOTSET":
        both = tuple(given or (0,) * (2 * axes))
        return list(zip(both[:axes], both[axes:], strict=True))
    if kind == "VALID":
        return [(0, 0)] * axes
    reach = [d * (w - 1) + 1 for w, d in zip(window, dilations, strict=True)]
    return list(lax.padtype_to_pads(image, reach, strides, kind.replace("SAME_UPPER", "SAME")))


OPERATORS: dict[str, Operator] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "GlobalAveragePool": _global(jnp.mean),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": _global(jnp.max),
    "LRN": local_response,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
