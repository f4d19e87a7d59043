"""Pooling as PyTorch does it: windows that hang over the edge, and averages to a fixed size."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def max_pool(
    images: Float[Array, "B H W C"], window: int, stride: int, *, ceil: bool = False
) -> Float[Array, "B rows columns C"]:
    """The largest value in each window of a square pool without padding, `stride` <= `window`.

    `ceil`: a last window that hangs over the edge counts too, with what it holds of the image
    (PyTorch's `ceil_mode`); else pixels that fill no window are left out.
    """
    around = [(0, (window - size) % stride if ceil else 0) for size in images.shape[1:3]]
    sides, strides = (window, window), (stride, stride)
    return nnx.max_pool(images, sides, strides, around)  # pyright: ignore[reportArgumentType]


def average_to(images: Float[Array, "B H W C"], size: int) -> Float[Array, "B size size C"]:
    """Averages over size x size bins that cover the image (PyTorch's `AdaptiveAvgPool2d`).

    Bin i of n pixels holds pixels floor(i n / size) to ceil((i + 1) n / size), the end left out:
    bins overlap where `size` does not divide n, and repeat pixels where it is larger. Written as
    slices and means; as a matrix product it would be traced as a layer of the network.
    """
    return _average_along(_average_along(images, 1, size), 2, size)


def channels_first(images: Float[Array, "B H W C"]) -> Float[Array, "B features"]:
    """The images flattened in PyTorch's order: channels, rows, columns."""
    return jnp.transpose(images, (0, 3, 1, 2)).reshape(images.shape[0], -1)


def _average_along(images: Array, axis: int, size: int) -> Array:
    pixels = images.shape[axis]
    if pixels == size:
        return images
    bins = []
    for place in range(size):
        start, end = place * pixels // size, -(-(place + 1) * pixels // size)
        inside = (slice(None),) * axis + (slice(start, end),)
        bins.append(images[inside].mean(axis, keepdims=True))
    return jnp.concatenate(bins, axis)
