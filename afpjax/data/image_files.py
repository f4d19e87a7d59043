"""Image files as a split: nothing is opened before it is taken."""

import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from afpjax.data.image_folders import SUFFIXES, Tree
from afpjax.data.images import Frame, Split, Unreadable
from afpjax.inputs.errors import InputError, one_line
from afpjax.inputs.files import IMAGE, opened

# Of `image_folders.SUFFIXES`, and no others: Pillow would start Ghostscript for an `.eps` that is
# called `.png`.
_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MOST_PIXELS = 89_478_485  # from here on Pillow warns; decoded, that is 700 MB
_LARGE_PIXELS = 2**24  # larger ones are decoded one at a time, whatever the threads
_one_large = threading.Lock()
_SKIP = "data.corrupt = skip leaves such images out"


def in_files(tree: Tree, frame: Frame, *, classes: int, skip: bool) -> Split:
    """The images of a tree; `skip` says what becomes of unreadable ones.

    Raises `InputError` for other classes than `classes`, no images, and networks that read neither
    grey nor coloured images.
    """
    found, root = len(tree.classes), tree.root
    if found != classes:
        raise InputError(
            f"data.path: {root} has {found} classes, model.classes is {classes}; "
            f"set model.classes = {found}"
        )
    if not tree.files:
        raise InputError(f"data.path: no images in {root} ({', '.join(sorted(SUFFIXES))})")
    if frame.channels not in (1, 3):
        raise InputError(
            f"data.path: photographs have 1 or 3 channels, the network reads {frame.channels}"
        )
    labels, paths = zip(*tree.files, strict=True)

    def image(place: int) -> UInt8[np.ndarray, "rows columns channels"]:
        return decoded(paths[place], root, frame)

    def stamp() -> Iterator[bytes]:
        yield frame.stamp.encode()
        for path in paths:
            yield repr((_name(path, root), *_version(path))).encode()

    return Split(np.asarray(labels, np.int32), frame.shape, image, stamp, skip=skip)


def decoded(path: Path, root: Path, frame: Frame) -> UInt8[np.ndarray, "rows columns channels"]:
    """One image file in its frame. Raises `Unreadable`, which names it relative to `root`."""
    try:
        with opened(path, "data.path", IMAGE) as file:
            return _pixels(file, frame).reshape(frame.shape)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow's many decoders raise all kinds
        raise _unreadable(path, root, error) from error


def _pixels(file: BufferedReader, frame: Frame) -> UInt8[np.ndarray, "rows columns *channels"]:
    with Image.open(file, formats=_FORMATS) as picture:
        size = picture.width * picture.height
        if size > _MOST_PIXELS:
            raise ValueError(f"it has {size:,} pixels, the most are {_MOST_PIXELS:,}")
        with _one_large if size > _LARGE_PIXELS else nullcontext():
            return frame.cut(picture.convert("RGB" if frame.channels == 3 else "L"))


def _unreadable(path: Path, root: Path, error: Exception) -> Unreadable:
    name = _name(path, root)
    if isinstance(error, InputError):
        pointer = " (git-LFS pointer)" if "git-LFS" in str(error) else ""
        return Unreadable(f"{error}; {_SKIP}", name + pointer)
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "its format is unknown" if unknown else one_line(error)
    problem = f"data.path: {path} is no readable image ({reason}); repair or remove it"
    return Unreadable(f"{problem}; {_SKIP}", name)


def _name(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _version(path: Path) -> tuple[int, int]:
    """Size and time of change; a listed file that is not there has neither."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
