"""Adaptive effort: fault draws go to the mappings whose place in the ranking is open.

All mappings meet the same draws in the same order, so two of them are compared on the draws that
both have met. A generation's pool (survivors and children) first meets a share of the draws;
further ones go, in rounds, to whatever is not clearly beaten, the front before the others. A third
of the total is for a last such race among all mappings ever measured: a search under noise finds
more than its last population holds (Maron and Moore, "Hoeffding races", 1994; on common draws
Birattari et al., GECCO 2002). Images are not shared out: an evaluator runs all of its own.

Legend: N mappings of a pool, F of a front or rivals, K draws, B images.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from afpjax.hardware.tables import CostTables
from afpjax.inputs.errors import InputError
from afpjax.search.explore import Budget, Evaluated, Settle, few, populations, thinned
from afpjax.search.objectives import NO_CAPS, Caps, RobustnessObjective, costs, violation
from afpjax.search.pareto import non_dominated

#: (mappings, points [F, 3] that no other beats) -> places of those that a front has room for.
Keep = Callable[[Int[np.ndarray, "F L"], Float[np.ndarray, "F 3"]], Int[np.ndarray, " _"]]


_QUANTILE = 0.975  # one-sided: one close call in forty goes wrong
_PRIOR = 4  # draws' worth of trust in the spread of all pairs, beside a pair's own few draws


@dataclass(frozen=True)
class RacePlan:
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


class Pool(NamedTuple):
    """Different mappings in lexicographic order, and what is known of them."""

    costs: Float[np.ndarray, "N 2"]  # latency and energy, exact
    row: Int[np.ndarray, " N"]  # equal numbers, equal answers
    right: Int[np.ndarray, "N K"]  # images; 0 under draws that were not met
    met: Int[np.ndarray, " N"]  # draws; the first so many


class PairedCounts(NamedTuple):
    """Every mapping beside every rival, on the draws both have met."""

    common: Int[np.ndarray, "N F"]  # draws
    gap: Float[np.ndarray, "N F"]  # images per draw that the rival gets right more
    squares: Float[np.ndarray, "N F"]  # of the differences, summed
    no_dearer: Bool[np.ndarray, "N F"]  # the rival costs no more latency and no more energy
    cheaper: Bool[np.ndarray, "N F"]  # and less of one
    comparable: Bool[np.ndarray, "N F"]  # one costs no more than the other in both


class _Entry(NamedTuple):
    mapping: np.ndarray
    row: bytes
    costs: np.ndarray


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

    def __init__(self, objective: RobustnessObjective, plan: RacePlan) -> None:
        self._objective, self._plan, self._calls = objective, plan, plan.calls
        trials, images = objective.trials, objective.images
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
        accuracy = estimates(self._pool(draw, entries)) / self._objective.images
        return (self._objective.fault_free() - accuracy)[back.reshape(-1)]

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
            lacking = best[pool.met[best] < self._objective.trials]
            places = lacking[np.argsort(-pool.met[lacking], kind="stable")]
            room = self._plan.finalists or len(best)
            if not places.size:
                places = contested(pool)[:room]
            if left == 0 or not places.size:
                break
            self._step(draw, entries, places, left)
        level = int(np.sort(pool.met)[-min(room, len(best))])
        done = np.flatnonzero(pool.met >= level)
        accuracy = pool.right[done, :level].sum(axis=1) / (level * self._objective.images)
        mappings, pool = mappings[done], Pool(*(column[done] for column in pool))
        best = front(points(pool, accuracy))
        return mappings[best], pool.costs[best], self._objective.fault_free() - accuracy[best]

    @property
    def spent(self) -> Spent:
        """What has been spent so far; a mapping's draws are summed over all sets of draws."""
        draws = Counter[bytes]()
        for draw, known in self._known.items():
            draws.update({genome: len(self._right[draw, e.row]) for genome, e in known.items()})
        counts = sorted(Counter(draws.values()).items())
        return Spent(self._plan.total, self._paid() * self._objective.images, tuple(counts))

    def _enter(self, draw: int, mappings: np.ndarray, costs: np.ndarray) -> list["_Entry"]:
        rows = self._objective.rows(mappings)
        entries = [_Entry(*columns) for columns in zip(mappings, rows, costs, strict=True)]
        self._known.setdefault(draw, {}).update((e.mapping.tobytes(), e) for e in entries)
        return entries

    def _paid(self) -> int:
        return sum(map(len, self._right.values()))

    def _left(self) -> int | None:
        """How many draws of one row the total still pays for; None without a limit."""
        rows = self._plan.total // self._objective.images
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
        trials, jobs = self._objective.trials, {}
        for row, extra in more.items():
            met = len(self._right.get((draw, row), ()))
            extra = min(extra, trials - met, trials if share is None else share)
            share = None if share is None else share - extra
            if extra:
                jobs.setdefault((met, met + extra), []).append(row)
        mapping = {entry.row: entry.mapping for entry in entries}
        for (start, stop), rows in jobs.items():
            numbers = range(draw * trials + start, draw * trials + stop)
            answers = self._objective.right(np.array([mapping[row] for row in rows]), numbers)
            for row, right in zip(rows, answers, strict=True):
                known = self._right.get((draw, row), np.zeros(0, np.int64))
                self._right[draw, row] = np.concatenate([known, right])
        return share

    def _pool(self, draw: int, entries: list["_Entry"]) -> Pool:
        right = np.zeros((len(entries), self._objective.trials), np.int64)
        known = [self._right[draw, entry.row] for entry in entries]
        for index, answers in enumerate(known):
            right[index, : len(answers)] = answers
        number = {entry.row: index for index, entry in enumerate(entries)}
        row = np.array([number[entry.row] for entry in entries])
        costs = np.array([entry.costs for entry in entries])
        return Pool(costs, row, right, np.array([len(answers) for answers in known]))


def race_for(
    tables: CostTables, objective: RobustnessObjective, budget: Budget, focused: bool = False
) -> Race | None:
    """What decides who meets how many draws in a search; None where layers are faulty one by one.

    Raises `InputError` for an effort that does not suffice, or that goes with "layerwise": its
    draws serve all mappings at once.
    """
    if objective.strategy == "layerwise":
        if budget.effort:
            raise InputError(
                "search.effort: with faults.strategy = layerwise all mappings share their draws, "
                "there is nothing to share out; leave it at 0"
            )
        return None
    layers, devices = tables.latency_ms.shape
    if few(np.full(layers, devices)):
        return Race(objective, RacePlan(budget.effort, 1, devices**layers))
    calls, newcomers = populations(budget, focused), budget.population * (1 + budget.renew)
    return Race(objective, RacePlan(budget.effort, calls, newcomers, budget.population))


def settled(tables: CostTables, race: Race, most: int | None, near: Caps = NO_CAPS) -> Settle:
    """The front of all that a race has measured, on equal draws, `most` mappings of it.

    At least half of these keep within `near`, if there are so many. None: the whole front.
    """

    def keep(mappings: np.ndarray, points: np.ndarray) -> np.ndarray:
        is_near = violation(costs(tables, mappings), near) <= 0
        objectives = points.astype(np.float32)
        return thinned(objectives, is_near, len(points) if most is None else most)

    def settle(draw: int) -> Evaluated:
        mappings, spending, drop = race.settle(draw, keep)
        objectives = np.column_stack([spending, drop]).astype(np.float32)
        return Evaluated(mappings, objectives, np.zeros(len(drop), np.float32))

    return settle


def contested(pool: Pool) -> Int[np.ndarray, " _"]:
    """Who is to meet more draws, the most urgent first; empty where every place is settled.

    A rival is on the front as it is known. It clearly beats who costs no less and gets fewer images
    right on the draws both met, by more than this gap may still move. Whoever no rival clearly
    beats is open: first the front itself, where luck puts mappings too, then those that the least
    share of their margin keeps from it; among equals those with the fewest draws, among these the
    nearest to a rival.
    """
    trials = pool.right.shape[1]
    if (pool.met == trials).all():
        return np.zeros(0, np.int64)
    rivals = np.flatnonzero(non_dominated(points(pool, estimates(pool))))
    pairs = compare(pool, rivals)
    margin = margins(pool, pairs, rivals)
    sure = (margin == 0) & ((pairs.gap > 0) | ((pairs.gap == 0) & pairs.cheaper))
    share = np.where(sure, np.inf, 0.0)
    np.divide(pairs.gap, margin, out=share, where=margin > 0)
    behind = np.where(pairs.no_dearer, share, 0.0).max(axis=1).clip(0)
    near = np.where(pairs.comparable & (margin > 0), np.abs(share), np.inf).min(axis=1)
    behind[rivals] = -1
    wanted = np.flatnonzero((behind <= 1) & (pool.met < trials))
    return wanted[np.lexsort((near[wanted], pool.met[wanted], behind[wanted]))]


def estimates(pool: Pool) -> Float[np.ndarray, " N"]:
    """Images that each mapping gets right per draw, as if all had met the draws of those with most.

    Whoever met fewer is placed beside one that has: that one's mean, less the gap on the draws both
    met. It is taken from those that beat it there, else from all, the one that differs least. So
    easy first draws flatter nobody, and who is beaten stays beaten.
    """
    means = pool.right.sum(axis=1) / pool.met
    full = np.flatnonzero(pool.met == pool.met.max())
    short = np.flatnonzero(pool.met < pool.met.max())
    if short.size:
        pairs = PairedCounts(*(column[short] for column in compare(pool, full)))
        beats = pairs.no_dearer & ((pairs.gap > 0) | ((pairs.gap == 0) & pairs.cheaper))
        beside = np.lexsort((pairs.squares / pairs.common, ~beats), axis=1)[:, :1]
        gap = np.take_along_axis(pairs.gap, beside, axis=1)
        means[short] = (means[full[beside]] - gap)[:, 0]
    return means


def compare(pool: Pool, rivals: Int[np.ndarray, " F"]) -> PairedCounts:
    """All pairs. Counts are whole numbers, so sums are exact and know no order."""
    common = np.minimum(pool.met[:, None], pool.met[rivals])
    answers = pool.right.astype(np.float64)  # 0 under draws not met: products are of common draws
    sums, squares = answers.cumsum(axis=1), (answers**2).cumsum(axis=1)
    rows = np.arange(len(answers))[:, None]
    gaps = sums[rivals, common - 1] - sums[rows, common - 1]
    spread = squares[rivals, common - 1] + squares[rows, common - 1]
    no_more = [mine[:, None] >= mine[rivals] for mine in pool.costs.T]
    no_less = [mine[:, None] <= mine[rivals] for mine in pool.costs.T]
    under, over = no_more[0] & no_more[1], no_less[0] & no_less[1]
    return PairedCounts(
        common,
        gaps / common,
        spread - 2 * answers @ answers[rivals].T,
        under,
        under & ~over,
        under | over,
    )


def margins(
    pool: Pool, pairs: PairedCounts, rivals: Int[np.ndarray, " F"]
) -> Float[np.ndarray, "N F"]:
    """By how many images per draw a gap may still move until both have met all K draws.

    Student's interval, one-sided 97.5 %, of a mean of `common` draws out of K (hence 1/common -
    1/K). A few draws say little of a pair's own spread, so it is weighed with that of all
    comparable pairs (moderated t: Smyth 2004), which is taken as one image at least.
    """
    trials = pool.right.shape[1]
    free = pairs.common - 1
    about = np.maximum(pairs.squares - pairs.common * pairs.gap**2, 0)
    same = pool.row[:, None] == pool.row[rivals]
    usual = about[pairs.comparable & ~same].sum() / max(free[pairs.comparable & ~same].sum(), 1)
    variance = (_PRIOR * max(usual, 1.0) + about) / (_PRIOR + free)
    quantile = stats.t.ppf(_QUANTILE, _PRIOR + np.arange(trials))[free]
    margin = quantile * np.sqrt(variance * (1 / pairs.common - 1 / trials))
    return np.where(same, 0.0, margin)


def points(pool: Pool, right: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 3"]:
    """Latency, energy, and minus the images right: all to be small."""
    return np.column_stack([pool.costs, -right])
