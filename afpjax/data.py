"""Labelled images: built-in digits, `.npz`, CIFAR-10, Tiny-ImageNet and ImageNet folders.

Images stay uint8, NHWC, from the disk to the device; `normalise` alone makes floats of them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8
from PIL import Image

from afpjax.errors import InputError
from afpjax.files import read_npz, refuse_pointer
from afpjax.image_folders import SUFFIXES, Tree, decoded, folders, tiny_imagenet
from afpjax.sections import Data

#: Told after each image that was read: how many are done, and of how many.
Progress = Callable[[int, int], Any]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

# As the users of these sets know them; published networks were trained with these very numbers.
_IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GREY: Normalisation = ((0.449,), (0.226,))  # the means of those three
_CIFAR10: Normalisation = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_RECORD = 1 + 3 * 32 * 32  # bytes of one CIFAR-10 image: its label, then red, green and blue


class Images(NamedTuple):
    """Images with their class numbers, which count from 0."""

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int32[np.ndarray, " N"]


class Dataset(NamedTuple):
    """What `load` gives; `train` is None where the data set has no training images."""

    train: Images | None
    test: Images
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]


class _Source(NamedTuple):
    """A split before it is read: its labels, and how to get the image of an index, [H, W, C]."""

    labels: Int32[np.ndarray, " N"]
    image: Callable[[int], UInt8[np.ndarray, "H W C"]]


class _Frame(NamedTuple):
    """How any image comes to be [side, side, channels]."""

    resize: int  # shorter side after resizing
    side: int
    channels: int
    filter: Image.Resampling


def load(
    data: Data,
    *,
    image_size: int,
    classes: int,
    channels: int = 3,
    train_images: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Dataset:
    """Read a data set: every image uint8 [image_size, image_size, channels].

    The shorter side becomes `data.resize` pixels (0: `image_size`), then a square is cut from the
    centre. `data.images` keeps the first test images and `train_images` the first training images;
    folders are read one image of each class after the other, so that the first ones hold all
    classes alike. `progress(done, total)` is called after each image. Mean and std are `data`'s,
    else the published ones (CIFAR-10's, ImageNet's for all folders), else measured (digits, npz).
    Raises `InputError` for what is missing, unreadable or does not fit together.
    """
    if data.name != "digits" and not data.path:
        raise InputError(f"data.path: say where the `{data.name}` data set lies")
    frame = _frame(data, image_size, channels)
    train, test, own = _sources(data.name, Path(data.path), classes, channels)
    mean = _per_channel("data.mean", data.mean or own[0], channels)
    std = _per_channel("data.std", data.std or own[1], channels)
    wanted = [
        source if limit is None else source._replace(labels=source.labels[:limit])
        for source, limit in ((train, train_images), (test, data.images or None))
        if source is not None
    ]
    read = _read(wanted, frame, progress)
    return Dataset(read[0] if train is not None else None, read[-1], mean, std)


def normalise(
    images: UInt8[Array, "N H W C"] | UInt8[np.ndarray, "N H W C"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[Array, "N H W C"]:
    """What a network reads: (images / 255 - mean) / std, with mean and std per channel."""
    shift, scale = (jnp.asarray(each, jnp.float32)[None, None, None] for each in (mean, std))
    return (jnp.asarray(images).astype(jnp.float32) / 255 - shift) / scale


def _sources(
    name: str, path: Path, classes: int, channels: int
) -> tuple[_Source | None, _Source, Normalisation]:
    """The training and test split of a data set, and its own mean and standard deviation."""
    if name in ("digits", "npz"):
        train, test = _digits() if name == "digits" else (None, _npz(path))
        own = _measured((test if train is None else train).images)
    elif name == "cifar10":
        (train, test), own = _cifar10(path), _CIFAR10
    else:
        trees = tiny_imagenet(path) if name == "tiny-imagenet" else folders(path)
        train, test = (tree and _from_files(tree, path, classes, channels) for tree in trees)
        assert test is not None
        return train, test, _IMAGENET if channels == 3 else _GREY
    where = name if name == "digits" else f"data.path: {path}"
    train = train and _from_arrays(train, classes, channels, where)
    return train, _from_arrays(test, classes, channels, where), own


def _digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits  # takes a second: only who wants digits waits
    from sklearn.model_selection import train_test_split

    values, labels = map(np.asarray, load_digits(return_X_y=True))
    images = np.rint(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    split = train_test_split(images, labels, test_size=797, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(np.asarray, split)
    return Images(train_images, train_labels), Images(test_images, test_labels)


def _npz(path: Path) -> Images:
    arrays = read_npz(path, "data.path", ("images", "labels"))
    images, labels = arrays["images"], arrays["labels"]
    problems = (
        (images.dtype != np.uint8, f"images are {images.dtype}; save them as uint8, 0 to 255"),
        (images.ndim != 4, f"images have shape {images.shape}; needed is [N, rows, columns, C]"),
        (labels.dtype.kind not in "iu", f"labels are {labels.dtype}; save them as integers"),
        (labels.ndim != 1, f"labels have shape {labels.shape}; needed is [N]"),
        (len(labels) == 0, "there are no images in it"),
        (len(images) != len(labels), f"{len(images)} images but {len(labels)} labels"),
    )
    for wrong, message in problems:
        if wrong:
            raise InputError(f"data.path: {path}: {message}")
    return Images(images, labels)


def _cifar10(path: Path) -> tuple[Images | None, Images]:
    inner = path / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else path
    train = [_cifar10_records(file) for file in sorted(folder.glob("data_batch_*.bin"))]
    test = _cifar10_records(folder / "test_batch.bin")
    return Images(*map(np.concatenate, zip(*train, strict=True))) if train else None, test


def _cifar10_records(path: Path) -> Images:
    refuse_pointer(path, "data.path")
    found = np.fromfile(path, np.uint8)
    if found.size == 0 or found.size % _RECORD:
        raise InputError(
            f"data.path: {path} has {found.size} bytes, no multiple of {_RECORD}; "
            "needed is the binary version of CIFAR-10, whole"
        )
    records = found.reshape(-1, _RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Images(images, records[:, 0].astype(np.int32))


def _from_arrays(split: Images, classes: int, channels: int, where: str) -> _Source:
    found = split.images.shape[3]
    if found not in (1, channels):
        raise InputError(f"{where}: images have {found} channels, the network reads {channels}")
    least, most = int(split.labels.min()), int(split.labels.max())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise InputError(f"{where}: label {wrong} is not in 0..{classes - 1}; set model.classes")
    return _Source(split.labels.astype(np.int32), split.images.__getitem__)


def _from_files(tree: Tree, root: Path, classes: int, channels: int) -> _Source:
    if len(tree.classes) != classes:
        raise InputError(
            f"data.path: {root} has {len(tree.classes)} classes but model.classes is {classes}"
        )
    if not tree.files:
        raise InputError(f"data.path: no images in {root} ({', '.join(sorted(SUFFIXES))})")
    if channels not in (1, 3):
        raise InputError(f"data.path: photographs have 1 or 3 channels, the network {channels}")
    labels, paths = zip(*tree.files, strict=True)
    mode = "RGB" if channels == 3 else "L"
    return _Source(np.asarray(labels, np.int32), lambda index: decoded(paths[index], mode))


def _frame(data: Data, image_size: int, channels: int) -> _Frame:
    resize, crop = data.resize or image_size, data.crop or image_size
    if crop != image_size:
        raise InputError(f"data.crop: {crop} is not model.image_size, {image_size}; set both alike")
    if resize < crop:
        raise InputError(f"data.resize: {resize} is smaller than the {crop} pixels to cut from it")
    # The digits are enlarged, photographs shrunk as torchvision's networks expect.
    kind = "BICUBIC" if data.name == "digits" else "BILINEAR"
    return _Frame(resize, crop, channels, Image.Resampling[kind])


def _read(sources: Sequence[_Source], frame: _Frame, progress: Progress) -> list[Images]:
    """All images of the sources in one frame, read by as many threads as there are cores."""
    jobs = [(split, index) for split, s in enumerate(sources) for index in range(len(s.labels))]
    shape = (frame.side, frame.side, frame.channels)
    made = [np.empty((len(source.labels), *shape), np.uint8) for source in sources]

    def read(job: tuple[int, int]) -> None:
        split, index = job
        made[split][index] = _framed(sources[split].image(index), frame)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(read, jobs), start=1):
            progress(done, len(jobs))
    return [Images(each, source.labels) for each, source in zip(made, sources, strict=True)]


def _framed(pixels: UInt8[np.ndarray, "H W C"], frame: _Frame) -> UInt8[np.ndarray, "S S c"]:
    """Resize the shorter side and cut the centre, channel by channel; grey fills all channels."""
    rows, columns = pixels.shape[:2]
    short = min(rows, columns)
    size = (columns * frame.resize // short, rows * frame.resize // short)
    left, top = (round((each - frame.side) / 2) for each in size)
    box = (left, top, left + frame.side, top + frame.side)
    planes = [Image.fromarray(plane) for plane in np.moveaxis(pixels, 2, 0)]
    cut = [np.asarray(plane.resize(size, frame.filter).crop(box)) for plane in planes]
    return np.broadcast_to(np.stack(cut, axis=-1), (frame.side, frame.side, frame.channels))


def _measured(images: UInt8[np.ndarray, "N H W C"]) -> Normalisation:
    """Mean and standard deviation per channel, of values in [0, 1]; the latter is 1/255 or more."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[3]):
        # Image by image: bincount holds eight bytes per pixel.
        counts = sum(np.bincount(i[..., channel].ravel(), minlength=256) for i in images)
        share = counts / np.sum(counts)
        mean.append(float(share @ levels))
        std.append(max(float(np.sqrt(share @ (levels - mean[-1]) ** 2)), 1 / 255))
    return tuple(mean), tuple(std)


def _per_channel(setting: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise InputError(f"{setting}: {len(values)} values for images of {channels} channels")
    return tuple(values) * (channels if len(values) == 1 else 1)
