"""What a process that is killed leaves behind: nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from afpjax.deploy.service.cleanup import scratch_folder

KILLED = """
import subprocess, sys, time
from afpjax.deploy.service.cleanup import scratch_folder
with scratch_folder() as folder:
    (folder / "a").mkdir()
    (folder / "a" / "b").write_bytes(b"c")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", str(folder)]
    child = subprocess.Popen(sleep, start_new_session=True)
    print(child.pid, folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_neither_folder_nor_processes(number):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        pid, name = process.stdout.readline().split()
        child, folder = psutil.Process(int(pid)), Path(name)
        assert (folder / "a" / "b").exists() and child.is_running()
        process.send_signal(number)
    until = time.monotonic() + 15
    while (folder.exists() or _runs(child)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.exists() and not _runs(child)


def _runs(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_folder_goes_with_its_block_and_so_does_the_janitor():
    before = {each.pid for each in psutil.Process().children()}
    with scratch_folder() as folder:
        (folder / "a").write_bytes(b"b")
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        other = subprocess.Popen(sleep)
        own = subprocess.Popen([*sleep, str(folder)])
    assert not folder.exists() and own.wait(5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
    assert {each.pid for each in psutil.Process().children()} <= before
