"""Trees of image files: a folder for each class, and Tiny-ImageNet's own layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from afpjax.errors import InputError
from afpjax.files import one_line, refuse_pointer

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"))


class Tree(NamedTuple):
    """A folder's class names, and its images as (class number, file)."""

    classes: Sequence[str]
    files: Sequence[tuple[int, Path]]


def tiny_imagenet(path: Path) -> tuple[Tree | None, Tree]:
    """Training and validation images of Tiny-ImageNet-200: `wnids.txt`, `val_annotations.txt`.

    Raises `InputError` for a file that is missing and an image of no known class.
    """
    classes = sorted(_text(path / "wnids.txt").split())
    numbers = {wnid: number for number, wnid in enumerate(classes)}
    files: list[tuple[int, Path]] = []
    for line in _text(path / "val" / "val_annotations.txt").splitlines():
        name, wnid, *_ = [*line.split("\t"), "", ""]
        if wnid not in numbers:
            raise InputError(f"data.path: {path}/val/val_annotations.txt: no class in `{line}`")
        files.append((numbers[wnid], path / "val" / "images" / name))
    train = _class_folders(path / "train", classes) if (path / "train").is_dir() else None
    return train, Tree(classes, files)


def folders(path: Path) -> tuple[Tree | None, Tree]:
    """`train` and `val` (or `test`) below `path`, else the class folders in `path` itself.

    Raises `InputError` for a split that is missing, has no class folders or other classes.
    """
    held_out = next((path / n for n in ("val", "test") if (path / n).is_dir()), None)
    has_train = (path / "train").is_dir()
    if has_train and held_out is None:
        raise InputError(f"data.path: {path} has a folder `train` but neither `val` nor `test`")
    test = _class_folders(held_out or path)
    train = _class_folders(path / "train") if has_train else None
    if train is not None and train.classes != test.classes:
        raise InputError(f"data.path: {path}: the class folders of its splits differ")
    return train, test


def _class_folders(path: Path, classes: Sequence[str] | None = None) -> Tree:
    """The images of each class folder, the first of every class before any second one."""
    if not path.is_dir():
        raise InputError(f"data.path: {path} is no folder")
    if classes is None:
        classes = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != ".")
    if not classes:
        raise InputError(f"data.path: {path} has no class folders: one per class, images inside")
    found = [
        (place, number, file)
        for number, name in enumerate(classes)
        for place, file in enumerate(
            sorted(f for f in (path / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        )
    ]
    return Tree(classes, [(number, file) for _, number, file in sorted(found)])


def _text(path: Path) -> str:
    refuse_pointer(path, "data.path")
    return path.read_text(encoding="utf-8", errors="replace")


def decoded(path: Path, mode: str) -> UInt8[np.ndarray, "H W C"]:
    refuse_pointer(path, "data.path")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(mode))
    # Pillow's decoders raise all of these on damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(
            f"data.path: {path} is no readable image ({one_line(error)}); repair or remove it"
        ) from error
    return pixels.reshape(*pixels.shape[:2], -1)
