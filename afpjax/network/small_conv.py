"""A convolution over an image smaller than its window, as one matrix product.

Deep layers of a network on small images convolve 2x2 pixels with 3x3 windows: most taps meet
padding. The dense matrix of such a convolution has fewer entries than the convolution has
multiply-accumulates per image, and two CPU cores run it 10 times faster (128 images of
2x2x64, kernel 3x3x64x64: 2.63 against 0.24 ms). The sums are the same, so integers stay exact.
Where some pixel meets some place of the output with no tap, the matrix would hold a zero and turn
a faulty activation's infinity to NaN where the convolution never looks: such a one stays as it is.
"""

from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from afpjax.network.layers import Layer
from afpjax.network.units import bind

#: A product of two matrices.
_PRODUCT = {"dimension_numbers": (((1,), (0,)), ((), ())), "out_sharding": None}


def fits(params: dict[str, Any], layer: Layer) -> bool:
    """Whether an ungrouped convolution's image has fewer pixels than its window, all of which meet
    every place of the output."""
    pixels, sizes = _extents(params, layer)
    groups = params["feature_group_count"] * params["batch_group_count"]
    if groups > 1 or prod(pixels) >= prod(layer.window):
        return False
    return all(
        (_taps(params, axis, *extents) < extents[-1]).all()
        for axis, extents in enumerate(zip(pixels, sizes, layer.window, strict=True))
    )


def convolve(params: dict[str, Any], layer: Layer, image: Array, kernel: Array) -> Array:
    """What `conv_general_dilated` with these parameters gives, where `fits` says so."""
    numbers = params["dimension_numbers"]
    pixels, sizes = _extents(params, layer)
    matrix = _dense(params, kernel, pixels, sizes, layer.window)
    rows = jnp.transpose(image, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    flat = bind(lax.dot_general_p, _PRODUCT, rows.reshape(rows.shape[0], -1), matrix)
    made = flat.reshape(rows.shape[0], *sizes, -1)  # batch, spatial axes, channels
    order = [0, len(sizes) + 1, *range(1, len(sizes) + 1)]  # batch, channels, spatial axes
    return jnp.transpose(made, [order[numbers.out_spec.index(axis)] for axis in range(made.ndim)])


def _extents(params: dict[str, Any], layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pixels of the image and of the output, per spatial axis."""
    axes = params["dimension_numbers"].lhs_spec[2:]
    return tuple(layer.input_shape[axis] for axis in axes), layer.output_size


def _dense(
    params: dict[str, Any],
    kernel: Array,
    pixels: tuple[int, ...],
    sizes: tuple[int, ...],
    window: tuple[int, ...],
) -> Array:
    """The matrix [pixels x channels in, places x channels out]."""
    numbers, spatial = params["dimension_numbers"], len(pixels)
    taps = jnp.transpose(kernel, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]))
    for axis, extents in enumerate(zip(pixels, sizes, window, strict=True)):
        taps = jnp.take(taps, _taps(params, axis, *extents).reshape(-1), axis=axis)
    apart = [size for pair in zip(pixels, sizes, strict=True) for size in pair]
    taps = taps.reshape(*apart, *taps.shape[spatial:])
    into, out = range(0, 2 * spatial, 2), range(1, 2 * spatial, 2)
    taps = jnp.transpose(taps, (*into, 2 * spatial, *out, 2 * spatial + 1))
    return taps.reshape(prod(pixels) * taps.shape[spatial], -1)


def _taps(params: dict[str, Any], axis: int, pixels: int, size: int, window: int) -> np.ndarray:
    """[pixels, size]: which tap joins an input place to an output place; `window` for none."""
    low, _ = params["padding"][axis]
    # Positions on the input's dilated grid: output o starts at o·stride - low.
    starts = np.arange(size) * params["window_strides"][axis] - low
    places = np.arange(pixels) * params["lhs_dilation"][axis]
    offset = places[:, None] - starts[None, :]
    tap, rest = np.divmod(offset, params["rhs_dilation"][axis])
    return np.where((rest == 0) & (tap >= 0) & (tap < window), tap, window)
