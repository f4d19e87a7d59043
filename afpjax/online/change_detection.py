"""When to act: a sequential test on the share of canaries that fail, batch after batch.

Images of a batch meet the same weight faults, so they are not independent; batches may not be
either. An e-detector needs neither (Shin, Ramdas and Rinaldo, E-detectors, New England Journal of
Statistics in Data Science, 2023): with X in [0, 1] the share of a batch's canaries that fail, and
H0: E[X | past] <= limit, each L(b) = 1 + b (X - limit), 0 <= b < 1 / limit, has a mean of 1 or less
under H0, and so

    M_t(b) = max(M_{t-1}(b), 1) L_t(b)

is an e-CUSUM, as is the mean over several b. An alarm where it reaches c comes on average after c
batches or later while H0 holds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from afpjax.inputs.errors import InputError
from afpjax.statistics.intervals import wilson

#: Bets, as shares of the largest: small ones see small excesses, large ones see large ones soon.
_BETS = (0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.7)

#: M_t for each bet b.
Evidence = Float[np.ndarray, " bets"]


class AlarmRule(NamedTuple):
    """Share of failing canaries that is tolerated, and the evidence (c) at which an alarm comes."""

    limit: float
    alarm: float

    @property
    def bets(self) -> Evidence:
        return np.array(_BETS) / self.limit

    def updated(self, evidence: Evidence, share: float) -> Evidence:
        """The evidence after one more batch, of which this share of canaries failed."""
        return np.maximum(evidence, 1.0) * (1.0 + self.bets * (share - self.limit))

    def alarms(self, evidence: Evidence) -> bool:
        """Whether the evidence suffices for an alarm."""
        return float(evidence.mean()) >= self.alarm

    def count_alarms(self, shares: Sequence[float] | Float[np.ndarray, " T"]) -> int:
        """Alarms over a stream of batches; evidence begins anew after each alarm."""
        count, evidence = 0, no_evidence()
        for share in shares:
            evidence = self.updated(evidence, float(share))
            if self.alarms(evidence):
                count, evidence = count + 1, no_evidence()
        return count


def alarm_rule(limit: float, batches_per_hour: float, false_alarms_per_hour: float) -> AlarmRule:
    """The rule whose false alarms are so many per hour at most, on average.

    Raises `InputError` for a limit outside (0, 1), and for false alarms that every batch gives.
    """
    if not 0 < limit < 1:
        raise InputError(f"online.theta: a share of {limit:.4g} failing canaries is outside (0, 1)")
    alarm = batches_per_hour / false_alarms_per_hour
    if alarm <= 1:
        raise InputError(
            f"online.false_alarms: {false_alarms_per_hour:g} an hour, but there are only "
            f"{batches_per_hour:g} batches; give fewer"
        )
    return AlarmRule(limit, alarm)


def no_evidence() -> Evidence:
    """The evidence before the first batch."""
    return np.zeros(len(_BETS))


def observed_share(
    shares: Sequence[float] | Float[np.ndarray, " W"], canaries: int
) -> tuple[float, tuple[float, float]]:
    """Share of failing canaries over the last batches, and its 95 % interval.

    Wilson's interval for as many independent canaries as the spread between batches says that they
    are worth (one a batch where all batches are alike); for a window fixed beforehand, so it
    describes: the alarm does not rest on it.
    """
    values = np.asarray(shares, np.float64)
    mean, batches = float(values.mean()), len(values)
    count = float(batches)
    variance = float(values.var(ddof=1)) / batches if batches > 1 else 0.0
    if variance > 0:
        count = min(max(mean * (1 - mean) / variance, 1.0), float(batches * canaries))
    low, high = wilson(mean * count, count)
    return mean, (min(low, mean), max(high, mean))
