# pyright: reportMissingImports=false
"""How PyTorch's passes are spread over the cores: rivals are timed in the way that suits them best.

All cores within a pass is what PyTorch does by itself; its threads wait for each other after every
operation, which costs much where a pass is short or other processes hold a core. One pass on each
core, as afpjax has it, is the alternative for whatever keeps no state of its own between passes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import machine
from benchmarks.rivals.torch_networks import device, finish
from benchmarks.timing import Contestant, in_threads


def ways(
    name: str,
    once: Callable[[int], Any],
    work: float,
    *,
    how: str = "",
    side_by_side: bool = False,
) -> list[Contestant]:
    """Contestants that do the same: `once(number)` is a pass, `side_by_side` if several may run."""
    cores = machine.cores()
    if device().type != "cpu":
        return [Contestant(name, _one_by_one(once, cores), work, how=how)]
    made = [
        Contestant(name, _one_by_one(once, threads), work, how=f"{how} {threads} threads".strip())
        for threads in sorted({1, cores})
    ]
    if side_by_side and cores > 1:
        run = _side_by_side(once, cores)
        made.append(Contestant(name, run, work, cores, f"{how} {cores} passes at once".strip()))
    return made


def _one_by_one(once: Callable[[int], Any], threads: int) -> Callable[[Sequence[int]], None]:
    def run(numbers: Sequence[int]) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for number in numbers:
                once(number)
            finish()

    return run


def _side_by_side(once: Callable[[int], Any], workers: int) -> Callable[[Sequence[int]], None]:
    def inferring(number: int) -> None:
        with torch.inference_mode():  # a thread's own
            once(number)

    def run(numbers: Sequence[int]) -> None:
        torch.set_num_threads(1)  # threads that begin after this have one
        in_threads(inferring, workers)(numbers)

    return run
