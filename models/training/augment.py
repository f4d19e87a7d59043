"""Augmentation: what a training image may look like besides what it is. On the device, per image.

A random part holds 35 to 100 % of an image's area. The 8 % that torchvision takes by default are
made for 90 epochs and more of ImageNet, cut from whole photographs; here images were already cut to
the network's size and 20 epochs are the default, in which a network does not get over labels that
no longer fit what is seen (short ImageNet recipes take 25 to 35 %).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, PRNGKeyArray, UInt8

_SHIFT = 8  # images are moved by up to their size over this
_AREA = (0.35, 1.0)  # of a random part, as a share of the image's
_ASPECT = (3 / 4, 4 / 3)  # width over height of a random part


def augmented(
    kind: str, key: PRNGKeyArray, images: UInt8[Array, "B H W C"]
) -> UInt8[Array, "B H W C"]:
    """Images as one step of training sees them; each image has its own draw from `key`.

    `kind` is `train.augmentation`: "none"; "shift", moved by up to an eighth of the size;
    "shift-flip", also mirrored with probability 1/2; "crop-flip", a random part enlarged to the
    whole size (Szegedy et al. 2015, arXiv 1409.4842, section 6), and mirrored likewise.
    """
    if kind == "none":
        return images
    if kind == "shift":
        return shifted(key, images)
    place, side = jax.random.split(key)
    moved = {"shift-flip": shifted, "crop-flip": cropped}[kind]
    return mirrored(moved(place, images), jax.random.bernoulli(side, 0.5, (len(images),)))


def shifted(key: PRNGKeyArray, images: UInt8[Array, "B H W C"]) -> UInt8[Array, "B H W C"]:
    """Each image moved by its own draw of rows and columns; black comes in at the edges."""
    down, across = (side // _SHIFT for side in images.shape[1:3])
    wide = jnp.pad(images, ((0, 0), (down, down), (across, across), (0, 0)))
    ends = jnp.asarray([[2 * down + 1, 2 * across + 1]])
    corners = jax.random.randint(key, (len(images), 2), 0, ends)

    def cut(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(cut)(wide, corners)


def mirrored(images: UInt8[Array, "B H W C"], which: Bool[Array, " B"]) -> UInt8[Array, "B H W C"]:
    """Left and right exchanged in the images that `which` names."""
    return jnp.where(which[:, None, None, None], images[:, :, ::-1], images)


def cropped(key: PRNGKeyArray, images: UInt8[Array, "B H W C"]) -> UInt8[Array, "B H W C"]:
    """Each image's own random part, enlarged to the whole size."""
    return resampled(images, boxes(key, len(images), images.shape[1], images.shape[2]))


def boxes(key: PRNGKeyArray, count: int, rows: int, columns: int) -> Float32[Array, "B 4"]:
    """Random parts of an image, in pixels: top, left, height, width.

    Area uniform and the logarithm of the aspect ratio uniform, both within this module's limits; a
    side that would be longer than the image's is cut to it.
    """
    for_area, for_aspect, for_place = jax.random.split(key, 3)
    area = jax.random.uniform(for_area, (count,), minval=_AREA[0], maxval=_AREA[1])
    low, high = jnp.log(jnp.float32(_ASPECT[0])), jnp.log(jnp.float32(_ASPECT[1]))
    aspect = jnp.exp(jax.random.uniform(for_aspect, (count,), minval=low, maxval=high))
    height = jnp.minimum(jnp.sqrt(area * (rows * columns) / aspect), rows)
    width = jnp.minimum(jnp.sqrt(area * (rows * columns) * aspect), columns)
    share = jax.random.uniform(for_place, (count, 2))
    top, left = share[:, 0] * (rows - height), share[:, 1] * (columns - width)
    return jnp.stack([top, left, height, width], axis=1)


def resampled(
    images: UInt8[Array, "B H W C"], parts: Float32[Array, "B 4"]
) -> UInt8[Array, "B H W C"]:
    """Parts of images (`boxes`) enlarged to the images' size: bilinear, rounded to whole levels."""

    def one(image: Array, part: Array) -> Array:
        down = _weights(part[0], part[2], image.shape[0])
        across = _weights(part[1], part[3], image.shape[1])
        exact = lax.Precision.HIGHEST  # not TF32, whose error is a level
        values = image.astype(jnp.float32)
        made = jnp.einsum("ij,kl,jlc->ikc", down, across, values, precision=exact)
        return jnp.round(made).astype(jnp.uint8)

    return jax.vmap(one)(images, parts)


def _weights(start: Array, length: Array, size: int) -> Float32[Array, "out in"]:
    """Each output pixel's share of each input pixel along one axis (centres at halves)."""
    pixels = jnp.arange(size, dtype=jnp.float32)
    centres = jnp.clip(start + (pixels + 0.5) * (length / size) - 0.5, 0, size - 1)
    return jnp.maximum(1 - jnp.abs(centres[:, None] - pixels[None]), 0)
