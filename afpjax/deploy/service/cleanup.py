"""A small process that outlives a service by a moment, and cleans up what a killed one leaves.

It watches over the process that began it, by a pipe that closes when that process is gone, however
it went. Then it ends the service's processes and removes its folder.
"""

import contextlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_LOOK_S = 1.0  # from one look at the service's processes to the next
_GIVE_UP_S = 10.0  # with a folder that others still write to


@contextmanager
def scratch_folder(home: str | None = None) -> Iterator[Path]:
    """A new folder for one `with` block, which goes with it however this process ends.

    So do processes begun by this one that have its name on their command line, as Ray's have that
    of their session, and whatever they have begun themselves.
    """
    name = tempfile.mkdtemp(prefix="afpjax-", dir=home)
    cleaner = subprocess.Popen(
        [sys.executable, "-P", __file__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # open until all is cleaned up
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is not for it
        cwd="/",
    )
    try:
        yield Path(name)
    finally:
        cleaner.communicate()
        shutil.rmtree(name, ignore_errors=True)  # should somebody have killed the cleaner


def _main(folder: str) -> None:
    doomed: dict[int, psutil.Process] = {}
    watched = psutil.Process().parent()
    if os.fork():  # Ray ends the children of a process that ends: this is to be none of them
        os._exit(0)
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        doomed |= {process.pid: process for process in _processes_of(folder, watched)}
    sys.stdin.buffer.read(1)  # the block has ended, or the process has
    doomed |= {process.pid: process for process in _processes_of(folder, None)}
    for process in doomed.values():
        with contextlib.suppress(psutil.Error):
            process.kill()  # nobody else who has its number by now: psutil knows when it began
    until = time.monotonic() + _GIVE_UP_S
    while Path(folder).exists() and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


def _processes_of(folder: str, parent: psutil.Process | None) -> Iterator[psutil.Process]:
    """Processes named after the folder and all that descend from them; but for these cleaners.

    Those among the descendants of `parent`, None: among all that there are.
    """
    with contextlib.suppress(psutil.Error):
        running = psutil.process_iter() if parent is None else parent.children(recursive=True)
        for process in running:
            with contextlib.suppress(psutil.Error):  # it has ended, or it is another's
                words = process.cmdline()
                if any(folder in word for word in words) and __file__ not in words:
                    yield from process.children(recursive=True)
                    yield process


if __name__ == "__main__":
    _main(sys.argv[1])
