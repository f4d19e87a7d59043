"""Data sets that are arrays: digits, `.npz`, CIFAR-10's binary files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from afpjax.data.images import Frame, Images, Split
from afpjax.inputs.array_files import read_npz
from afpjax.inputs.checks import class_numbers
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import Kind, read_bytes
from afpjax.inputs.image_size import image_size

_RECORD = 1 + 3 * 32 * 32  # bytes of one CIFAR-10 image: its label, then red, green and blue
_BATCH = Kind("batch of CIFAR-10", 2**30)


def digits(*, classes: int, channels: int) -> tuple[Images, Images]:
    """scikit-learn's 1,797 grey 8x8 digits, 1,000 to train and 797 to test, stratified."""
    from sklearn.datasets import load_digits  # takes a second: only who wants digits waits
    from sklearn.model_selection import train_test_split

    values, labels = map(np.asarray, load_digits(return_X_y=True))
    images = np.rint(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    images, labels = _checked(images, labels, "data.name: digits", classes, channels)
    split = train_test_split(images, labels, test_size=797, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(np.asarray, split)
    return Images(train_images, train_labels), Images(test_images, test_labels)


def npz(path: Path, setting: str, *, classes: int, channels: int) -> Images:
    """`images` and `labels` of an `.npz` file, all of them.

    Raises `InputError`, opened by `setting`, for arrays of the wrong kind, shape or range.
    """
    arrays = read_npz(path, setting, ("images", "labels"))
    images = arrays["images"]
    labels = class_numbers(arrays["labels"], classes, f"{setting}: {path}: labels")
    problems = (
        (images.dtype != np.uint8, f"images are {images.dtype}; save them as uint8, 0 to 255"),
        (images.ndim != 4, f"images have shape {images.shape}; needed is [N, rows, columns, C]"),
        (0 in images.shape[1:], f"images have shape {images.shape}; none may be empty"),
        (len(labels) == 0, "there are no images in it"),
        (
            images.shape[:1] != labels.shape,
            f"{' '.join(map(str, images.shape[:1]))} images but {len(labels)} labels",
        ),
    )
    for wrong, message in problems:
        if wrong:
            raise InputError(f"{setting}: {path}: {message}")
    return _checked(images, labels, f"{setting}: {path}", classes, channels)


def cifar10(path: Path, *, classes: int, channels: int) -> tuple[Images | None, Images]:
    """CIFAR-10's binary version: `data_batch_*.bin` where there are any, and `test_batch.bin`.

    Raises `InputError` for a file that is missing, cut short or holds other labels.
    """
    inner = path / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else path
    files = [*sorted(folder.glob("data_batch_*.bin")), folder / "test_batch.bin"]
    *train, test = (
        _checked(*_records(file), f"data.path: {file}", classes, channels) for file in files
    )
    return Images(*map(np.concatenate, zip(*train, strict=True))) if train else None, test


def _records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = np.frombuffer(read_bytes(path, "data.path", _BATCH), np.uint8)
    if content.size == 0 or content.size % _RECORD:
        raise InputError(
            f"data.path: {path} has {content.size} bytes, no multiple of {_RECORD}; "
            "needed is the binary version of CIFAR-10, whole"
        )
    records = content.reshape(-1, _RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0]


def _checked(
    images: np.ndarray, labels: np.ndarray, where: str, classes: int, channels: int
) -> Images:
    """Images that a network of so many classes and channels can read; grey fills all channels."""
    if images.shape[3] not in (1, channels):
        raise InputError(
            f"{where}: images have {images.shape[3]} channels, the network reads {channels}"
        )
    return Images(images, class_numbers(labels, classes, f"{where}: labels"))


def in_memory(arrays: Images, frame: Frame | None = None) -> Split:
    """Images in memory as a split; without a frame, as they are.

    Raises `InputError` where they are too small for the frame.
    """
    rows, columns, channels = arrays.images.shape[1:]
    if frame is None:
        size = image_size(rows, columns)
        frame = Frame(min(rows, columns), size, channels, Image.Resampling.BILINEAR)
    resized = frame.resized(columns, rows)
    ready = arrays.images.shape[1:] == frame.shape and resized == (columns, rows)

    def image(index: int) -> UInt8[np.ndarray, "rows columns channels"]:
        return arrays.images[index] if ready else _framed(arrays.images[index], frame)

    def stamp() -> Iterator[bytes | memoryview]:
        yield f"({frame.stamp}, {arrays.images.shape})".encode()
        yield np.ascontiguousarray(arrays.images).data

    return Split(arrays.labels, frame.shape, image, stamp, parallel=not ready)


def _framed(pixels: UInt8[np.ndarray, "H W C"], frame: Frame) -> UInt8[np.ndarray, "R S c"]:
    """Channel by channel, since Pillow has no images of two; grey fills all channels."""
    planes = [frame.cut(Image.fromarray(plane)) for plane in np.moveaxis(pixels, 2, 0)]
    return np.broadcast_to(np.stack(planes, axis=-1), frame.shape)


def measured(
    images: UInt8[np.ndarray, "N H W C"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
