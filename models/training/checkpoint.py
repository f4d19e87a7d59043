"""Checkpoints of a training, through orbax: what survives when a process is killed.

A folder holds one folder per checkpoint, named by the steps done. Each is written under another
name and renamed when it is complete, so whatever bears a number is whole; and a digest of its files
lies beside them, so that one damaged afterwards is known as such and passed over, as is one whose
arrays are not this training's. Processes that train the same thing at once share the folder: they
make the same checkpoints, and whoever comes second with one drops its own.
"""

import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afpjax.inputs.files import DIGEST, MIB, Kind, opened, read_text

_PIECE = Kind("piece of a checkpoint", 16 * 1024 * MIB)
_KEPT = 2  # newest checkpoints that stay, so that a damaged one costs little
_ARRAYS, _DIGEST = "arrays", "digest"  # what a checkpoint holds: orbax's folder, and a file
_PART = ".part-"  # begins the name of what is being written
_ABANDONED = 3600.0  # seconds after which what is being written counts as left by a killed process


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, `minutes` apart (0: after every step)."""

    folder: Path
    minutes: float

    def due(self, since: float) -> bool:
        """Whether one should be written, if the last was at `since` (`time.monotonic`)."""
        return time.monotonic() - since >= 60 * self.minutes

    def latest(self, like: Any) -> tuple[int, Any] | None:
        """Steps done and state, a pytree of arrays such as `like`, of the newest one that is whole.

        None where there is none.
        """
        for done in sorted(self._complete(), reverse=True):
            # What cannot be read shows as an error of orbax, tensorstore or the system.
            with suppress(Exception):
                return done, _restored(self._at(done), done, like)
        return None

    def save(self, done: int, state: Any) -> None:
        """Write a checkpoint, and remove all but the newest two.

        Training is worth more than its checkpoints: one that cannot be written is a warning.
        """
        try:
            with self._part() as part:
                _write(part / "whole", done, state)
                with suppress(OSError):  # another process was first
                    (part / "whole").rename(self._at(done))
            self._tidy()
        except Exception as error:  # a full disk shows as an error of several kinds
            reason = str(error).partition("\n")[0]
            warnings.warn(f"no checkpoint in {self.folder}: {reason}", RuntimeWarning, stacklevel=2)

    def remove(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _at(self, done: int) -> Path:
        return self.folder / str(done)

    def _complete(self) -> list[int]:
        with suppress(OSError):
            return [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        return []

    @contextmanager
    def _part(self) -> Iterator[Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # orbax takes absolute paths only.
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=self.folder)).resolve()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _tidy(self) -> None:
        for done in sorted(self._complete())[:-_KEPT]:
            shutil.rmtree(self._at(done), ignore_errors=True)
        for part in self.folder.glob(f"{_PART}*"):
            with suppress(OSError):
                if time.time() - os.stat(part).st_mtime > _ABANDONED:
                    shutil.rmtree(part, ignore_errors=True)


def _write(path: Path, done: int, state: Any) -> None:
    from orbax.checkpoint import StandardCheckpointer  # takes a second: only who saves waits

    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    # NumPy's, so that no device is written down; orbax takes no empty ones.
    named = {str(place): array for place, array in enumerate(arrays) if array.size}
    path.mkdir()
    with StandardCheckpointer() as writer:
        writer.save(path / _ARRAYS, named)
    (path / _DIGEST).write_text(_digest(path / _ARRAYS, done))


def _restored(path: Path, done: int, like: Any) -> Any:
    # Before orbax sees them: its readers of other arrays do not stop when one fails.
    if read_text(path / _DIGEST, "checkpoint", DIGEST) != _digest(path / _ARRAYS, done):
        raise ValueError(f"{path} is damaged")
    from orbax.checkpoint import StandardCheckpointer

    leaves, structure = jax.tree.flatten(like)
    with StandardCheckpointer() as reader:
        found = reader.restore((path / _ARRAYS).resolve())
    if found.keys() != {str(place) for place, leaf in enumerate(leaves) if leaf.size}:
        raise ValueError(f"{path} is another training's")
    arrays = [np.asarray(found.get(str(place), leaf)) for place, leaf in enumerate(leaves)]
    for array, leaf in zip(arrays, leaves, strict=True):
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(f"{path} is another training's")
    return jax.tree.unflatten(structure, [jnp.asarray(array) for array in arrays])


def _digest(folder: Path, done: int) -> str:
    """Of all files in a folder, with their names, and of the steps done."""
    digest = hashlib.sha256(str(done).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}".encode())
        with opened(path, "checkpoint", _PIECE) as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
