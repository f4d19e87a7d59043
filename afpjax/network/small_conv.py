"""A convolution over an image smaller than its window, as one matrix product.

Deep layers of a network on small images convolve 2x2 pixels with 3x3 windows: most taps meet
padding. The dense matrix of such a convolution has fewer entries than the convolution has
multiply-accumulates per image, and two CPU cores run it 10 times faster (128 images of
2x2x64, kernel 3x3x64x64: 2.63 against 0.24 ms). The sums are the same, so integers stay exact.
"""

from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array


def fits(params: dict[str, Any], image: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether an ungrouped convolution's image has fewer pixels than its window."""
    numbers = params["dimension_numbers"]
    pixels = prod(image[axis] for axis in numbers.lhs_spec[2:])
    window = prod(kernel[axis] for axis in numbers.rhs_spec[2:])
    groups = params["feature_group_count"] * params["batch_group_count"]
    return groups == 1 and pixels < window


def convolve(params: dict[str, Any], image: Array, kernel: Array, output: tuple[int, ...]) -> Array:
    """What `conv_general_dilated` with these parameters gives, an array of shape `output`."""
    numbers = params["dimension_numbers"]
    pixels = [image.shape[axis] for axis in numbers.lhs_spec[2:]]
    sizes = [output[axis] for axis in numbers.out_spec[2:]]
    matrix = _dense(params, kernel, pixels, sizes)
    rows = jnp.transpose(image, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    flat = lax.dot(
        rows.reshape(rows.shape[0], -1),
        matrix,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=image.dtype,
    )
    made = flat.reshape(rows.shape[0], *sizes, -1)  # batch, spatial axes, channels
    order = [0, len(sizes) + 1, *range(1, len(sizes) + 1)]  # batch, channels, spatial axes
    return jnp.transpose(made, [order[numbers.out_spec.index(axis)] for axis in range(made.ndim)])


def _dense(params: dict[str, Any], kernel: Array, pixels: list[int], sizes: list[int]) -> Array:
    """The matrix [pixels x channels in, pixels x channels out]; zero where no tap connects two."""
    numbers = params["dimension_numbers"]
    spatial = len(pixels)
    taps = jnp.transpose(kernel, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]))
    taps = jnp.pad(taps, [(0, 1)] * spatial + [(0, 0)] * 2)  # index -1: no tap, zero
    for axis in range(spatial):
        index = _taps(
            params, axis, pixels[axis], sizes[axis], kernel.shape[numbers.rhs_spec[2 + axis]]
        )
        taps = jnp.take(taps, index.reshape(-1), axis=axis)
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
