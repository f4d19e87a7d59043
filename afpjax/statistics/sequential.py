"""When a stratum has enough trials: stopping that keeps its coverage.

A stratum is looked at after fixed numbers of trials and stops at the first look at which its
interval is narrow enough. Looking often is not free: outcomes that happen to look sure stop early.
A rule on Wald's interval stops at a run of zeros with an interval of no width, and a nominal 99 %
covers 28 % then. Here the looks are few and fixed, the interval is one that knows what zeros mean,
and it is computed at a higher confidence, found so that the interval *at the stop* covers.

Guarantee: `level` is the least confidence of a grid at which the coverage at the stop, from an
exact recursion over the looks (Armitage, McPherson and Rowe, J. R. Stat. Soc. A 132, 1969; Schultz
et al., Biometrics 29, 1973), is at least the wanted confidence for every p of a grid from 1e-4 to
1/2, for 0-or-1 outcomes of a stratum without end. By symmetry that holds for 1 - p. Fractional
outcomes with the same mean vary less. In finite strata the later looks see nearly everything, and
simulation stands in for a proof (tests/campaigns/test_coverage.py). Beyond `RECURSION` trials alpha
is spent equally over the looks, which is safe by Bonferroni's inequality.

What happens at a look depends on the trials before it alone, so a campaign that is resumed, or run
in another order or elsewhere, stops at the same places.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, Num
from scipy import stats

from afpjax.statistics.proportions import CONFIDENCE, check_kind, interval
from afpjax.statistics.sampling import check_margin, sample_size

RATIO = 1.6
RECURSION = 20_000  # trials up to which the recursion takes a second or two
ENDLESS = 2**62
GRID = tuple(np.exp(np.linspace(np.log(1e-4), np.log(0.5), 160)).tolist())
_TAIL = 1e-12  # binomial probabilities that the recursion leaves out


def looks(
    margin: float, confidence: float = CONFIDENCE, population: int = ENDLESS
) -> Int64[np.ndarray, "Q"]:
    """Numbers of trials at which a stratum of `population` faults may stop, ascending.

    The last is `sample_size`; the first is about where a stratum that showed nothing can have a
    half-width of `margin`. Each of the others is `RATIO` times the one before, rounded up. Raises
    `InputError` as `sample_size` does.
    """
    last = int(sample_size(np.asarray(population), margin, confidence))
    quantile = float(stats.norm.isf((1 - confidence) / 2))
    size, found = max(quantile**2 * (1 / (2 * margin) - 1), 1.0), list[int]()
    while np.ceil(size) < last:
        found.append(int(np.ceil(size)))
        size *= RATIO
    return np.asarray([*found, last], np.int64)


def stopped(
    kind: str,
    successes: Num[Any, "*S"],
    trials: Integer[Any, "*S"],
    population: Integer[Any, "*S"],
    *,
    margin: float,
    confidence: float = CONFIDENCE,
) -> Bool[np.ndarray, "*S"]:
    """Whether strata are done, after `trials` outcomes with the sum `successes`.

    Those between two looks go on; those at their last look stop whatever their interval, which at
    p near 1/2 is then a little wider than the margin. Report `interval` with `level`'s confidence.
    """
    at = level(kind, margin, confidence)
    hits, count, size = np.broadcast_arrays(
        np.asarray(successes), np.asarray(trials), np.asarray(population)
    )
    last = sample_size(size, margin, confidence)
    low, high = interval(kind, hits, count, population=size, confidence=at)
    look = np.isin(count, looks(margin, confidence))
    return np.asarray((look & ((high - low) / 2 <= margin)) | (count >= last))


def level(kind: str, margin: float, confidence: float = CONFIDENCE) -> float:
    """The confidence at which intervals are to be computed so that they cover at the stop."""
    check_kind(kind, confidence)
    check_margin(margin, confidence)
    return _level(kind, float(margin), float(confidence))


@lru_cache(maxsize=64)
def _level(kind: str, margin: float, confidence: float) -> float:
    at = looks(margin, confidence)
    if at[-1] > RECURSION:
        return 1 - (1 - confidence) / len(at)
    shares = np.linspace(1.0, 1 / len(at), 16)  # of alpha, down to Bonferroni's
    low, high = -1, len(shares) - 1
    while high - low > 1:
        middle = (low + high) // 2
        tried = 1 - (1 - confidence) * shares[middle]
        covers = coverage(kind, at, margin, tried, np.asarray(GRID)).min() >= confidence
        low, high = (low, middle) if covers else (middle, high)
    return float(1 - (1 - confidence) * shares[high])


def coverage(
    kind: str,
    looks: Int64[np.ndarray, "Q"],
    margin: float,
    level: float,
    rates: Float[np.ndarray, "R"],
) -> Float[np.ndarray, "R"]:
    """How often the interval at the stop holds each true rate p, exactly, for 0-or-1 outcomes."""
    stages = []
    for count in looks.tolist():
        low, high = _intervals(kind, count, level)
        stages.append((count, low, high, (high - low) / 2 <= margin))
    stages[-1][3][:] = True
    return np.asarray([_covered(stages, rate) for rate in rates.tolist()])


def _intervals(kind: str, count: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The intervals of 0 … count successes; the upper half mirrors the lower."""
    half = np.arange(count // 2 + 1)
    low, high = interval(kind, half, np.full(half.shape, count), confidence=level)
    rest = slice(None, count - count // 2)
    return (
        np.concatenate([low, 1 - high[rest][::-1]]),
        np.concatenate([high, 1 - low[rest][::-1]]),
    )


def _covered(stages: list[Any], rate: float) -> float:
    """The recursion: probabilities of the successes so far, of those that have not stopped."""
    alive, first, before, total = np.ones(1), 0, 0, 0.0
    for count, low, high, stop in stages:
        step, start = _binomial(count - before, rate)
        alive, first, before = np.convolve(alive, step), first + start, count
        here = slice(first, first + len(alive))
        holds = (low[here] <= rate) & (rate <= high[here])
        total += float(alive[stop[here] & holds].sum())
        alive = np.where(stop[here], 0.0, alive)
        if not (going := np.flatnonzero(alive > _TAIL)).size:
            break
        first, alive = first + int(going[0]), alive[going[0] : going[-1] + 1]
    return total


def _binomial(trials: int, rate: float) -> tuple[np.ndarray, int]:
    """Probabilities of the likely numbers of successes, and the first of these numbers."""
    low = max(int(stats.binom.ppf(_TAIL, trials, rate)) - 1, 0)
    high = min(int(stats.binom.isf(_TAIL, trials, rate)) + 1, trials)
    return stats.binom.pmf(np.arange(low, high + 1), trials, rate), low
