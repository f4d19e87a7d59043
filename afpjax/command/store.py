"""What a job has worked out so far, kept on disk so that it can go on after any interruption."""

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from zlib import crc32

from afpjax.inputs.errors import Halted, InputError

_TABLE = "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
_INSERT = "INSERT OR REPLACE INTO rows VALUES (?, ?)"


class RowStore(MutableMapping[bytes, bytes]):
    """A mapping of bytes to bytes in one SQLite file, closed by leaving its `with` block.

    Every assignment, and every `update` as a whole, is one transaction: when it returns, the rows
    outlive the process, however that ends. Write-ahead logging makes a transaction cost tens of
    microseconds, so nothing needs to be held back. Only one process at a time can have the file
    open. A file that is damaged, or no store, is begun anew with a warning; a row that is not what
    was written is missing. Raises `InputError` where the file is in use or cannot be opened, and
    `Halted` where a row cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sums: dict[
            bytes, Callable[[], bytes]
        ] = {}  # rows written with every other: `work.summed`
        if os.path.lexists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: cannot be used as a store: it is no file")
        try:
            self._open()
        except _Damaged:
            self._begin_anew()

    def _open(self) -> None:
        try:
            # isolation_level=None: transactions are the ones written below, and no others.
            self._rows = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise InputError(f"{self._path}: cannot be used as a store: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            if "locked" in str(error):
                raise InputError(
                    f"{self._path.parent}: another process is at work there"
                ) from error
            if not isinstance(error, sqlite3.OperationalError):
                raise _Damaged from error
            raise InputError(f"{self._path}: cannot be used as a store: {error}") from error
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._rows.execute("PRAGMA trusted_schema = OFF")
        self._rows.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._rows.execute("PRAGMA journal_mode = WAL")
        # Safe when the process dies; the last rows may go when the whole machine does.
        self._rows.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            self._rows.execute(_TABLE)
        schema = self._rows.execute("SELECT type, sql FROM sqlite_master").fetchall()
        if schema != [("table", _TABLE.replace("IF NOT EXISTS ", ""))]:
            raise _Damaged
        if self._rows.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
            raise _Damaged

    def _begin_anew(self) -> None:
        """What a store keeps can all be worked out again: a damaged one costs time, not the run."""
        self.close()
        warnings.warn(f"{self._path} is damaged; what it kept is worked out again", stacklevel=3)
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._open()

    def __getitem__(self, key: bytes) -> bytes:
        try:
            found = self._rows.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:  # damaged since it was opened, or the disk fails
            raise Halted(f"{self._path}: cannot be read: {error}") from error
        value = None if found is None else _checked(key, found[0])
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.update({key: value})

    def __delitem__(self, key: bytes) -> None:
        if not self._rows.execute("DELETE FROM rows WHERE key = ?", (key,)).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        # Read at once: rows may be written while the caller goes through the keys.
        return iter([key for (key,) in self._rows.execute("SELECT key FROM rows").fetchall()])

    def __len__(self) -> int:
        return self._rows.execute("SELECT count(*) FROM rows").fetchone()[0]

    def update(self, other: Any = (), /, **none: bytes) -> None:
        """Take over all rows of a mapping, or of pairs, or none of them."""
        if none:
            raise TypeError("keys are bytes, so they cannot be keyword arguments")
        pairs: Iterable[tuple[bytes, bytes]] = (
            other.items() if isinstance(other, Mapping) else other
        )
        with self._kept(), self._transaction():
            self._rows.executemany(_INSERT, ((key, _sealed(key, value)) for key, value in pairs))
            sums = ((name, _sealed(name, now())) for name, now in self.sums.items())
            self._rows.executemany(_INSERT, sums)

    def close(self) -> None:
        """Give the file free; closing twice is no error."""
        self._rows.close()

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """A disk that is full, or fails, stops the run: rows written before can still be read."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise Halted(f"{self._path}: cannot be written: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._rows.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._rows.in_transaction:  # SQLite itself rolls back when the disk is full
                self._rows.execute("ROLLBACK")
            raise
        self._rows.execute("COMMIT")


class _Damaged(Exception):
    """The file is no store, or not a whole one."""


def _sealed(key: bytes, value: bytes) -> bytes:
    """A value with a checksum before it, of its key too."""
    return crc32(key + value).to_bytes(4, "little") + value


def _checked(key: bytes, kept: object) -> bytes | None:
    """The value of a row; None where it is not what was written, so that it is made again."""
    if isinstance(kept, bytes) and kept == _sealed(key, kept[4:]):
        return kept[4:]
    return None
