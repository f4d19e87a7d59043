"""Image files: a folder for each class, or one folder and a file that lists the labels.

Class numbers are the places of the sorted class names; names that are all integers sort as such.
Nothing but names is read before an image is taken.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from afpjax.data.images import Frame, Split, Unreadable
from afpjax.inputs.errors import InputError, one_line, shortened
from afpjax.inputs.files import IMAGE, LABELS, opened, read_text

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"))
# Of `SUFFIXES`, and no others: Pillow would start Ghostscript for an `.eps` that is
# called `.png`.
_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MOST_PIXELS = 89_478_485  # from here on Pillow warns; decoded, that is 700 MB
_LARGE_PIXELS = 2**24  # larger ones are decoded one at a time, whatever the threads
_one_large = threading.Lock()
_SKIP = "data.corrupt = skip leaves such images out"


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


def in_files(tree: Tree, frame: Frame, *, classes: int, skip: bool) -> Split:
    """The images of a tree; `skip` says what becomes of unreadable ones.

    Raises `InputError` for other classes than `classes`, no images, and networks that read neither
    grey nor coloured images.
    """
    root, found = tree.root, len(tree.classes)
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

    def image(index: int) -> UInt8[np.ndarray, "rows columns channels"]:
        return decoded(paths[index], root, frame)

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
    files = [
        (place, number, file)
        for number, name in enumerate(classes)
        for place, file in enumerate(sorted(_image_files(path / name)))
    ]
    return Tree(path, classes, [(number, Path(file)) for _, number, file in sorted(files)])


def _subfolders(path: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != "."]
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
    files = (home / name for home in (folder, folder.parent) for name in _READERS)
    return next((file for file in files if file.is_file()), None)


def _annotated(folder: Path, listed: Path, classes: Sequence[str] | None) -> Tree:
    """The images that a label file lists, in its order; they lie in `folder` or its `images`."""
    lines = [line for line in _text(listed).splitlines() if line.strip() and line != _HEADER]
    rows = [(line, *_READERS[listed.name](line)) for line in lines]
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
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
