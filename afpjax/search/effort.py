"""Adaptive effort: fault draws go to the mappings whose place in the ranking is open.

All mappings meet the same draws in the same order, so two of them are compared on the draws that
both have met. A generation's pool (survivors and children) first meets a share of the draws;
further ones go, in rounds, to whatever is not clearly beaten, the front before the others. A third
of the total is for a last such race among all mappings ever measured: a search under noise finds
more than its last population holds (Maron and Moore, "Hoeffding races", 1994; on common draws
Birattari et al., GECCO 2002). Images are not shared out: an evaluator runs all of its own.

Legend: N mappings of a pool, F of a front, K draws, B images.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from afpjax.inputs.errors import InputError
from afpjax.search.comparisons import Pool, contested, estimates, points
from afpjax.search.hypervolume import non_dominated

#: (mappings, points [F, 3] that no other beats) -> places of those that a front has room for.
Keep = Callable[[Int[np.ndarray, "F L"], Float[np.ndarray, "F 3"]], Int[np.ndarray, " _"]]


@runtime_checkable
class Measured(Protocol):
    """What a race asks of whoever runs the mappings."""

    @property
    def trials(self) -> int: ...  # K, the draws of a full measurement
    @property
    def images(self) -> int: ...  # B
    def fault_free(self) -> float: ...  # accuracy
    def rows(self, mappings: Int[np.ndarray, "N L"]) -> list[bytes]: ...  # equal: run once
    def right(  # images that each mapping gets right under the draws of these numbers
        self, mappings: Int[np.ndarray, "N L"], numbers: Sequence[int]
    ) -> Int[np.ndarray, "N K"]: ...


@dataclass(frozen=True)
class Plan:
    """What a search may spend, and on how much; the defaults have every mapping meet every draw."""

    total: int = 0  # image passes; 0: no limit
    calls: int = 1  # pools that will be judged
    newcomers: int = 0  # mappings of a pool that have not been measured, at most
    finalists: int = 0  # mappings of the last front, at most; 0: no limit


@dataclass(frozen=True)
class Spent:
    """What a search has spent: `passes` are images x draws x different rows."""

    total: int  # the limit, 0 for none
    passes: int
    mappings: tuple[tuple[int, int], ...]  # (draws, how many mappings met so many), by draws


class Race:
    """Judges the pools of one search under one total.

    What is not kept for the last race (a third of the total, at least all draws of a front) the
    pools share alike: each may spend an equal part of what is left to it and those to come. What a
    mapping has met is kept, for each set of draws, so a survivor costs only what it meets anew.
    Mappings that give each layer the same rates are one row, run and paid for once; the fault-free
    run is not counted. Nothing depends on a pool's order, or on what an evaluator remembers.

    Raises `InputError` for a total that one draw of every mapping and all draws of the front may
    exceed.
    """

    def __init__(self, measured: Measured, plan: Plan) -> None:
        self._measured, self._plan, self._calls = measured, plan, plan.calls
        trials, images = measured.trials, measured.images
        self._first = min(trials, max(2, -(-trials // 4))) if plan.total else trials
        self._right: dict[tuple[int, bytes], np.ndarray] = {}  # (set of draws, row) -> images [k]
        self._known: dict[int, dict[bytes, _Entry]] = {}  # set of draws -> mappings
        explore, front = plan.calls * plan.newcomers, plan.finalists * (trials - 1)
        if plan.total and plan.total < (explore + front) * images:
            raise InputError(
                f"search.effort: {plan.total} image passes are too few; a draw for every mapping "
                f"and all {trials} for the front may take {(explore + front) * images}; raise it, "
                "or lower search.population, search.generations, search.images or faults.trials"
            )
        rows = plan.total // images
        self._reserve = min(max(rows // 3, front), rows - explore)

    def drops(
        self, draw: int, mappings: Int[np.ndarray, "N L"], costs: Float[np.ndarray, "N 2"]
    ) -> Float[np.ndarray, " N"]:
        """Accuracy that each mapping loses, as exactly as its place in this pool asks for.

        `costs` are latency and energy. A mapping that has met all K draws gets its mean over them;
        `estimates` says what the others get.
        """
        _, first, back = np.unique(mappings, axis=0, return_index=True, return_inverse=True)
        entries = self._enter(draw, mappings[first], costs[first])
        share = self._share()
        new = dict.fromkeys(entry.row for entry in entries if (draw, entry.row) not in self._right)
        if new:
            extra = self._first if share is None else min(self._first, share // len(new))
            share = self._run(draw, entries, dict.fromkeys(new, extra), share)
        while share is None or share > 0:
            places = contested(self._pool(draw, entries))
            if not places.size:
                break
            share = self._step(draw, entries, places, share)
        accuracy = estimates(self._pool(draw, entries)) / self._measured.images
        return (self._measured.fault_free() - accuracy)[back.reshape(-1)]

    def settle(
        self, draw: int, keep: Keep
    ) -> tuple[Int[np.ndarray, "F L"], Float[np.ndarray, "F 2"], Float[np.ndarray, " F"]]:
        """The front of all mappings measured on a set of draws, its costs and drops.

        All that is left goes to what `keep` leaves of the front as it is known, until that has met
        all K draws, then to what else is contested. Drops are on equal draws: on all K, and where
        the total does not pay for that, on the most that as many mappings have met as there are
        places in the front.
        """
        entries = list(self._known[draw].values())
        entries.sort(key=lambda entry: tuple(entry.mapping))
        mappings = np.array([entry.mapping for entry in entries])

        def front(points: np.ndarray) -> np.ndarray:
            best = np.flatnonzero(non_dominated(points))
            return np.sort(best[keep(mappings[best], points[best])])

        while True:
            pool, left = self._pool(draw, entries), self._left()
            best = front(points(pool, estimates(pool)))
            lacking = best[pool.met[best] < self._measured.trials]
            places = lacking[np.argsort(-pool.met[lacking], kind="stable")]
            room = self._plan.finalists or len(best)
            if not places.size:
                places = contested(pool)[:room]
            if left == 0 or not places.size:
                break
            self._step(draw, entries, places, left)
        level = int(np.sort(pool.met)[-min(room, len(best))])
        done = np.flatnonzero(pool.met >= level)
        accuracy = pool.right[done, :level].sum(axis=1) / (level * self._measured.images)
        mappings, pool = mappings[done], Pool(*(column[done] for column in pool))
        best = front(points(pool, accuracy))
        return mappings[best], pool.costs[best], self._measured.fault_free() - accuracy[best]

    @property
    def spent(self) -> Spent:
        """What has been spent so far; a mapping's draws are summed over all sets of draws."""
        met = Counter[bytes]()
        for draw, known in self._known.items():
            met.update({genome: len(self._right[draw, e.row]) for genome, e in known.items()})
        counts = sorted(Counter(met.values()).items())
        return Spent(self._plan.total, self._paid() * self._measured.images, tuple(counts))

    def _enter(self, draw: int, mappings: np.ndarray, costs: np.ndarray) -> list["_Entry"]:
        rows = self._measured.rows(mappings)
        entries = [_Entry(*each) for each in zip(mappings, rows, costs, strict=True)]
        self._known.setdefault(draw, {}).update((e.mapping.tobytes(), e) for e in entries)
        return entries

    def _paid(self) -> int:
        return sum(map(len, self._right.values()))

    def _left(self) -> int | None:
        """How many draws of one row the total still pays for; None without a limit."""
        rows = self._plan.total // self._measured.images
        return rows - self._paid() if self._plan.total else None

    def _share(self) -> int | None:
        """What one pool may spend."""
        left, calls = self._left(), max(self._calls, 1)
        self._calls -= 1
        return None if left is None else (left - self._reserve) // calls

    def _step(
        self, draw: int, entries: list["_Entry"], places: np.ndarray, share: int | None
    ) -> int | None:
        """A round for the mappings at these places; what it leaves of the share."""
        rows = dict.fromkeys((entries[place].row for place in places), self._first)
        return self._run(draw, entries, rows, share)

    def _run(
        self, draw: int, entries: list["_Entry"], more: Mapping[bytes, int], share: int | None
    ) -> int | None:
        """Have rows meet so many more draws, in the order given, while the share lasts."""
        trials, jobs = self._measured.trials, {}
        for row, extra in more.items():
            met = len(self._right.get((draw, row), ()))
            extra = min(extra, trials - met, trials if share is None else share)
            share = None if share is None else share - extra
            if extra:
                jobs.setdefault((met, met + extra), []).append(row)
        mapping = {entry.row: entry.mapping for entry in entries}
        for (start, stop), rows in jobs.items():
            numbers = range(draw * trials + start, draw * trials + stop)
            answers = self._measured.right(np.array([mapping[row] for row in rows]), numbers)
            for row, right in zip(rows, answers, strict=True):
                known = self._right.get((draw, row), np.zeros(0, np.int64))
                self._right[draw, row] = np.concatenate([known, right])
        return share

    def _pool(self, draw: int, entries: list["_Entry"]) -> Pool:
        right = np.zeros((len(entries), self._measured.trials), np.int64)
        known = [self._right[draw, entry.row] for entry in entries]
        for place, answers in enumerate(known):
            right[place, : len(answers)] = answers
        number = {entry.row: place for place, entry in enumerate(entries)}
        row = np.array([number[entry.row] for entry in entries])
        costs = np.array([entry.costs for entry in entries])
        return Pool(costs, row, right, np.array([len(answers) for answers in known]))


class _Entry(NamedTuple):
    mapping: np.ndarray
    row: bytes
    costs: np.ndarray
