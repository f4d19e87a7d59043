"""Trees of image files: a folder for each class, or one folder and a file that lists the labels.

Class numbers are the places of the sorted class names; names that are all integers sort as such.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from afpjax.inputs.errors import InputError, shortened
from afpjax.inputs.files import LABELS, read_text

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"))


class Tree(NamedTuple):
    """A folder, its class names, and its images as (class number, file)."""

    root: Path
    classes: Sequence[str]
    files: Sequence[tuple[int, Path]]


def tiny_imagenet(path: Path) -> tuple[Tree | None, Tree]:
    """Training and validation images of Tiny-ImageNet-200: `wnids.txt`, `val_annotations.txt`.

    Raises `InputError` for a file that is missing and an image of no known class.
    """
    classes = sorted(_text(path / "wnids.txt").split())
    test = _annotated(path / "val", path / "val" / "val_annotations.txt", classes)
    train = _class_folders(path / "train", classes) if (path / "train").is_dir() else None
    return train, test


def folders(path: Path) -> tuple[Tree | None, Tree]:
    """`train` and `val` (or `test`) below `path`, else the images in `path` itself.

    Images lie in class folders; those to test may lie in one folder instead, with a
    `val_annotations.txt` (name, tab, class) or ImageNet's `LOC_val_solution.csv` in it or beside
    it. Raises `InputError` for a split that is missing, has no class folders or other classes.
    """
    held_out = next((path / n for n in ("val", "test") if (path / n).is_dir()), None)
    train = _class_folders(path / "train") if (path / "train").is_dir() else None
    if train is not None and held_out is None:
        raise InputError(f"data.path: {path} has a folder `train` but neither `val` nor `test`")
    folder = held_out or path
    listed = _label_file(folder)
    if listed is None:
        test = _class_folders(folder)
    else:
        test = _annotated(folder, listed, train and train.classes)
    if train is not None and train.classes != test.classes:
        raise InputError(f"data.path: {path}: the class folders of its splits differ")
    return train, test


def _class_folders(path: Path, classes: Sequence[str] | None = None) -> Tree:
    """The images of each class folder, the first of every class before any second one."""
    if classes is None:
        classes = _in_order(_subfolders(path))
    if not classes:
        listed = " or ".join(_READERS)
        raise InputError(
            f"data.path: {path} has no class folders: one per class, images inside; "
            f"a folder of images alone needs a {listed} beside them"
        )
    found = [
        (place, number, file)
        for number, name in enumerate(classes)
        for place, file in enumerate(sorted(_image_files(path / name)))
    ]
    return Tree(path, classes, [(number, Path(file)) for _, number, file in sorted(found)])


def _subfolders(path: Path) -> list[str]:
    try:
        return [each.name for each in os.scandir(path) if each.is_dir() and each.name[0] != "."]
    except OSError as error:
        raise InputError(f"data.path: {path} is no readable folder: {error.strerror}") from error


def _in_order(names: Iterable[str]) -> list[str]:
    names = sorted(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _image_files(folder: Path) -> Iterator[str]:
    # Strings: a million paths would take minutes to make and sort.
    for home, _, names in os.walk(folder):
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES and name[0] != ".":
                yield os.path.join(home, name)


def _label_file(folder: Path) -> Path | None:
    """The file that lists a flat folder's labels; None where there are class folders."""
    if not set(_subfolders(folder)) <= {"images"}:
        return None
    places = (home / name for home in (folder, folder.parent) for name in _READERS)
    return next((place for place in places if place.is_file()), None)


def _annotated(folder: Path, listed: Path, classes: Sequence[str] | None) -> Tree:
    """The images that a label file lists, in its order; they lie in `folder` or its `images`."""
    lines = _text(listed).splitlines()
    rows = [(line, *_READERS[listed.name](line)) for line in lines if line.strip()]
    rows = [row for row in rows if row[0] != _HEADER]
    if not rows:
        raise InputError(f"data.path: {listed} lists no images")
    if classes is None:
        classes = _in_order({name for _, _, name in rows if name})
    numbers = {name: number for number, name in enumerate(classes)}
    home = folder / "images" if (folder / "images").is_dir() else folder
    for line, file, name in rows:
        if not file or name not in numbers:
            raise InputError(f"data.path: {listed}: no class in `{shortened(line)}`")
    return Tree(folder, classes, [(numbers[name], home / file) for _, file, name in rows])


def _annotation(line: str) -> tuple[str, str]:
    """Tiny-ImageNet's lines: file name, class, bounding box, with tabs between them."""
    name, wnid, *_ = [*line.split("\t"), "", ""]
    return name, wnid.strip()


def _solution(line: str) -> tuple[str, str]:
    """Kaggle's lines for ImageNet: file name without its ending, a comma, class, bounding boxes."""
    name, _, boxes = line.partition(",")
    return f"{name}.JPEG", boxes.partition(" ")[0].strip()


_HEADER = "ImageId,PredictionString"
_READERS: dict[str, Callable[[str], tuple[str, str]]] = {
    "val_annotations.txt": _annotation,
    "LOC_val_solution.csv": _solution,
}


def _text(path: Path) -> str:
    return read_text(path, "data.path", LABELS, errors="replace")
