"""Checkpoints: bit for bit, whole or passed over, and never in the way of training."""

# pyright: reportMissingImports=false
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.models.training.checkpoint import Checkpoints

from ..tiny import equal


class State(NamedTuple):
    weights: dict
    count: jax.Array
    nothing: jax.Array


def state(seed=0):
    rng = np.random.default_rng(seed)
    odd = np.array([np.nan, -0.0, np.inf, 1e-42], np.float32)  # what a text file would lose
    return State(
        {"kernel": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32), "odd": jnp.asarray(odd)},
        jnp.int32(seed),
        jnp.zeros((0, 4), jnp.float32),
    )


def bits(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), tree)


@pytest.fixture
def kept(tmp_path):
    return Checkpoints(tmp_path / "net.checkpoints", 0.0)


def names(kept):
    return sorted(path.name for path in kept.folder.iterdir())


def test_a_state_comes_back_bit_for_bit_and_the_newest_two_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Checkpoints(Path("relative"), 0.0)
    assert kept.latest(state()) is None
    for done in (9, 10, 11):
        kept.save(done, state(done))
    latest = kept.latest(state())
    assert latest is not None and latest[0] == 11
    assert bits(latest[1]) == bits(state(11))
    of_both = zip(jax.tree.leaves(latest[1]), jax.tree.leaves(state()), strict=True)
    assert all(one.dtype == other.dtype for one, other in of_both)
    assert names(kept) == ["10", "11"]
    kept.remove()
    assert not kept.folder.exists() and kept.latest(state()) is None


def test_the_time_between_two_is_in_minutes_and_zero_is_always(kept):
    now = time.monotonic()
    assert kept.due(now)
    later = Checkpoints(kept.folder, 2.0)
    assert not later.due(now - 110) and later.due(now - 121)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turned(path):
    """One bit of every 16 bytes."""
    raw = np.frombuffer(path.read_bytes(), np.uint8).copy()
    raw[::16] ^= 4
    path.write_bytes(raw.tobytes())


@pytest.mark.parametrize("damage", [cut, turned, Path.unlink])
def test_a_damaged_one_is_passed_over_for_the_one_before(kept, damage):
    kept.save(1, state(1))
    kept.save(2, state(2))
    whole = shutil.copytree(kept.folder / "2", kept.folder.parent / "whole")
    files = [path for path in (kept.folder / "2").rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        damage(path)
    done, found = kept.latest(state())
    assert done == 1 and bits(found) == bits(state(1))
    for path in files:  # of any one file: known, or harmless
        shutil.copytree(whole, kept.folder / "2", dirs_exist_ok=True)
        damage(path)
        done, found = kept.latest(state())
        assert bits(found) == bits(state(done)), path


def test_a_foreign_one_is_passed_over(kept):
    kept.save(5, state(5))
    assert kept.latest(state()._replace(count=jnp.zeros(2, jnp.int32))) is None
    assert kept.latest({"more": state(), "than": jnp.zeros(3)}) is None
    assert kept.latest({"less": jnp.zeros((3, 5))}) is None
    # Renamed: it says itself how many steps it stands for.
    (kept.folder / "5").rename(kept.folder / "6")
    assert kept.latest(state()) is None
    (kept.folder / "7").mkdir()
    (kept.folder / "8").write_text("no folder")
    assert kept.latest(state()) is None


def test_what_a_killed_process_left_unfinished_is_ignored_and_cleared_in_time(kept):
    fresh, old = kept.folder / ".part-fresh", kept.folder / ".part-old"
    for part in (fresh, old):
        (part / "whole").mkdir(parents=True)
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert kept.latest(state()) is None
    kept.save(1, state())
    assert names(kept) == [".part-fresh", "1"], "another process may still be writing the first"


def test_the_second_of_two_with_the_same_checkpoint_drops_its_own(kept):
    kept.save(4, state(4))
    kept.save(4, state(4))
    assert names(kept) == ["4"] and equal(kept.latest(state())[1].count, jnp.int32(4))


def test_one_that_cannot_be_written_is_a_warning(kept):
    kept.folder.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="no checkpoint in .*net.checkpoints: "):
        kept.save(1, state())
    assert kept.latest(state()) is None
