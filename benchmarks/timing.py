"""Time contestants side by side: in turns, so that noise hits all, and warm-up apart.

A *pass* is the unit that contestants repeat. Every pass has a number of its own, which serves as
the trial: nothing is ever measured twice on the same draw, so no memory of answers helps.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from statistics import median
from typing import Any

_LOOKED_AT = 10**9  # numbers that no race gets to
_MOST_PASSES = 1024  # of one contestant in one round

Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 7
    slice_s: float = 0.5  # least time of one contestant in one round
    quick: bool = False  # smaller sizes, to see that everything works


@dataclass(frozen=True)
class Contestant:
    """Something that runs numbered passes, and returns when they are done."""

    name: str
    run: Callable[[Sequence[int]], Any]
    work: float = 1.0  # what a pass does, in the measure's unit (images × trials, generations)
    together: int = 1  # passes are given in multiples of this
    how: str = ""  # in which of several ways


@dataclass(frozen=True)
class Timing:
    """Seconds per unit of work, round by round, and of the first call, compiling included."""

    name: str
    seconds: tuple[float, ...]
    first_s: float
    how: str = ""

    @property
    def median_s(self) -> float:
        return median(self.seconds)

    @property
    def best_s(self) -> float:
        return min(self.seconds)

    @property
    def rate(self) -> float:
        """Units of work per second, by the median round."""
        return 1 / self.median_s

    def figures(self) -> dict[str, Any]:
        """What goes to JSON: units per second, seconds per unit, seconds of the warm-up."""
        return {
            "per_second": self.rate,
            "best_per_second": 1 / self.best_s,
            "seconds_per_unit": list(self.seconds),
            "first_call_s": self.first_s,
            "how": self.how,
        }


def speedup(one: Timing, other: Timing) -> float:
    """How many times faster `one` is: median over rounds, where both met the same noise."""
    return median(slow / fast for fast, slow in zip(one.seconds, other.seconds, strict=True))


def race(
    contestants: Sequence[Contestant], effort: Effort, clock: Clock = time.perf_counter
) -> dict[str, Timing]:
    """Time all contestants, by name: a warm-up each, then rounds in which each has its turn."""
    numbers = count()

    def seconds(contestant: Contestant, passes: int) -> float:
        given = [next(numbers) for _ in range(passes)]
        start = clock()
        contestant.run(given)
        return clock() - start

    first = [seconds(each, each.together) for each in contestants]
    passes = [_passes(each, seconds(each, each.together), effort) for each in contestants]
    taken: list[list[float]] = [[] for _ in contestants]
    for order in _orders(len(contestants), effort.rounds):
        for place in order:
            spent = seconds(contestants[place], passes[place])
            taken[place].append(spent / passes[place] / contestants[place].work)
    return {
        each.name: Timing(each.name, tuple(times), warm, each.how)
        for each, times, warm in zip(contestants, taken, first, strict=True)
    }


def faster(contestants: Sequence[Contestant], clock: Clock = time.perf_counter) -> Contestant:
    """The one of several ways to do the same that is the fastest in a short race.

    Ways that take twice as long as another in a first look are not raced.
    """
    ways = {f"{place}": replace(each, name=f"{place}") for place, each in enumerate(contestants)}
    looks = {name: _look(way, clock) for name, way in ways.items()}
    near = [ways[name] for name, seconds in looks.items() if seconds <= 2 * min(looks.values())]
    if len(near) > 1:
        timings = race(near, Effort(rounds=3, slice_s=0.1), clock)
        best = min(timings.values(), key=lambda timing: timing.best_s).name
    else:
        best = near[0].name
    return contestants[int(best)]


def _look(contestant: Contestant, clock: Clock) -> float:
    """Seconds per unit of work of one group of passes, after one to warm up."""
    numbers = range(_LOOKED_AT, _LOOKED_AT + 2 * contestant.together)
    contestant.run(numbers[: contestant.together])
    start = clock()
    contestant.run(numbers[contestant.together :])
    return (clock() - start) / (contestant.together * contestant.work)


def in_threads(once: Callable[[int], Any], threads: int) -> Callable[[Sequence[int]], None]:
    """Passes one after the other, or several at once where one does not fill the machine."""

    def run(numbers: Sequence[int]) -> None:
        if threads == 1:
            for number in numbers:
                once(number)
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(once, numbers):
                pass

    return run


def _passes(contestant: Contestant, seconds: float, effort: Effort) -> int:
    """How many passes fill a slice, when `together` of them took so long."""
    groups = ceil(effort.slice_s / max(seconds, 1e-9))
    most = max(1, _MOST_PASSES // contestant.together)
    return contestant.together * min(max(groups, 1), most)


def _orders(contestants: int, rounds: int) -> Iterator[list[int]]:
    """Whose turn it is; each round begins with another, so that nobody always follows the same."""
    places = list(range(contestants))
    for turn in range(rounds):
        first = turn % contestants
        yield places[first:] + places[:first]
