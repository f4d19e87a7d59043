"""The stopwatch, on contestants whose times are known."""

import threading
from statistics import median

import pytest

from benchmarks.timing import Contestant, Effort, Timing, faster, in_threads, race, speedup


class Clock:
    """A clock that only contestants move."""

    def __init__(self):
        self.now = 0.0
        self.turns = []

    def __call__(self):
        return self.now

    def contestant(self, name, seconds, *, first=0.0, **options):
        """Takes `seconds` for each pass, and `first` more on its first call."""
        left = [first]

        def run(numbers):
            self.turns.append((name, list(numbers)))
            self.now += seconds * len(numbers) + left[0]
            left[0] = 0.0

        return Contestant(name, run, **options)


def test_seconds_are_those_of_a_unit_of_work_and_warm_up_stays_apart():
    clock = Clock()
    slow = clock.contestant("slow", 0.5, first=30.0, work=64)
    quick = clock.contestant("quick", 0.125, work=64)
    times = race([slow, quick], Effort(rounds=3, slice_s=1.0), clock)
    assert times["slow"].seconds == pytest.approx([0.5 / 64] * 3)
    assert times["quick"].rate == pytest.approx(64 / 0.125)
    assert times["slow"].first_s == pytest.approx(30.5)
    assert speedup(times["quick"], times["slow"]) == pytest.approx(4)


def test_no_number_is_given_twice():
    clock = Clock()
    race([clock.contestant(n, 0.01) for n in "abc"], Effort(rounds=4, slice_s=0.1), clock)
    numbers = [number for _, given in clock.turns for number in given]
    assert len(numbers) == len(set(numbers)) > 3 * 4 * 10


def test_a_slice_is_filled_with_whole_groups():
    clock = Clock()
    race([clock.contestant("a", 0.1, together=3)], Effort(rounds=1, slice_s=1.0), clock)
    # Two groups to warm up and to calibrate (0.3 s each), then four: the fewest that last 1 s.
    assert [len(given) for _, given in clock.turns] == [3, 3, 12]


def test_every_round_begins_with_another():
    clock = Clock()
    race([clock.contestant(n, 1.0) for n in "abc"], Effort(rounds=3), clock)
    assert "".join(name for name, _ in clock.turns[6:]) == "abcbcacab"


def test_speedup_compares_within_rounds():
    """Noise that hits both sides of a round leaves the ratio alone; quotients of medians do not."""
    ours = Timing("ours", (1.0, 10.0, 3.0), 0.0)
    theirs = Timing("theirs", (2.0, 20.0, 30.0), 0.0)
    assert speedup(ours, theirs) == 2
    assert theirs.median_s / ours.median_s != median([2, 2, 10])


def test_the_faster_way_is_chosen_and_one_that_is_far_slower_is_run_twice_only():
    clock = Clock()
    ways = [clock.contestant("slow", 9.0), clock.contestant("quick", 0.3, first=90.0)]
    ways.append(clock.contestant("near", 0.4))
    assert faster(ways, clock) is ways[1]
    assert [name for name, _ in clock.turns].count("slow") == 2


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_run_every_number_once_and_lose_no_error(threads):
    done, lock = [], threading.Lock()

    def once(number):
        with lock:
            done.append(number)
        if number == 40:
            raise ValueError(number)

    in_threads(once, threads)(range(40))
    assert sorted(done) == list(range(40))
    with pytest.raises(ValueError):
        in_threads(once, threads)([40, 41])
