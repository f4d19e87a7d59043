"""The store: a mapping that outlives its process."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from afpjax.command.store import RowStore
from afpjax.config.work import summed
from afpjax.inputs.errors import InputError


def test_it_is_a_mapping(tmp_path):
    draw, model = random.Random(0), {}
    with RowStore(tmp_path / "s.sqlite") as store:
        for _ in range(500):
            key, value = draw.randbytes(1), draw.randbytes(draw.randrange(40))
            match draw.randrange(4):
                case 0:
                    store[key] = model[key] = value
                case 1:
                    assert store.pop(key, None) == model.pop(key, None)
                case 2:
                    assert (key in store, store.get(key)) == (key in model, model.get(key))
                case 3:
                    store.update({key: value, value[:1]: key})
                    model.update({key: value, value[:1]: key})
            assert len(store) == len(model)
        assert dict(store) == model
    with RowStore(tmp_path / "s.sqlite") as store:
        assert dict(store) == model


def test_a_key_that_is_not_there_is_a_key_error(tmp_path):
    with RowStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(KeyError):
            store[b"x"]
        with pytest.raises(KeyError):
            del store[b"x"]


def test_rows_may_be_written_while_keys_are_read(tmp_path):
    with RowStore(tmp_path / "s.sqlite") as store:
        store.update((bytes([i]), b"") for i in range(5))
        for key in store:
            store[key + b"x"] = b""
        assert len(store) == 10


def test_an_update_that_fails_leaves_no_row(tmp_path):
    def pairs():
        yield b"a", b"1"
        raise RuntimeError("gone")

    with RowStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(RuntimeError, match="gone"):
            store.update(pairs())
        assert len(store) == 0
        store[b"a"] = b"2"  # and the store goes on
        assert dict(store) == {b"a": b"2"}


def test_one_process_at_a_time(tmp_path):
    path, refused = tmp_path / "s.sqlite", "another process is at work there"
    with RowStore(path), pytest.raises(InputError, match=refused):
        RowStore(path)
    RowStore(tmp_path / "s.sqlite").close()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(tmp_path, make):
    make(tmp_path / "s.sqlite")
    with pytest.raises(InputError, match=r"s\.sqlite: cannot be used as a store: it is no file"):
        RowStore(tmp_path / "s.sqlite")


def filled(path):
    with RowStore(path) as store:
        store.update({bytes((n,)): bytes((n,)) * 3000 for n in range(100)})
    return path.read_bytes()


def another_schema(path):
    with sqlite3.connect(path) as rows:
        rows.execute("CREATE VIEW trap AS SELECT key FROM rows")
    rows.close()


DAMAGES = {
    "text": lambda path: path.write_bytes(b"not a database at all, but text" * 99),
    "cut": lambda path: path.write_bytes(filled(path)[:20_000]),
    "zeros": lambda path: path.write_bytes(filled(path)[:4096] + bytes(40_000)),
    "another's": lambda path: (filled(path), another_schema(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_begun_anew(tmp_path, damage):
    """All that it keeps can be worked out again, so damage costs time and not the run."""
    path = tmp_path / "s.sqlite"
    DAMAGES[damage](path)
    with pytest.warns(UserWarning, match=r"s\.sqlite is damaged; what it kept is worked out again"):
        store = RowStore(path)
    with store:
        store[b"key"] = b"value"
    with RowStore(path) as again:
        assert dict(again) == {b"key": b"value"}


def test_a_row_that_is_not_what_was_written_is_missing(tmp_path):
    path = tmp_path / "s.sqlite"
    filled(path)
    with sqlite3.connect(path) as rows:
        rows.execute("UPDATE rows SET value = ? WHERE key = ?", (b"other", b"\x01"))
        rows.execute("UPDATE rows SET value = 3 WHERE key = ?", (b"\x02",))
    rows.close()
    with RowStore(path) as store:
        assert b"\x01" not in store and store.get(b"\x02") is None
        assert store[b"\x03"] == b"\x03" * 3000


def test_a_killed_process_loses_no_row_that_it_wrote(tmp_path):
    """The child says each number after it is stored; all that it said must be there."""
    child = (
        "import sys, itertools; from pathlib import Path\n"
        "from afpjax.command.store import RowStore\n"
        "store = RowStore(Path(sys.argv[1]))\n"
        "for i in itertools.count():\n"
        "    store.update({b'%d.%d' % (i, j): bytes(99) for j in range(3)})\n"
        "    print(i, flush=True)\n"
    )
    path = tmp_path / "s.sqlite"
    command = [sys.executable, "-c", child, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) == 300:
                process.send_signal(signal.SIGKILL)
                break
        said = [300, *map(int, process.stdout.read().split())]
    assert process.returncode == -signal.SIGKILL
    with RowStore(path) as store:
        assert {b"%d.%d" % (i, j) for i in range(said[-1] + 1) for j in range(3)} <= set(store)
        assert len(store) % 3 == 0  # each update whole or not at all
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sums_go_on_where_an_earlier_attempt_was_killed(tmp_path):
    """What a kill leaves is what lies on the disk: copied here before the attempt ends."""
    path, spent = tmp_path / "run" / "store.sqlite", [0.0, 0.0]
    path.parent.mkdir()
    with RowStore(path) as rows, summed(rows, b"spent", lambda: spent):
        spent[:] = [1.5, 10.0]
        rows[b"kept"] = b"row"
        spent[:] = [9.0, 99.0]  # what no row was kept after is lost with the process
        shutil.copytree(path.parent, tmp_path / "killed")
    with RowStore(tmp_path / "killed" / path.name) as rows:
        with summed(rows, b"spent", lambda: [0.5, 3.0]) as total:
            assert total() == (2.0, 13.0)
            rows.update({b"more": b""})
        with summed(rows, b"spent", lambda: [1.0, 0.0]) as total:
            assert total() == (3.0, 13.0)


def test_sums_are_kept_by_any_memory_and_whatever_ends_the_attempt():
    memory: dict[bytes, bytes] = {}
    with pytest.raises(KeyboardInterrupt), summed(memory, b"spent", lambda: [2.0]):
        raise KeyboardInterrupt
    with summed(memory, b"spent", lambda: [1.0]) as total:
        assert total() == (3.0,)
