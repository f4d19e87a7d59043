"""A small process that outlives a service by a moment, and clears up what a killed one leaves.

It watches over the process that began it, by a pipe that closes when that process is gone, however
it went. Then it ends all processes that descended from it and removes its folders.
"""

import contextlib
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

_LOOK_S = 2.0  # from one look at who has descended to the next
_GIVE_UP_S = 10.0  # with a folder that others still write to
_ALL_IS_WELL = b"."


@contextmanager
def scratch_folder(home: str | None = None) -> Iterator[Path]:
    """A new folder for one `with` block; processes with its name on their command line go with it.

    Should this process die within, that happens all the same, and to all descendants of this one.
    """
    name = tempfile.mkdtemp(prefix="afpjax-", dir=home)
    janitor = subprocess.Popen(
        [sys.executable, "-P", __file__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is not for it
        cwd="/",
    )
    try:
        yield Path(name)
    finally:
        janitor.communicate(_ALL_IS_WELL)
        shutil.rmtree(name, ignore_errors=True)  # should somebody have killed the janitor


def _main(folder: str) -> None:
    family: dict[int, psutil.Process] = {}
    watched = psutil.Process().parent()
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        with contextlib.suppress(psutil.Error):
            family |= {each.pid: each for each in watched.children(True)} if watched else {}
    if sys.stdin.buffer.read(1) == _ALL_IS_WELL:
        family = {}
    for each in [*family.values(), *psutil.process_iter()]:
        with contextlib.suppress(psutil.Error):  # among them: it has ended, or it is another's
            words = each.cmdline()
            doomed = each.pid in family or any(folder in word for word in words)
            if doomed and __file__ not in words:  # each janitor has a folder of its own to see to
                each.kill()  # nobody else who has its number by now: psutil knows when it began
    until = time.monotonic() + _GIVE_UP_S
    while Path(folder).exists() and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


if __name__ == "__main__":
    _main(sys.argv[1])
