"""Files that a user names: read, or refused in one line that says which setting to mend."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from afpjax.errors import InputError


def read_npz(path: Path, setting: str, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, all or the named ones; `setting` opens the `InputError`s.

    Nothing is unpickled. Raises `InputError` for a file that is missing, a git-LFS pointer, no
    `.npz`, damaged, or without one of the names.
    """
    refuse_pointer(path, setting)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{setting}: {path} has no `{missing[0]}`, it holds {held}")
            return {name: archive[name] for name in names or archive.files}
    except InputError:
        raise
    # A single array (.npy) is no context manager and has no names: TypeError.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{setting}: {path} is no readable .npz file of plain arrays ({one_line(error)})"
        ) from error


def refuse_pointer(path: Path, setting: str) -> None:
    """Raise `InputError` where `path` is no readable file, or a git-LFS pointer instead of it."""
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"{setting}: {path} {problem}")
    try:
        with path.open("rb") as file:
            start = file.read(40)
    except OSError as error:
        raise InputError(f"{setting}: {path} cannot be read: {error.strerror}") from error
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{setting}: {path} is a git-LFS pointer; fetch it with `git lfs pull`")


def one_line(error: Exception) -> str:
    """The first line of what an exception says, or its kind where it says nothing."""
    return str(error).split("\n")[0] or type(error).__name__
