"""`job`: the default job as a user runs it, from nothing and again: time, memory, compiling."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.table import Row, number
from benchmarks.timing import Effort

_QUICK = ("--search.population", "4", "--search.generations", "1", "--train.epochs", "1")
#: Case: required and aimed seconds of compiling.
COMPILING = {"from nothing": 25, "again": 3}
MEMORY_GB = (2.5, 1.5)


@dataclass(frozen=True)
class Ran:
    """What one process took; memory is that of its largest process at its largest."""

    wall_s: float
    cpu_s: float
    peak_gb: float
    compiling: Mapping[str, Any]


def measure(effort: Effort) -> Iterator[Row | str]:
    words = _QUICK if effort.quick else ()
    if effort.quick:
        yield "job: a smaller one, since --quick"
    with tempfile.TemporaryDirectory() as folder:
        for case, compiling_s in COMPILING.items():
            yield from _rows(case, run(Path(folder), case, words), compiling_s)


def _rows(case: str, ran: Ran, compiling_s: float) -> Iterator[Row]:
    times = f"{number(ran.wall_s)} s wall, {number(ran.cpu_s)} s CPU"
    programs, figures = ran.compiling, asdict(ran)
    what = f"default job, {case}"
    memory = Row(f"{what}: peak memory", ran.peak_gb, times, "", *MEMORY_GB, True, "GB", figures)
    yield memory
    yield Row(
        f"{what}: compiling, {programs['programs']} programs, "
        f"{programs['from_cache']} of them from the cache",
        programs["compile_s"],
        f"{number(programs['compile_wall_s'])} s of wall time",
        required=compiling_s,
        less=True,
        unit="s",
    )


def run(folder: Path, case: str, words: Sequence[str]) -> Ran:
    """Run the default job in a process of its own, with its cache in `folder`."""
    heard = folder / f"{case}.json"
    out = folder / case
    command = [sys.executable, "-m", "benchmarks.job_child", str(heard), "--out", str(out), *words]
    with (folder / f"{case}.log").open("wb") as log:
        start = time.monotonic()
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment(folder), stdout=log, stderr=subprocess.STDOUT
        )
        # Of this child and those that it waited for; `getrusage` would add up all children so far.
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:  # an interrupt: nothing is left running
            child.kill()
            raise
        wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        said = (folder / f"{case}.log").read_text(errors="replace")
        raise RuntimeError(f"the default job ended with status {child.returncode}:\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ran(
        wall,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * unit / 1e9,
        json.loads(heard.read_text()),
    )


def environment(folder: Path) -> dict[str, str]:
    """Ours, but for what would bring in another cache or another memory than a user has."""
    dropped = ("JAX_COMPILATION_CACHE_DIR", "XLA_PYTHON_CLIENT_PREALLOCATE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"AFPJAX_CACHE": str(folder / "cache")}
