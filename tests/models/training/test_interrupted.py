"""A training that is stopped, killed or run twice ends with the bits of one that was not."""

# pyright: reportMissingImports=false
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from afpjax.models import train

from .. import tiny
from ..tiny import CONDITIONS, MODEL, SETTINGS, STEPS

PLAIN, FAULTS = SETTINGS, replace(SETTINGS, faults=True)
EVERY_STEP = {"checkpoint_minutes": 0.0}


class Killed(BaseException):
    """Nobody is told of this one, so nothing is saved because of it."""


def trained(settings, dataset, progress=lambda *a: None):
    return train.trained(
        MODEL, settings, dataset, seed=3, conditions=CONDITIONS, progress=progress
    )[1]


def emptied(cache):
    for file in cache.iterdir():
        file.unlink()


def stopped(error, settings, dataset, *, after):
    """Start a training, and stop it once it has said that so many steps are done."""
    told = []

    def progress(done, total):
        told.append(done)
        if done == after and len(told) > 1:
            raise error

    with pytest.raises(error):
        trained(settings, dataset, progress)
    return told[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Killed])
def test_it_goes_on_where_it_was_stopped(dataset, cache, error):
    whole = trained(PLAIN, dataset)
    emptied(cache)
    settings = PLAIN if error is KeyboardInterrupt else replace(PLAIN, **EVERY_STEP)
    # In the first epoch, at the end of one, a step later, and before the last step.
    stops = (1, 4, 5, STEPS - 1)
    starts = [stopped(error, settings, dataset, after=stop) for stop in stops]
    told = []
    assert tiny.equal(trained(settings, dataset, lambda *a: told.append(a)), whole)
    assert [*starts, told[0][0]] == [0, *stops]
    assert len(list(cache.iterdir())) == 1, "checkpoints were left behind"


def test_learning_under_faults_goes_on_where_it_was_stopped(dataset, cache):
    trained(PLAIN, dataset)
    (first,) = cache.glob("*.npz")
    whole = trained(FAULTS, dataset)
    (learnt,) = [file for file in cache.glob("*.npz") if file != first]
    learnt.unlink()
    # The first weights are there: only the steps under faults are left, 2 in each of 3 epochs.
    starts = [stopped(KeyboardInterrupt, FAULTS, dataset, after=stop) for stop in (2, 3)]
    told = []
    assert tiny.equal(trained(FAULTS, dataset, lambda *a: told.append(a)), whole)
    assert [*starts, told[0][0]] == [0, 2, 3]


def test_an_error_in_the_data_keeps_the_checkpoints(dataset, cache):
    class Broken(Exception):
        pass

    stopped(Broken, replace(PLAIN, **EVERY_STEP), dataset, after=3)
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]


def started(cache, kind):
    environment = {**os.environ, "AFPJAX_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, tiny.__file__, kind], env=environment)


def newest(cache):
    """Steps done at the newest checkpoint of each folder."""
    folders = [path for path in cache.glob("*.checkpoints") if path.is_dir()]
    found = [int(path.name) for each in folders for path in each.iterdir() if path.name.isdecimal()]
    return max(found, default=-1)


def test_killed_at_any_instant_it_ends_with_the_same_bits(dataset, cache):
    whole = trained(PLAIN, dataset)
    emptied(cache)
    reached = []
    for after, wait in ((1, 0.0), (3, 0.02), (6, 0.05)):
        process = started(cache, "plain")
        while newest(cache) < after and process.poll() is None:
            time.sleep(0.002)
        time.sleep(wait)  # in the middle of a step, or of a checkpoint
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        reached.append(newest(cache))
    told = []
    assert tiny.equal(trained(PLAIN, dataset, lambda *a: told.append(a)), whole)
    assert told[0][0] == reached[-1] >= 6 and reached == sorted(reached)
    assert len(list(cache.iterdir())) == 1


def test_two_that_train_the_same_at_once_do_not_disturb_each_other(dataset, cache):
    whole = trained(PLAIN, dataset)
    emptied(cache)
    both = [started(cache, "plain") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert tiny.equal(trained(PLAIN, dataset, lambda *a: pytest.fail("nothing was kept")), whole)
    assert len(list(cache.iterdir())) == 1
