"""Interrupt real runs at instants spread over start-up, training, searching and publishing.

    python tests/interrupts.py [--count 50] [--seed 0] [--resume-every 5]

Every run of the default experiment, made small, begins in a cache without weights, so that it
trains. It gets one signal (SIGINT mostly) and has to end with 130 and one line within 5 s; every
so many are gone on with, and have to give what an undisturbed run gives. Exit status 1 where one
does not. About half an undisturbed run's time for each, and a whole one where it is gone on with.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SETTINGS = {
    "train.epochs": 2,
    "search.population": 4,
    "search.generations": 2,
    "search.images": 32,
    "search.held_out": 64,
    "faults.trials": 2,
}
SMALL = [word for key, value in SETTINGS.items() for word in (f"--{key}", f"{value}")]
SMALL += ["--out", "x"]
PHASES: tuple[str, ...] = ("start-up", "training", "searching", "publishing")
SHARES = (0.2, 0.3, 0.3, 0.2)
LIMIT_S = 5.0
TIMES = ("seconds", "throughput")  # what may differ between equal runs


class Ended(NamedTuple):
    """How a run ended; `waited_s` from the signal, None where it ended before."""

    status: int
    said: str
    waited_s: float | None
    phase: str


def phase(folder: Path) -> str:
    """How far the run in a folder is."""
    if (folder / ".x.partial" / "page").exists() or (folder / "x").exists():
        return "publishing"
    if list((folder / "cache").glob("*.npz")):
        return "searching"
    return "training" if (folder / ".x.partial" / "store.sqlite").exists() else "start-up"


def begin(folder: Path, compiled: Path, words: list[str]) -> subprocess.Popen[str]:
    own = {"AFPJAX_CACHE": str(folder / "cache"), "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    return subprocess.Popen(
        [sys.executable, "-m", "afpjax.run", *words],
        cwd=folder,
        env={**os.environ, **own, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def durations(folder: Path, compiled: Path) -> dict[str, float]:
    """Seconds that an undisturbed run spends in each phase."""
    process, since, found = (
        begin(folder, compiled, SMALL),
        time.monotonic(),
        dict.fromkeys(PHASES, 0.0),
    )
    while process.poll() is None:
        time.sleep(0.005)
        now = time.monotonic()
        found[phase(folder)] += now - since
        since = now
    assert process.stderr and process.returncode == 0, process.stderr and process.stderr.read()
    return found


def interrupted(folder: Path, compiled: Path, number: int, wanted: str, after_s: float) -> Ended:
    """A run that gets a signal `after_s` after it has come to a phase."""
    process = begin(folder, compiled, SMALL)
    while process.poll() is None and PHASES.index(phase(folder)) < PHASES.index(wanted):
        time.sleep(0.001)
    time.sleep(after_s)
    struck, at = phase(folder), time.monotonic()
    early = process.poll() is not None or leaving(process.pid)
    process.send_signal(number)
    said = process.communicate(timeout=300)[1]
    waited = None if early else time.monotonic() - at
    return Ended(process.returncode, said, waited, struck)


def leaving(pid: int) -> bool:
    """Whether the system is taking the process apart: it has ended, and nothing reaches it now."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    return bool(int(words[6]) & 0x4)  # PF_EXITING of its flags


def faults(folder: Path, ended: Ended) -> list[str]:
    """What is wrong with how a run ended."""
    assert ended.waited_s is not None
    found = []
    if ended.status != 130:
        found.append(f"status {ended.status}")
    if ended.waited_s > LIMIT_S:
        found.append(f"took {ended.waited_s:.1f} s")
    if not ended.said.startswith("afpjax: interrupted") or ended.said.count("\n") != 1:
        found.append(f"said {ended.said!r}")
    whole, begun = (folder / "x").exists(), (folder / ".x.partial").exists()
    if whole + begun != ("before anything" not in ended.said) or (
        begun and not (folder / ".x.partial" / "config.toml").exists()
    ):
        found.append("left neither a whole run nor one to go on with")
    return found


def result(folder: Path) -> dict:
    read = json.loads((folder / "x" / "result.json").read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if key not in TIMES}


def gone_on(folder: Path, compiled: Path, expected: dict) -> list[str]:
    """What is wrong with a run that is gone on with to its end, or begun anew."""
    if not (folder / "x").exists():
        again = ["--resume", "--out", "x"] if (folder / ".x.partial").exists() else SMALL
        process = begin(folder, compiled, again)
        said = process.communicate()[1]
        if process.returncode != 0:
            return [f"--resume: status {process.returncode}: {said}"]
    return [] if result(folder) == expected else ["--resume: another result"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume-every", type=int, default=5)
    given = parser.parse_args()
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_DFL)  # ignored under nohup, and then in what it begins
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="interrupts-") as name:
        home = Path(name)
        compiled = home / "compiled"

        def new(kind: str) -> Path:
            (home / kind).mkdir()
            return home / kind

        durations(new("cold"), compiled)
        length = durations(new("whole"), compiled)
        print({key: round(value, 1) for key, value in length.items()}, flush=True)
        expected, bad = result(home / "whole"), 0
        for number in range(given.count):
            bad += bool(attempt(new, compiled, number, draw, length, given, expected))
    print(f"{given.count - bad} of {given.count} as they should be")
    return bad > 0


def attempt(
    new: Callable[[str], Path],
    compiled: Path,
    number: int,
    draw: random.Random,
    length: dict[str, float],
    given: argparse.Namespace,
    expected: dict,
) -> list[str]:
    """One interrupt, tried again where the run was over before it came."""
    wanted = draw.choices(PHASES, SHARES)[0]
    kind = draw.choices((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), (0.7, 0.15, 0.15))[0]
    least, most = (0.1 if wanted == "start-up" else 0.0), length[wanted]
    for again in range(9):
        folder = new(f"{number}-{again}")
        cold = folder / "compiled" if number % 5 == 4 else compiled
        after_s = draw.uniform(least, max(most / 2**again, least))
        ended = interrupted(folder, cold, kind, wanted, after_s)
        if ended.waited_s is not None or ended.status != 0:
            break
    else:
        return ["never in time"]
    if ended.waited_s is None:
        return [f"ended by itself with status {ended.status}: {ended.said}"]
    found = faults(folder, ended)
    if number % given.resume_every == 0:
        found += gone_on(folder, compiled, expected)
    print(
        f"{number:3} {kind.name:8} {wanted:10} + {after_s:6.2f} s, struck {ended.phase:10}: "
        f"{ended.status} after {ended.waited_s:.2f} s {'; '.join(found)}",
        flush=True,
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
