"""`.npz` files, read without believing what they declare: sizes are held against what is there.

NumPy's own reader allocates what a header says, evaluates headers as Python, and takes any zip
method; one megabyte can then fill memory, or raise nearly anything.
"""

import math
import os
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from afpjax.inputs.errors import InputError, quoted, shortened
from afpjax.inputs.files import MIB, Kind, opened, understood

NPZ = Kind(".npz file of plain arrays", 16 * 1024 * MIB)
# What a file's arrays may come to: a compressed megabyte can expand a thousandfold.
_FREE, _RATIO = 64 * MIB, 32
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes
_MAGIC, _LONGEST_HEADER = b"\x93NUMPY", 10_000
_ITEM = {
    "descr": r"""['"](?P<descr>[<>|=]?[A-Za-z]\d{1,6})['"]""",
    "fortran_order": r"(?P<fortran_order>True|False)",
    "shape": r"\((?P<shape>[\d\s,L]*)\)",
}
_PLAIN = "biufcSUV"  # kinds of dtype: numbers, text, bytes; no Python objects, no dates


class Declared(NamedTuple):
    """What an array's header says of it."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path, setting: str, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, all or the named ones; `setting` opens the `InputError`s.

    Nothing is unpickled or evaluated, and nothing is allocated before it is known that the file
    holds it. Raises `InputError` for a file that is missing, no `.npz`, damaged, expands to far
    more than its size, or is without one of the names.
    """
    with (
        opened(path, setting, NPZ) as file,
        understood(path, setting, NPZ),
        zipfile.ZipFile(file) as archive,
    ):
        members = _members(archive)
        if missing := [name for name in names if name not in members]:
            held = shortened(", ".join(members), 200) or "nothing"
            raise InputError(f"{setting}: {path} has no `{missing[0]}`, it holds {held}")
        wanted = {name: members[name] for name in names or members}
        _refuse_bombs(wanted, os.fstat(file.fileno()).st_size)
        return {name: _array(archive, member) for name, member in wanted.items()}


def read_array(file: Any, length: int) -> np.ndarray:
    """The array of an open `.npy` file of `length` bytes. Raises ValueError for what is none."""
    declared, begins = _header(file)
    if declared.bytes != length - begins:
        raise ValueError(
            f"its header says {declared.bytes:,} bytes of shape {quoted(declared.shape)}, there "
            f"are {length - begins:,}"
        )
    flat = np.empty(math.prod(declared.shape), declared.dtype)
    place = memoryview(flat.view(np.uint8))  # pyright: ignore[reportArgumentType]
    while len(place):
        got = file.read(min(len(place), MIB))
        if not got:
            raise ValueError("it ends too early")
        place[: len(got)] = got
        place = place[len(got) :]
    file.read(1)  # the end, where zip files have their checksum verified
    return flat.reshape(declared.shape, order="F" if declared.fortran else "C")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """By the array's name, as NumPy has it."""
    return {each.filename.removesuffix(".npy"): each for each in archive.infolist()}


def _refuse_bombs(wanted: Mapping[str, zipfile.ZipInfo], size: int) -> None:
    most = _FREE + _RATIO * size
    total = sum(each.file_size for each in wanted.values())
    if total > most:
        raise ValueError(
            f"it would expand to {total / MIB:,.0f} MiB, and a file of its size may to "
            f"{most / MIB:,.0f}; write it with numpy.savez, which does not compress"
        )
    for name, each in wanted.items():
        if each.compress_type not in _METHODS:
            raise ValueError(f"{name}: zip method {each.compress_type}; write it with numpy.savez")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    try:
        with archive.open(member) as file:
            return read_array(file, member.file_size)
    except Exception as error:
        name = shortened(member.filename)
        raise ValueError(f"{name}: {str(error) or type(error).__name__}") from error


def _header(file: Any) -> tuple[Declared, int]:
    """An `.npy` file's header, and its own length in bytes."""
    start = file.read(8)
    if len(start) < 8 or not start.startswith(_MAGIC) or start[6] not in (1, 2, 3):
        raise ValueError("it is no array")
    form = "<H" if start[6] == 1 else "<I"
    length = struct.calcsize(form)
    (size,) = struct.unpack(form, file.read(length))
    if size > _LONGEST_HEADER:
        raise ValueError(f"its header has {size:,} bytes")
    text = file.read(size)
    if len(text) < size:
        raise ValueError("it ends in its header")
    return _declared(text.decode("latin-1")), 8 + length + size


def _declared(text: str) -> Declared:
    """What a header says; it is matched, never evaluated."""
    found: dict[str, str] = {}
    rest = text.strip()
    for key, pattern in _ITEM.items():
        match = re.search(rf"""['"]{key}['"]\s*:\s*{pattern}\s*,?""", rest)
        if match is None:
            raise ValueError(f"its header is not that of a plain array: {quoted(text.strip())}")
        found |= match.groupdict()
        rest = rest[: match.start()] + rest[match.end() :]
    if rest.replace(" ", "") != "{}":
        raise ValueError(f"its header is not that of a plain array: {quoted(text.strip())}")
    dtype = np.dtype(found["descr"])
    if dtype.kind not in _PLAIN or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, no plain numbers")
    shape = tuple(int(each.rstrip("L")) for each in found["shape"].split(",") if each.strip())
    return Declared(dtype, shape, found["fortran_order"] == "True")
