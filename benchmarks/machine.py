"""On what something was measured: processor, accelerators, versions, commit, load."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("afpjax", "jax", "jaxlib", "numpy", "torch", "pytorchfi", "MRFI", "pymoo")
ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """What the reader of a figure must know; a fact that is not to be had is absent."""
    import jax  # late: `--help` and refusals must not wait for it

    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
        "versions": versions(),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Others:
    """How many cores other processes take while this one measures; None where it cannot be told."""

    def __init__(self) -> None:
        self._before = _times()

    def cores(self) -> float | None:
        """Cores taken by others since the beginning, on average."""
        now, before = _times(), self._before
        if now is None or before is None:
            return None
        wall, busy, own = (new - old for new, old in zip(now, before, strict=True))
        return max(0.0, (busy - own) / max(wall, 1e-9))


def _times() -> tuple[float, float, float] | None:
    """Seconds: the clock, the whole machine's busy processors, this process and its children."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return time.monotonic(), busy, sum(own[:4])


def versions() -> dict[str, str]:
    """Versions of the packages that are installed, ours and the rivals'."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the working tree, with "+" where it has changes; None outside of git."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return None
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return round(size / 2**30, 1)
