"""Sums of products of 8-bit integers on a CPU, by its instructions for bytes.

VNNI and AMX multiply unsigned bytes by signed ones and sum in 32 bits. XLA leaves such a matrix
product to YNNPACK: 200 to 290 GMAC a second and core where float32 has 65 to 75. (Signed by signed
ones have 60 without AMX, and convolutions know these alone.) JAX widens operands of two types
before XLA sees them, so that the product is a primitive here; a convolution is one product with the
image's windows side by side:

    Σ x·w = Σ (x + 128)·w - 128·Σ w    with x + 128 in [0, 255].

Padding is the code 0, so 128 there: a window at the border has all its taps, and Σ w is the same
for all of them. |Σ (x + 128)·w| is at most 255·128·n, less than 2^31 for n <= 2^16 products, as is
what is taken off and what is left: nothing wraps around, whatever the codes and the order are.

Windows of few channels are short runs of bytes, which are slow to copy. `TOGETHER` neighbours in a
row share one run as wide as their windows together, and the kernel stands there once for each,
shifted, with zeros beside it.
"""

from itertools import product as combinations
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import batching, mlir
from jaxtyping import Array, Int8, UInt8

MOST_TERMS = 2**16
TOGETHER = 2
FEW_ROWS = 64
_WIDE = 128  # channels from which on a window's own runs are long enough

_ZERO = 128  # the code 0, as an unsigned byte


def convolves(params: dict[str, Any]) -> bool:
    """Whether `convolve` takes a convolution: one without groups."""
    return params["feature_group_count"] * params["batch_group_count"] == 1


def convolve(
    params: dict[str, Any], image: Int8[Array, "..."], kernel: Int8[Array, "..."]
) -> Array:
    """What `conv_general_dilated` with these parameters gives, in int32."""
    numbers = params["dimension_numbers"]
    pixels = jnp.transpose(image, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    taps = jnp.transpose(kernel, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]))
    spatial = taps.ndim - 2
    sizes = [
        (low + high + (size - 1) * spread + 1 - (window - 1) * dilation - 1) // stride + 1
        for size, window, (low, high), spread, dilation, stride in zip(
            pixels.shape[1:-1],
            taps.shape[:spatial],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            params["window_strides"],
            strict=True,
        )
    ]
    few = taps.shape[spatial - 1] > 1 and pixels.shape[-1] <= _WIDE
    together = min(TOGETHER, sizes[-1]) if few else 1
    columns = _windows(params, _unsigned(pixels), taps.shape[:spatial], sizes, together)
    matrix = _shifted(params, taps, together)
    made = _bytes.bind(columns.reshape(1, -1, matrix.shape[0]), matrix[None])
    made = made.reshape(*columns.shape[:-2], -1, taps.shape[-1])[..., : sizes[-1], :]
    order = [0, spatial + 1, *range(1, spatial + 1)]  # batch, channels, spatial axes
    return jnp.transpose(made, [order[numbers.out_spec.index(axis)] for axis in range(made.ndim)])


def dot_general(left: Int8[Array, "..."], right: Int8[Array, "..."], dimensions: Any) -> Array:
    """What `lax.dot_general` with these dimension numbers gives, in int32."""
    (inner, inner_right), (batch, batch_right) = dimensions
    free = [axis for axis in range(left.ndim) if axis not in (*inner, *batch)]
    free_right = [axis for axis in range(right.ndim) if axis not in (*inner_right, *batch_right)]
    rows = jnp.transpose(left, (*batch, *free, *inner))
    columns = jnp.transpose(right, (*batch_right, *inner_right, *free_right))
    shape = (
        *rows.shape[: len(batch) + len(free)],
        *columns.shape[len(batch) + len(inner) :],
    )
    groups, terms = (prod(left.shape[axis] for axis in axes) for axes in (batch, inner))
    rows, columns = rows.reshape(groups, -1, terms), columns.reshape(groups, terms, -1)
    return _bytes.bind(_unsigned(rows), columns).reshape(shape)


def _unsigned(codes: Int8[Array, "..."]) -> UInt8[Array, "..."]:
    """x + 128: the sign bit turned over."""
    return lax.bitcast_convert_type(codes, jnp.uint8) ^ jnp.uint8(_ZERO)


def _windows(
    params: dict[str, Any],
    pixels: UInt8[Array, "..."],
    window: tuple[int, ...],
    sizes: list[int],
    together: int,
) -> UInt8[Array, "..."]:
    """Windows [batch, *places, window's pixels], `together` neighbours of the last axis in one, of
    pixels [batch, *spatial, channels]."""
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    channels = pixels.shape[-1]
    step, span = together * strides[-1], _span(params, window[-1], together)
    blocks, steps = -(-sizes[-1] // together), -(-span // step)
    padding = [
        (low, high, spread - 1)
        for (low, high), spread in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    low, _, between = padding[-1]
    extent = (pixels.shape[-2] - 1) * (between + 1) + 1
    padding[-1] = low, (blocks + steps - 1) * step - low - extent, between
    padded = lax.pad(pixels, np.uint8(_ZERO), [(0, 0, 0), *padding, (0, 0, 0)])
    runs = padded.reshape(*padded.shape[:-2], -1)  # the last spatial axis, channels within
    parts = []
    for tap in combinations(*map(range, window[:-1])):
        starts = [at * dilation for at, dilation in zip(tap, dilations, strict=False)]
        rows = [
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sizes, strides, strict=False)
        ]
        for first in range(0, span, step):
            part = runs[:, *rows, first * channels : (first + blocks * step) * channels]
            part = part.reshape(*part.shape[:-1], blocks, step * channels)
            parts.append(part[..., : min(step, span - first) * channels])
    return lax.concatenate(parts, pixels.ndim - 1)


def _shifted(
    params: dict[str, Any], taps: Int8[Array, "..."], together: int
) -> Int8[Array, "terms outputs"]:
    """The kernel [*window, channels, outputs] once for each of the windows that share a run."""
    stride, dilation = params["window_strides"][-1], params["rhs_dilation"][-1]
    axis, outputs = taps.ndim - 3, taps.shape[-1]
    span, extent = _span(params, taps.shape[axis], together), _span(params, taps.shape[axis], 1)
    each = [
        lax.pad(
            taps,
            np.int8(0),
            [
                (at * stride, span - extent - at * stride, dilation - 1) if n == axis else (0, 0, 0)
                for n in range(taps.ndim)
            ],
        )
        for at in range(together)
    ]
    return jnp.stack(each, -2).reshape(-1, together * outputs)


def _span(params: dict[str, Any], window: int, together: int) -> int:
    """Pixels that neighbouring windows cover in the last axis."""
    covered = (window - 1) * params["rhs_dilation"][-1] + 1
    return covered + (together - 1) * params["window_strides"][-1]


#: x + 128 [G, M, K] unsigned by w [G, K, N] signed -> Σ x·w, int32 [G, M, N].
_bytes = core.Primitive("afpjax_bytes")
#: Unsigned by signed, as XLA is told it: [M, K] by [K, N], or with a leading axis for both.
_as_told = core.Primitive("afpjax_bytes_as_told")


@_bytes.def_abstract_eval
@_as_told.def_abstract_eval
def _shape(left: Any, right: Any) -> Any:
    return left.update(shape=(*left.shape[:-1], right.shape[-1]), dtype=np.dtype(np.int32))


def _tell(left: Array, right: Array) -> Array:
    """128·Σ w of each column is what one more row of products gives, faster than a sum of bytes.

    Few rows take it among them, as the product of a row alone reads the kernel once more.
    """
    groups, rows, terms = left.shape
    zeros = jnp.full((groups, 8 if rows > FEW_ROWS else 1, terms), _ZERO, jnp.uint8)
    if rows > FEW_ROWS:
        return _product(left, right) - _product(zeros, right)[:, :1]
    made = _product(jnp.concatenate([left, zeros], 1), right)
    return made[:, :rows] - made[:, rows:]


def _product(left: Array, right: Array) -> Array:
    if left.shape[0] > 1:
        return _as_told.bind(left, right)
    return _as_told.bind(left[0], right[0])[None]


def _tell_xla(context: Any, left: Any, right: Any) -> Any:
    (made,), grouped = context.avals_out, len(context.avals_out[0].shape) - 2
    numbers = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=[*range(grouped)],
        rhs_batching_dimensions=[*range(grouped)],
        lhs_contracting_dimensions=[1 + grouped],
        rhs_contracting_dimensions=[grouped],
    )
    kind = ir.RankedTensorType.get(made.shape, mlir.dtype_to_ir_type(made.dtype))
    return [stablehlo.dot_general(kind, left, right, numbers)]


def _batched(operands: Any, axes: Any) -> tuple[Array, int]:
    """Images more are rows more, kernels more are columns more, and both are groups more."""
    (left, right), (of_left, of_right) = operands, axes
    if of_right is None:
        left = jnp.moveaxis(left, of_left, 1)
        groups, count, rows, terms = left.shape
        made = _bytes.bind(left.reshape(groups, count * rows, terms), right)
        return made.reshape(groups, count, rows, -1), 1
    if of_left is None:
        right = jnp.moveaxis(right, of_right, 2)
        groups, terms, count, columns = right.shape
        made = _bytes.bind(left, right.reshape(groups, terms, count * columns))
        return made.reshape(groups, -1, count, columns), 2
    left, right = jnp.moveaxis(left, of_left, 0), jnp.moveaxis(right, of_right, 0)
    made = _bytes.bind(*(each.reshape(-1, *each.shape[2:]) for each in (left, right)))
    return made.reshape(*left.shape[:2], *made.shape[1:]), 0


_bytes.def_impl(jax.jit(_bytes.bind))
batching.primitive_batchers[_bytes] = _batched
mlir.register_lowering(_bytes, mlir.lower_fun(_tell, multiple_results=False))
mlir.register_lowering(_as_told, _tell_xla)
