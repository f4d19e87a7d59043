"""Checkpoints of a training, through orbax: what survives when a process is killed.

A folder holds one folder per checkpoint, named by the steps done. Each is written under another
name and renamed when it is complete, so whatever bears a number is whole; and it ends with a digest
of its arrays, so that one damaged afterwards, or of another training, is known as such and passed
over. Processes that train the same thing at once share the folder: they make the same checkpoints,
and whoever comes second with one drops its own.
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

_KEPT = 2  # newest checkpoints that stay, so that a damaged one costs little
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
            # A damaged file shows as an error of orbax, tensorstore, json or the system.
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
    named = {str(place): array for place, array in enumerate(arrays) if array.size}
    with StandardCheckpointer() as writer:
        writer.save(path, {"arrays": named, "digest": _digest(done, arrays)})


def _restored(path: Path, done: int, like: Any) -> Any:
    from orbax.checkpoint import StandardCheckpointer

    leaves, structure = jax.tree.flatten(like)
    with StandardCheckpointer() as reader:
        found = reader.restore(path.resolve())
    arrays = [
        np.asarray(found["arrays"][str(place)]) if leaf.size else np.asarray(leaf)
        for place, leaf in enumerate(leaves)
    ]
    if not np.array_equal(found["digest"], _digest(done, arrays)) or any(
        (array.shape, array.dtype) != (leaf.shape, leaf.dtype)
        for array, leaf in zip(arrays, leaves, strict=True)
    ):
        raise ValueError(f"{path}: damaged, or of another training")
    return jax.tree.unflatten(structure, [jnp.asarray(array) for array in arrays])


def _digest(done: int, arrays: list[np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256(str(done).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), np.uint8)
