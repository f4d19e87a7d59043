"""Labelled images that are read when they are taken: what all data sets have in common.

Images stay uint8, NHWC, from the disk to the device; arrays that a caller hands over stay as they
are.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Integer, Num, UInt8
from PIL import Image

from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import ImageSize, pixels, rows_columns

#: Told after each image that was read: how many are done, and of how many.
Progress = Callable[[int, int], Any]
_QUEUED = 1024  # reads that wait for a thread
_NAMED = 2  # unreadable images that a warning names; it counts the others


class Images(NamedTuple):
    """Images with their class numbers, which count from 0, in memory."""

    images: UInt8[np.ndarray, "N H W C"] | Num[np.ndarray, "N ..."]  # bytes, or as a network reads
    labels: Int32[np.ndarray, " N"]

    def first(self, count: int | None) -> "Images":
        """The first so many of them, or all."""
        return Images(self.images[:count], self.labels[:count])


class Unreadable(InputError):
    """An image that cannot be read; `name` is short, for a list of them."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class UnreadableWarning(UserWarning):
    """Says which images were left out, and how many."""


class Frame(NamedTuple):
    """How any image comes to be [rows, columns, channels]."""

    resize: int  # shorter side after resizing, pixels; 0: the least that covers `size`
    size: ImageSize
    channels: int
    filter: Image.Resampling

    @property
    def shape(self) -> tuple[int, int, int]:
        return *rows_columns(self.size), self.channels

    @property
    def stamp(self) -> str:
        """What tells it from other frames. Names of trained weights depend on it."""
        return (
            f"Frame(resize={self.resize}, side={self.size}, channels={self.channels}, "
            f"filter={self.filter!r})"
        )

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of such a picture before it is cut, as torchvision has them.

        Raises `InputError` where there is less left than what is to be cut from it.
        """
        rows, columns, _ = self.shape
        short = min(width, height)
        if self.resize:
            new, old = self.resize, short
        else:
            new, old = (rows, height) if width * rows >= height * columns else (columns, width)
        size = (width * new // old, height * new // old)
        if size[0] < columns or size[1] < rows:
            least = max(-(-columns * short // width), -(-rows * short // height))
            raise InputError(
                f"data.resize: {self.resize} makes {size[1]} x {size[0]} pixels of an image of "
                f"{height} x {width}, too few for {pixels(self.size)}; raise it to {least} or "
                "leave it out"
            )
        return size

    def cut(self, picture: Image.Image) -> UInt8[np.ndarray, "rows columns *channels"]:
        """Resize and keep the centre, to the pixel as torchvision does.

        Raises `InputError` as `resized` does.
        """
        rows, columns, _ = self.shape
        size = self.resized(*picture.size)
        left, top = round((size[0] - columns) / 2), round((size[1] - rows) / 2)
        box = (left, top, left + columns, top + rows)
        return np.asarray(picture.resize(size, self.filter).crop(box))


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images of one shape, read when they are taken."""

    labels: Int32[np.ndarray, " N"]
    shape: tuple[int, ...]  # (rows, columns, channels), or as the network reads them
    image: Callable[[int], Num[np.ndarray, "..."]]  # may raise `Unreadable`
    stamp: Callable[[], Iterable[bytes | memoryview]]  # what tells these images from others
    parallel: bool = True  # False where an image is only copied: threads would cost more
    skip: bool = False  # leave unreadable images out
    dtype: Any = np.uint8

    def __len__(self) -> int:
        return len(self.labels)

    def take(
        self,
        places: Sequence[Any] | Integer[np.ndarray, " n"],
        progress: Progress = lambda done, total: None,
    ) -> Images:
        """The images at these places, in this order, and no others; read by several threads.

        `progress(done, total)` is called after each. Raises `Unreadable` for the first image that
        cannot be read, or, where such are skipped, warns with an `UnreadableWarning` and gives the
        others; `InputError` where that leaves none.
        """
        chosen = np.asarray(places, np.intp)
        labels = self.labels[chosen]
        images = np.empty((len(chosen), *self.shape), self.dtype)
        unreadable: dict[int, Unreadable] = {}

        def read(index: int) -> None:
            try:
                images[index] = self.image(int(chosen[index]))
            except Unreadable as error:
                if not self.skip:
                    raise
                unreadable[index] = error

        _read_all(read, len(chosen), progress, self.parallel)
        if unreadable:
            _report(unreadable, len(chosen))
            images, labels = (np.delete(a, [*unreadable], 0) for a in (images, labels))
        return Images(images, labels)

    def fingerprint(self) -> bytes:
        """32 bytes that change when the images, their labels or their framing do.

        Arrays count with their contents, files with relative name, size and time of change.
        """
        digest = hashlib.sha256(repr(self.shape).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        for part in self.stamp():
            digest.update(part)
        return digest.digest()


def _read_all(read: Callable[[int], None], count: int, progress: Progress, parallel: bool) -> None:
    """Call `read` for every index; after a failure or an interrupt, no further one is begun."""
    if not parallel:
        for index in range(count):
            read(index)
            progress(index + 1, count)
        return
    pool = ThreadPoolExecutor()
    try:
        for start in range(0, count, _QUEUED):
            block = range(start, min(start + _QUEUED, count))
            for index, _ in zip(block, pool.map(read, block), strict=True):
                progress(index + 1, count)
    finally:  # `with pool` would first read all that is queued
        pool.shutdown(cancel_futures=True)


def _report(unreadable: Mapping[int, Unreadable], total: int) -> None:
    """Warn of the images that are left out; raise `InputError` where they are all."""
    errors = [unreadable[index] for index in sorted(unreadable)]
    if len(errors) == total:
        raise InputError(f"none of {total} images can be read; the first: {errors[0]}")
    named = ", ".join(error.name for error in errors[:_NAMED])
    more = f" and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    verb = "is" if len(errors) == 1 else "are"
    warnings.warn(
        f"{len(errors)} of {total} images {verb} unreadable and left out: {named}{more}",
        UnreadableWarning,
        stacklevel=3,  # the line that takes the images
    )
