"""What a campaign has counted so far of each stratum: enough for every figure it reports."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from afpjax.evaluate.metric import (
    CHANGED,
    CLASS_SHIFT,
    NON_FINITE,
    RIGHT_BIT,
    SDC1,
    SDC5,
    SDC10,
    SDC20,
)

#: Name of an outcome -> its flag, in the order they are reported.
OUTCOMES = {
    "sdc1": SDC1,
    "sdc5": SDC5,
    "sdc10": SDC10,
    "sdc20": SDC20,
    "non_finite": NON_FINITE,
}
KEPT = 20  # of the worst faults


class Worst(NamedTuple):
    """One trial, by how many of its images it brings to another class."""

    sdc: float
    stratum: int
    trial: int


class OutcomeCounts:
    """Sums over the trials of S strata; trials may come in any order, each once."""

    def __init__(self, strata: int, images: int, said: Int[np.ndarray, "B"], classes: int) -> None:
        self.images, self._said = images, said.astype(np.int64)
        self.trials = np.zeros(strata, np.int64)
        self._counts = {name: np.zeros(strata, np.int64) for name in (*OUTCOMES, "right", "masked")}
        self._tolerable = np.zeros(strata, np.int64)
        self._squares = {name: np.zeros(strata, np.int64) for name in ("sdc1", "right")}
        self._critical = np.zeros(strata, np.int64)
        self.confusion = np.zeros((classes, classes), np.int64)
        self.worst: list[Worst] = []

    def add(self, stratum: int, start: int, answers: Int[np.ndarray, "K B"]) -> None:
        """Count the outcomes (`metric.OUTCOME`) of trials start … start + K - 1 of a stratum."""
        self.trials[stratum] += len(answers)
        held = {name: answers & flag > 0 for name, flag in OUTCOMES.items()}
        held["right"] = answers & RIGHT_BIT > 0
        held["masked"] = answers & CHANGED == 0
        for name, hits in held.items():
            by_trial = hits.sum(axis=1)
            self._counts[name][stratum] += by_trial.sum()
            if name in self._squares:
                self._squares[name][stratum] += (by_trial**2).sum()
        quiet = ~(held["masked"] | held["sdc1"] | held["sdc10"] | held["non_finite"])
        self._tolerable[stratum] += quiet.sum()
        sdc = held["sdc1"]
        self._critical[stratum] += sdc.any(axis=1).sum()
        trial, image = np.nonzero(sdc)
        np.add.at(self.confusion, (self._said[image], answers[trial, image] >> CLASS_SHIFT), 1)
        self._keep_worst(stratum, start, sdc.mean(axis=1))

    def _keep_worst(self, stratum: int, start: int, sdc: Float[np.ndarray, "K"]) -> None:
        found = [Worst(float(sdc[k]), stratum, start + int(k)) for k in np.flatnonzero(sdc)]
        # A total order, so that what is kept does not depend on the order of arrival.
        ranked = sorted([*self.worst, *found], key=lambda w: (-w.sdc, w.stratum, w.trial))
        self.worst = ranked[:KEPT]

    def sums(self, name: str) -> Float[np.ndarray, "S"]:
        """Sum over the trials of the share of images with this outcome, or that are right."""
        return self._counts[name] / self.images

    def squares(self, name: str) -> Float[np.ndarray, "S"]:
        """Sum of the squares of these shares: of `sdc1` or `right`."""
        return self._squares[name] / self.images**2

    @property
    def critical(self) -> Int[np.ndarray, "S"]:
        """Trials that bring any image to another class."""
        return self._critical

    def shares(self, members: Sequence[int], weights: Float[np.ndarray, "M"]) -> dict[str, float]:
        """Share of every outcome over some strata, weighted; `masked`, `tolerable` and flags.

        Tolerable is what changed some logit but neither the class nor its probability by 10 %.
        """
        named = {"masked": self._counts["masked"], "tolerable": self._tolerable}
        named |= {name: self._counts[name] for name in OUTCOMES}
        places = list(members)
        per_trial = self.trials[places] * self.images
        return {name: float((weights * (n[places] / per_trial)).sum()) for name, n in named.items()}
