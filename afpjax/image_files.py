"""Image files as a split: nothing is opened before it is taken."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from afpjax.errors import InputError
from afpjax.files import one_line, refuse_pointer
from afpjax.image_folders import SUFFIXES, Tree
from afpjax.images import Frame, Split, Unreadable

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

    def image(place: int) -> UInt8[np.ndarray, "side side channels"]:
        return decoded(paths[place], root, frame)

    def stamp() -> Iterator[bytes]:
        yield repr(frame).encode()
        for path in paths:
            yield repr((_name(path, root), *_version(path))).encode()

    return Split(np.asarray(labels, np.int32), frame.shape, image, stamp, skip=skip)


def decoded(path: Path, root: Path, frame: Frame) -> UInt8[np.ndarray, "side side channels"]:
    """One image file in its frame. Raises `Unreadable`, which names it relative to `root`."""
    try:
        with Image.open(path) as picture:
            pixels = frame.cut(picture.convert("RGB" if frame.channels == 3 else "L"))
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow's many decoders raise all kinds
        raise _unreadable(path, root, error) from error
    return pixels.reshape(frame.shape)


def _unreadable(path: Path, root: Path, error: Exception) -> Unreadable:
    name = _name(path, root)
    try:
        refuse_pointer(path, "data.path")
    except InputError as problem:
        pointer = " (git-LFS pointer)" if "git-LFS" in str(problem) else ""
        return Unreadable(f"{problem}; {_SKIP}", name + pointer)
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
