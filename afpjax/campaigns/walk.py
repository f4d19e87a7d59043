"""Campaigns of single faults: which trials run, until when.

A trial is known by its stratum and its number there, and its outcome is a pure function of these
and the seed. So a campaign is a walk over fixed looks: strata that have not stopped get trials up
to their next look, and whether a stratum stops follows from its first trials alone. How trials
are batched, spread over devices or machines, or interrupted cannot be seen in what comes out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from afpjax.campaigns.counts import OutcomeCounts
from afpjax.campaigns.strata import Stratum, faults_of
from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.sites import Fault
from afpjax.inputs.errors import InputError
from afpjax.statistics.sampling import equal, neyman, sample_size
from afpjax.statistics.sequential import level, looks, stopped

DESIGNS = ("single", "neyman", "exhaustive")
PILOT = 16  # trials of each stratum before the rest are shared out
CHUNK = 512  # trials that an evaluator is handed at once


@dataclass(frozen=True)
class Rules:
    """How many trials a campaign spends where.

    `design`: "single" gives every stratum what `margin` needs, and stops it early where
    `sequential`; "neyman" shares `trials` (0: what the margin needs of the whole) out after a
    pilot; "exhaustive" takes every fault. `trials` caps each stratum's for "single", 0 for no cap.
    """

    design: str = "single"
    kind: str = "wilson"  # of intervals
    margin: float = 0.1
    confidence: float = 0.95
    trials: int = 0
    sequential: bool = True


class TrialRange(NamedTuple):
    """Trials start … stop - 1 of a stratum."""

    stratum: int
    start: int
    stop: int


class Trials:
    """How many trials a campaign's strata get: known before the first of them."""

    def __init__(self, strata: Sequence[Stratum], rules: Rules) -> None:
        self.strata, self.rules = tuple(strata), rules
        self.population = np.array([stratum.population for stratum in strata], np.int64)
        self.sizes = np.array([stratum.size for stratum in strata], np.int64)
        if rules.design == "exhaustive" and (self.sizes > self.population).any():
            raise InputError(
                "campaign.count: an exhaustive campaign has one fault in a trial; use "
                "campaign.design = single for several"
            )

    @property
    def level(self) -> float:
        """The confidence that intervals are computed at, so that they cover after stopping."""
        rules = self.rules
        if rules.design == "single" and rules.sequential:
            return level(rules.kind, rules.margin, rules.confidence)
        return rules.confidence

    def most(self) -> Int64[np.ndarray, "S"]:
        """The most trials that each stratum can get; for neyman, as many as a pilot shows alike."""
        rules, population = self.rules, self.population
        if rules.design == "exhaustive":
            return population
        if rules.design == "neyman":
            return equal(self._total(), population, at_least=self._pilot())
        most = np.minimum(sample_size(self.sizes, rules.margin, rules.confidence), population)
        return np.minimum(most, rules.trials) if rules.trials else most

    def least(self) -> Int64[np.ndarray, "S"]:
        """The fewest trials that each stratum can get: those before its first stop."""
        rules = self.rules
        if rules.design != "single" or not rules.sequential:
            return self.most()
        sizes = self.sizes.tolist()
        first = [int(looks(rules.margin, rules.confidence, size)[0]) for size in sizes]
        return np.minimum(np.array(first, np.int64), self.most())

    def _pilot(self) -> Int64[np.ndarray, "S"]:
        return np.minimum(PILOT, self.population)

    def _total(self) -> int:
        """Trials of a Neyman campaign, its pilot included."""
        rules, pilot = self.rules, int(self._pilot().sum())
        whole = np.array([self.sizes.sum()])
        needed = int(sample_size(whole, rules.margin, rules.confidence)[0])
        total = rules.trials or max(needed, pilot)
        if total < pilot:
            raise InputError(
                f"campaign.trials: {total} are fewer than the pilot's {pilot}, {PILOT} in each of "
                f"{len(self.strata)} strata; give more, or coarser campaign.strata"
            )
        return min(total, int(self.population.sum()))


class Walk(Trials):
    """One campaign under way; `counts` has what is known of it."""

    def __init__(
        self,
        evaluator: Evaluator,
        strata: Sequence[Stratum],
        rules: Rules,
        counts: OutcomeCounts,
        *,
        seed: int,
        images: int,
        shared: str = "stored",
    ) -> None:
        super().__init__(strata, rules)
        self.counts = counts
        self._evaluator, self._seed, self._images = evaluator, seed, images
        self._shared = shared

    def run(self, advance: Callable[[int], None]) -> None:
        """Run to the end; `advance` is told how many trials are done or need not be."""
        if self.rules.design == "neyman":
            self._neyman(advance)
        elif self.rules.design == "single" and self.rules.sequential:
            self._looks(advance)
        else:
            self._upto(self.most(), advance)

    def _looks(self, advance: Callable[[int], None]) -> None:
        most, rules = self.most(), self.rules
        each = [
            looks(rules.margin, rules.confidence, size).tolist() for size in self.sizes.tolist()
        ]
        open_ = np.ones(len(most), bool)
        while open_.any():
            target = self.counts.trials.copy()
            for place in np.flatnonzero(open_):
                later = [look for look in each[place] if look > target[place]]
                target[place] = min(later[0] if later else most[place], most[place])
            self._upto(target, advance)
            done = self._stopped() | (target >= most)
            advance(int((most - target)[open_ & done].sum()))
            open_ &= ~done

    def _stopped(self) -> Bool[np.ndarray, "S"]:
        rules = self.rules
        return stopped(
            rules.kind,
            self.counts.sums("sdc1"),
            self.counts.trials,
            self.sizes,
            margin=rules.margin,
            confidence=rules.confidence,
        )

    def _neyman(self, advance: Callable[[int], None]) -> None:
        total, pilot = self._total(), self._pilot()
        self._upto(pilot, advance)
        sums, squares = (of("sdc1") for of in (self.counts.sums, self.counts.squares))
        shares = neyman(total, self.population, pilot, sums, squares=squares)
        self._upto(shares, advance)

    def _upto(self, target: Int64[np.ndarray, "S"], advance: Callable[[int], None]) -> None:
        """Bring strata to `target` trials, many strata's in one call of the evaluator."""
        for parts in self._chunks(target):
            faults = [fault for part in parts for fault in self._faults(part)]
            answers = self._evaluator.evaluate_sites(faults, advance, shared=self._shared)
            place = 0
            for part in parts:
                count = part.stop - part.start
                self.counts.add(part.stratum, part.start, answers[place : place + count])
                place += count

    def _chunks(self, target: Int64[np.ndarray, "S"]) -> Iterator[list[TrialRange]]:
        parts, room = list[TrialRange](), CHUNK
        for place, start in enumerate(self.counts.trials.tolist()):
            while start < target[place]:
                stop = min(int(target[place]), start + room)
                parts.append(TrialRange(place, start, stop))
                room, start = room - (stop - start), stop
                if not room:
                    yield parts
                    parts, room = [], CHUNK
        if parts:
            yield parts

    def _faults(self, part: TrialRange) -> Iterator[Fault]:
        stratum = self.strata[part.stratum]
        trials = range(part.start, part.stop)
        return faults_of(self._evaluator.quantized, stratum, trials, **self.source(stratum))

    def source(self, stratum: Stratum) -> dict[str, Any]:
        """What a stratum's faults follow from, beside their trials: arguments of `faults_of`."""
        return {
            "seed": self._seed,
            "images": 1 if stratum.target == "weights" else self._images,
            "in_order": self.rules.design == "exhaustive",
        }
