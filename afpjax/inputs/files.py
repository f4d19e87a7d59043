"""The one place that opens files of users: bounded, or refused in one line that says what to mend.

Every reader comes through here (or through `array_files`, which is built on it). What is no regular
file is not opened, since a named pipe would wait and a device never end; what is larger than its
kind may be is not read; and whatever a parser raises becomes an `InputError` that names the setting
and the file.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from afpjax.inputs.errors import InputError, one_line, quoted

T = TypeVar("T")

MIB = 2**20
_POINTER = b"version https://git-lfs"
_INT64 = 2**63
_PARTS = 50  # of a dotted key: tomllib goes through all of them for each line below


class Kind(NamedTuple):
    """What a file is, as errors call it, and the most bytes that one may have."""

    name: str
    most: int


TOML = Kind("TOML file", MIB)  # tomllib takes a second for a megabyte
CSV = Kind("CSV file", 8 * MIB)  # a row of four bytes takes a hundred times as much
RESULT = Kind("JSON file", 32 * MIB)  # as objects it takes up to 20 times as much
FAULTS = Kind("list of faults", 256 * MIB)  # read row by row
LABELS = Kind("list of images", 8 * MIB)
DIGEST = Kind("digest", 4096)
IMAGE = Kind("image", 256 * MIB)
PART = Kind("ONNX file", 2048 * MIB)  # what protobuf can hold


@contextmanager
def opened(path: Path, setting: str, kind: Kind) -> Iterator[BufferedReader]:
    """A user's file, open for reading at its start. Raises `InputError`, opened by `setting`.

    Refused are what is missing, no regular file, larger than its kind may be, not ours to read, or
    a git-LFS pointer.
    """
    where = _where(path, setting)
    try:
        _refuse_irregular(os.stat(path), where)  # to open a device may be to start it
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115, closed below
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} {_why_not(error)}") from error
    with file:
        found = os.fstat(file.fileno())
        _refuse_irregular(found, where)  # it may have been exchanged meanwhile
        if found.st_size > kind.most:
            raise InputError(
                f"{where} has {_size(found.st_size)}; a {kind.name} may have {_size(kind.most)}"
            )
        with understood(path, setting, kind):
            start = file.read(40)
            file.seek(0)
        if start.startswith(_POINTER):
            raise InputError(f"{where} is a git-LFS pointer; fetch it with `git lfs pull`")
        yield file


@contextmanager
def understood(path: Path, setting: str, kind: Kind) -> Iterator[None]:
    """Whatever goes wrong inside `with`, where a file's content is read, is an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        # What Rust libraries raise where they give up is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        where = _where(path, setting)
        raise InputError(f"{where} is no readable {kind.name} ({one_line(error)})") from error


def parsed(path: Path, setting: str, kind: Kind, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of a whole file's bytes."""
    with opened(path, setting, kind) as file, understood(path, setting, kind):
        content = file.read(kind.most + 1)
        if len(content) > kind.most:  # it grew, or the system does not say its size
            raise ValueError(f"it has more than {_size(kind.most)}")
        return parse(content)


def read_bytes(path: Path, setting: str, kind: Kind) -> bytes:
    """A whole file."""
    return parsed(path, setting, kind, bytes)


def read_text(path: Path, setting: str, kind: Kind, errors: str = "strict") -> str:
    """A text file in UTF-8, with or without a byte order mark."""
    return parsed(path, setting, kind, lambda content: content.decode("utf-8-sig", errors))


def read_json(path: Path, setting: str) -> Any:
    """What a JSON file holds."""
    return parsed(path, setting, RESULT, json.loads)


def read_toml(path: Path, setting: str) -> dict[str, Any]:
    """The tables of a TOML file; the error says the line where there is one to blame."""
    content = read_bytes(path, setting, TOML)
    where = _where(path, setting)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        if any(part.count(".") > _PARTS for part in re.split(r"[,=\n]", text)):
            raise ValueError(f"a key of more than {_PARTS} parts")
        found = tomllib.loads(text)
        _refuse_huge(found)
        return found
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: is not a text file in UTF-8") from error
    except Exception as error:  # numbers and nesting beyond Python's limits too
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = f":{place[1]}" if place else ""
        raise InputError(f"{where}{line}: is not valid TOML: {one_line(error)}") from error


def cache_folder() -> Path:
    """The user's cache folder for afpjax: `AFPJAX_CACHE`, else `afpjax` in the XDG cache folder.

    Nothing is created; whoever writes there makes the folder. A leading `~` is expanded. Raises
    `InputError` where that leads to nobody's home.
    """
    own, shared = os.environ.get("AFPJAX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    named = "AFPJAX_CACHE" if own else "XDG_CACHE_HOME"
    try:
        if own:
            return Path(own).expanduser()
        return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "afpjax"
    except RuntimeError as error:  # no such user, or one without a home
        raise InputError(
            f"{named}: {own or shared or 'no home folder'} leads nowhere ({error}); set "
            "AFPJAX_CACHE to a folder that can be written"
        ) from error


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody to write."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


_IRREGULAR = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def _refuse_irregular(found: os.stat_result, where: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = next((name for holds, name in _IRREGULAR if holds(found.st_mode)), "a device")
        raise InputError(f"{where} is {what}, not a file")


def _why_not(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read: {getattr(error, 'strerror', None) or one_line(error)}"


def _refuse_huge(value: object) -> None:
    """TOML's whole numbers have 64 bits; Python would read, and later choke on, any."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, int) and not -_INT64 <= each < _INT64:
            raise ValueError(f"the whole number {quoted(each, 30)} has more than 64 bits")


def _where(path: Path, setting: str) -> str:
    return f"{setting}: {path}" if setting else str(path)


def _size(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= MIB else f"{count:,} bytes"
