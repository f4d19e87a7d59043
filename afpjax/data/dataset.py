"""Labelled images: built-in digits, `.npz`, CIFAR-10, Tiny-ImageNet and ImageNet folders.

`load` says what there is and how it is framed; a `Split` reads the images that are taken from it,
and `normalise` alone makes floats of them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8
from PIL import Image

from afpjax.config.sections import Data
from afpjax.data.image_arrays import cifar10, digits, in_memory, measured, npz
from afpjax.data.image_files import folders, in_files, tiny_imagenet
from afpjax.data.images import Frame, Images, Split
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import ImageSize, rows_columns, words

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

# As the users of these sets know them; published networks were trained with these very numbers.
_IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GREY: Normalisation = ((0.449,), (0.226,))  # the means of those three
_CIFAR10: Normalisation = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


class Preset(NamedTuple):
    """How a published network wants its photographs."""

    resize: int  # shorter side after resizing, pixels
    crop: int  # side of the square cut from its centre, the network's own image size
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]


class Dataset(NamedTuple):
    """What `load` gives; `train` is None where the data set has no training images."""

    train: Split | None
    test: Split
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]


def load(
    data: Data,
    *,
    image_size: ImageSize,
    classes: int,
    channels: int = 3,
    preset: Preset | None = None,
) -> Dataset:
    """Find a data set's images and check their labels; photographs are opened when taken.

    Every image comes as uint8 [rows, columns, channels], of `image_size`: its shorter side becomes
    `data.resize` pixels, then that size is cut from its centre. `data.images` keeps the first test
    images; class folders give one image of each class after the other, so that the first ones
    hold all classes alike. What `data` leaves open is the preset's where its crop is `image_size`
    (its mean and standard deviation where they have as many channels); else the images are
    resized to the least that covers `image_size`, and mean and standard deviation are the published
    ones (CIFAR-10's, ImageNet's for all folders) or measured on the training images, where there
    are any (digits, npz). Raises `InputError` for what is missing or does not fit together.
    """
    if data.name != "digits" and not data.path:
        raise InputError(f"data.path: say where the `{data.name}` data set lies")
    if data.train_path and data.name != "npz":
        raise InputError(f"data.train_path: only for data.name = npz, not for `{data.name}`")
    if preset is not None and preset.crop != image_size:
        preset = None
    frame = _frame(data, image_size, channels, preset)
    arrays = data.name in ("digits", "npz", "cifar10")
    train, test, own = (_from_arrays if arrays else _from_files)(data, frame, classes)
    return Dataset(train, test, *_normalisation(data, preset, own, channels))


def normalise(
    images: UInt8[Array, "N H W C"] | UInt8[np.ndarray, "N H W C"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[Array, "N H W C"]:
    """What a network reads: (images / 255 - mean) / std, with mean and std per channel."""
    shift, scale = (jnp.asarray(a, jnp.float32)[None, None, None] for a in (mean, std))
    return (jnp.asarray(images).astype(jnp.float32) / 255 - shift) / scale


#: Training images, test images, and how to get the set's own mean and standard deviation.
_Splits = tuple[Split | None, Split, Callable[[], Normalisation]]


def _from_arrays(data: Data, frame: Frame, classes: int) -> _Splits:
    train, test = _arrays(data, classes=classes, channels=frame.channels)
    all_images = (test if train is None else train).images
    return (
        train and in_memory(train, frame),
        in_memory(test.first(data.images or None), frame),
        lambda: _CIFAR10 if data.name == "cifar10" else measured(all_images),
    )


def _arrays(data: Data, **reads: int) -> tuple[Images | None, Images]:
    if data.name == "cifar10":
        return cifar10(Path(data.path), **reads)
    if data.name == "digits":
        return digits(**reads)
    test = npz(Path(data.path), "data.path", **reads)
    train = npz(Path(data.train_path), "data.train_path", **reads) if data.train_path else None
    return train, test


def _from_files(data: Data, frame: Frame, classes: int) -> _Splits:
    find = tiny_imagenet if data.name == "tiny-imagenet" else folders
    train, test = find(Path(data.path))
    options = {"classes": classes, "skip": data.corrupt == "skip"}
    return (
        train and in_files(train, frame, **options),
        in_files(test._replace(files=test.files[: data.images or None]), frame, **options),
        lambda: _IMAGENET if frame.channels == 3 else _GREY,
    )


def _frame(data: Data, image_size: ImageSize, channels: int, preset: Preset | None) -> Frame:
    crop = data.crop or image_size
    # Of a square, the least that covers it is known before any image is.
    fitting = image_size if isinstance(image_size, int) else 0
    resize = data.resize or (fitting if preset is None else preset.resize)
    if crop != image_size:
        raise InputError(
            f"data.crop: {words(crop)} is not model.image_size, {words(image_size)}; set both alike"
        )
    shorter = min(rows_columns(crop))
    if 0 < resize < shorter:
        raise InputError(
            f"data.resize: {resize} is smaller than the {shorter} pixels to cut from it; leave it "
            "out"
        )
    # The digits are enlarged, photographs shrunk as torchvision's networks expect.
    kind = "BICUBIC" if data.name == "digits" else "BILINEAR"
    return Frame(resize, image_size, channels, Image.Resampling[kind])


def _normalisation(
    data: Data, preset: Preset | None, own: Callable[[], Normalisation], channels: int
) -> Normalisation:
    mean, std = data.mean, data.std
    if not (mean and std):
        if preset is not None and len(preset.mean) == channels:
            fallback = preset.mean, preset.std
        else:
            fallback = own()
        mean, std = mean or fallback[0], std or fallback[1]
    return _per_channel("data.mean", mean, channels), _per_channel("data.std", std, channels)


def normalisation_of(
    images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> Normalisation:
    """Mean and standard deviation per channel of images in memory, of values in [0, 1].

    Of bytes, what is said, or else measured on them. What a network reads as it is (float or
    integers) is as bytes would be that stay from 0 to 255.
    """
    channels = images.shape[-1] if images.ndim > 1 else 1
    if images.dtype != np.uint8:
        return (0.0,) * channels, (1 / 255,) * channels
    own = measured(images) if not (mean and std) else ((), ())
    return (
        _per_channel("mean", mean or own[0], channels),
        _per_channel("std", std or own[1], channels),
    )


def _per_channel(setting: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise InputError(f"{setting}: {len(values)} values for images of {channels} channels")
    return tuple(values) * (channels if len(values) == 1 else 1)
