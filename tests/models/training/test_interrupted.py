"""A training that is stopped, killed or run twice ends with the bits of one that was not."""

# pyright: reportMissingImports=false
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from afpjax.models import train, zoo

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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of a training without faults that nothing stopped, and their file."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFPJAX_CACHE", str(folder))
        patch.setitem(zoo.NETWORKS, "tiny", tiny.Tiny)
        weights = trained(PLAIN, tiny.dataset())
    (file,) = folder.glob("*.npz")
    return weights, file


@pytest.fixture
def whole(undisturbed):
    return undisturbed[0]


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


# In the first epoch and before the last step; at the end of an epoch.
@pytest.mark.parametrize(("error", "stops"), [(KeyboardInterrupt, (1, STEPS - 1)), (Killed, (4,))])
def test_it_goes_on_where_it_was_stopped(dataset, cache, whole, error, stops):
    settings = PLAIN if error is KeyboardInterrupt else replace(PLAIN, **EVERY_STEP)
    starts = [stopped(error, settings, dataset, after=stop) for stop in stops]
    told = []
    assert tiny.equal(trained(settings, dataset, lambda *a: told.append(a)), whole)
    assert [*starts, told[0][0]] == [0, *stops]
    assert len(list(cache.iterdir())) == 1, "checkpoints were left behind"


def test_learning_under_faults_goes_on_where_it_was_stopped(dataset, cache, undisturbed):
    """The first weights are there: only the steps under faults are left, 2 in each of 3 epochs."""
    cache.mkdir()
    shutil.copy(undisturbed[1], cache)
    learnt = trained(FAULTS, dataset)
    (file,) = [file for file in cache.glob("*.npz") if file.name != undisturbed[1].name]
    file.unlink()
    start = stopped(KeyboardInterrupt, FAULTS, dataset, after=3)
    told = []
    assert tiny.equal(trained(FAULTS, dataset, lambda *a: told.append(a)), learnt)
    assert [start, told[0][0]] == [0, 3]


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


def test_killed_at_any_instant_it_ends_with_the_same_bits(dataset, cache, whole):
    reached = []
    for after, wait in ((1, 0.02), (6, 0.05)):
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


@pytest.mark.slow  # of two that keep the same checkpoint, test_checkpoint.py tells
def test_two_that_train_the_same_at_once_do_not_disturb_each_other(dataset, cache, whole):
    both = [started(cache, "plain") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert tiny.equal(trained(PLAIN, dataset, lambda *a: pytest.fail("nothing was kept")), whole)
    assert len(list(cache.iterdir())) == 1
