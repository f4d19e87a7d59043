"""Run `afpjax.run` and write down what JAX compiled: `python -m benchmarks.job_child FILE …`.

Listeners are set when the job begins, not before: JAX must not be imported until the command has
said where compiled programs are kept.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afpjax import run
from afpjax.jobs import JOBS

_COMPILED = "/jax/core/compile/backend_compile_duration"  # from the cache or not
_RETRIEVED = "/jax/compilation_cache/cache_retrieval_time_sec"


@dataclass
class Heard:
    """Durations of JAX's events, with the time at which each was over."""

    compiled: list[tuple[float, float]] = field(default_factory=list)
    retrieved: list[tuple[float, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, event: str, duration_secs: float, **more: Any) -> None:
        kinds = {_COMPILED: self.compiled, _RETRIEVED: self.retrieved}
        if event in kinds:
            with self.lock:
                kinds[event].append((time.monotonic(), duration_secs))

    def totals(self) -> dict[str, float]:
        """Sums over threads, and the time in which at least one program was being compiled."""
        return {
            "programs": len(self.compiled),
            "from_cache": len(self.retrieved),
            "compile_s": sum(seconds for _, seconds in self.compiled),
            "retrieval_s": sum(seconds for _, seconds in self.retrieved),
            "compile_wall_s": covered(self.compiled),
        }


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals, each given by its end and its length."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((end - length, end) for end, length in intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def main(argv: Sequence[str]) -> int:
    file, *words = argv
    heard = Heard()

    def heard_job(job: Any) -> Any:
        def work(*arguments: Any) -> Any:
            import jax

            jax.monitoring.register_event_duration_secs_listener(heard.hear)
            return job(*arguments)

        return work

    status = run.main(words, {name: heard_job(job) for name, job in JOBS.items()})
    Path(file).write_text(json.dumps(heard.totals()))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
