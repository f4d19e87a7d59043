"""Which devices are killed, and when."""

import subprocess
import sys

import psutil
import pytest

from afpjax.deploy.service.kills import Kill, planned_kills
from afpjax.deploy.service.pool import Worker
from afpjax.inputs.errors import InputError

NAMES = ("eyeriss", "simba", "simba-2")


def test_devices_by_name_and_by_number_in_the_order_of_their_deaths():
    found = planned_kills(["simba-2@9", "0@4"], 0, NAMES, 10, 0)
    assert found == (Kill(4, 0), Kill(9, 2))


def test_random_kills_are_a_function_of_the_seed_and_spare_who_is_killed_anyway():
    drawn = [planned_kills(["1@3"], 2, NAMES, 50, seed) for seed in range(40)]
    assert drawn == [planned_kills(["1@3"], 2, NAMES, 50, seed) for seed in range(40)]
    assert len(set(drawn)) > 30
    for kills in drawn:
        assert sorted(each.device for each in kills) == [0, 1, 2]
        assert all(1 <= each.at <= 50 for each in kills)
        assert list(kills) == sorted(kills)


@pytest.mark.parametrize(
    ("kill", "kills", "said"),
    [
        (["tpu@3"], 0, r"serve\.kill: tpu@3: no device tpu; the devices are eyeriss, simba"),
        (["simba"], 0, "'simba' is not DEVICE@N, as in eyeriss@10"),
        (["simba@-1"], 0, "is not DEVICE@N"),
        (["simba@11"], 0, "only 10 images are asked for"),
        (["simba@1", "1@2"], 0, "simba is killed twice"),
        (["simba@1"], 3, r"serve\.kills: 3 random kills, but 2 of 3 devices are left"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(kill, kills, said):
    with pytest.raises(InputError, match=said) as caught:
        planned_kills(kill, kills, NAMES, 10, 0)
    assert "\n" not in str(caught.value)


def test_a_process_dies_even_where_it_is_stopped_and_once_is_enough():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = psutil.Process(child.pid)
    worker = Worker(0, "a", None, child.pid, process)
    process.suspend()
    worker.kill_process()
    assert child.wait(10) == -9
    worker.kill_process()
    assert not psutil.pid_exists(child.pid)
