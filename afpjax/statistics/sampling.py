"""How many trials, which stratum they go to, and which of its faults they are.

A stratum is a set of N faults, one layer's bit for instance. `sample_size` says how many of them a
margin needs, `equal` and `neyman` share a total out among strata. All are integers that add up
exactly, the same on every machine.

`places` samples without replacement as a pure function: a pseudo-random permutation of a stratum's
N faults, evaluated at some trial numbers. So a trial's fault depends on (seed, stratum, t) alone,
never on how many trials there are, how they are cut in chunks, or who runs them. Large strata go
through a Feistel network (Luby and Rackoff, SIAM J. Comput. 17, 1988) on the least even number of
bits that holds N, walking along its cycles until it is back below N (Black and Rogaway, CT-RSA
2002). Small ones, for which a Feistel network's halves are too narrow to be random, are sorted by
their hash.
"""

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer, Num, UInt64
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.proportions import CONFIDENCE, check_populations

ROUNDS = 8
SORTED = 2**12  # strata of so many faults or fewer are sorted
LARGEST = 2**62
_WORDS = 2**64
_GOLDEN = 0x9E3779B97F4A7C15


def sample_size(
    population: Integer[Any, "*S"],
    margin: float,
    confidence: float = CONFIDENCE,
    *,
    p: Float[Any, "*S"] | float = 0.5,
) -> Int64[np.ndarray, "*S"]:
    """Trials after which the estimate is within `margin` of the truth, for every stratum.

    `population` up to 2^64 - 1 (integers of any kind); `p` is the proportion that is expected, 0.5
    where nothing is known. At least 1, at most N. Raises `InputError` for an empty stratum, a
    margin or a confidence outside (0, 1), and a p outside (0, 1).

    n = N / (1 + e² (N - 1) / (t² p (1 - p))), rounded up, in rational numbers (Leveugle, Calvez,
    Maistri and Vanhauwaert, DATE 2009).
    """
    check_margin(margin, confidence)
    sizes, rates = np.broadcast_arrays(np.asarray(population), np.asarray(p, np.float64))
    check_populations(sizes)
    if not ((rates > 0) & (rates < 1)).all():
        raise InputError(f"sample size: p of {rates.min()} to {rates.max()}; it must be in (0, 1)")
    t = float(stats.norm.isf((1 - confidence) / 2))
    wanted = [
        _leveugle(int(size), Fraction(t * t * rate * (1 - rate) / margin**2))
        for size, rate in zip(sizes.ravel(), rates.ravel().tolist(), strict=True)
    ]
    return np.asarray(wanted, np.int64).reshape(sizes.shape)


def check_margin(margin: float, confidence: float) -> None:
    """Raise `InputError` for a margin or a confidence that no sample has."""
    if not 0 < margin < 1:
        raise InputError(f"margin: {margin} is outside (0, 1); give 0.01, for instance")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: {confidence} is outside (0, 1); give 0.95, for instance")


def equal(
    total: int, population: Integer[Any, "H"], *, at_least: Integer[Any, "H"] | int = 1
) -> Int64[np.ndarray, "H"]:
    """Share `total` trials out evenly; small strata are exhausted, see `apportion`."""
    return apportion(total, np.ones(len(population)), at_least, population)


def neyman(
    total: int,
    population: Integer[Any, "H"],
    trials: Integer[Any, "H"],
    successes: Num[Any, "H"],
    *,
    squares: Num[Any, "H"] | None = None,
) -> Int64[np.ndarray, "H"]:
    """Share `total` trials out, a pilot's included, so that the network's estimate is sharpest.

    `trials`, `successes` and `squares` (sums of y and of y²; without the latter y is 0 or 1) are
    the pilot's. Shares are N_h · s_h (Neyman, J. R. Stat. Soc. 97, 1934), where a stratum's pilot
    counts one trial more, half a success: one that saw nothing still gets some. See `apportion`.
    """
    spread = deviation(trials, successes, squares)
    return apportion(total, np.asarray(population, np.float64) * spread, trials, population)


def deviation(
    trials: Integer[Any, "H"], successes: Num[Any, "H"], squares: Num[Any, "H"] | None = None
) -> Float[np.ndarray, "H"]:
    """Standard deviation of a stratum's outcomes, shrunk so that it is never 0, float64."""
    count, hits = np.asarray(trials, np.float64), np.asarray(successes, np.float64)
    mean = (hits + 0.5) / (count + 1)
    variance = mean * (1 - mean)
    if squares is not None:
        within = np.asarray(squares, np.float64) - hits**2 / np.maximum(count, 1)
        variance = np.minimum(variance, (np.maximum(within, 0.0) + 0.5) / (count + 1))
    return np.sqrt(variance)


def apportion(
    total: int,
    shares: Float[Any, "H"],
    at_least: Integer[Any, "H"] | int,
    at_most: Integer[Any, "H"],
) -> Int64[np.ndarray, "H"]:
    """Whole numbers that add up to `total` exactly, near `shares` scaled, within their bounds.

    Every stratum gets max(least, min(most, scale · share)), with the one scale that exhausts the
    total; what rounding down leaves over goes to the largest remainders, the first stratum first
    where they tie. Raises `InputError` where the bounds do not allow the total.
    """
    check_populations(at_most)
    most = np.asarray(at_most).astype(np.int64)
    least = np.minimum(np.broadcast_to(np.asarray(at_least, np.int64), most.shape), most)
    fewest, all_of_them = sum(least.tolist()), sum(most.tolist())
    if not fewest <= total <= all_of_them:
        raise InputError(
            f"allocation: {total} trials for {len(most)} strata; their pilots have {fewest} "
            f"already and there are {all_of_them} faults; give a number between"
        )
    ideal = _filled(total, np.asarray(shares, np.float64), least, most)
    return _rounded(total, ideal, least, most)


def _leveugle(size: int, ratio: Fraction) -> int:
    return max(1, min(size, ceil(size * ratio / (ratio + size - 1))))


def _filled(
    total: int, shares: np.ndarray, least: np.ndarray, most: np.ndarray
) -> Float[np.ndarray, "H"]:
    """max(least, min(most, scale · share)) with the largest scale that stays within the total."""
    shares = np.maximum(shares, shares.max() * 1e-12) if shares.max() > 0 else np.ones(len(shares))
    low, high = 0.0, float((most / shares).max())
    for _ in range(200):
        middle = (low + high) / 2
        within = np.clip(middle * shares, least, most).sum() <= total
        low, high = (middle, high) if within else (low, middle)
    return np.clip(low * shares, least, most)


def _rounded(
    total: int, ideal: np.ndarray, least: np.ndarray, most: np.ndarray
) -> Int64[np.ndarray, "H"]:
    """Rounded down, then single trials added or taken, by largest remainder, up to the total."""
    counts = np.clip(np.floor(ideal).astype(np.int64), least, most)
    while left := total - sum(counts.tolist()):
        step = 1 if left > 0 else -1
        movable = np.flatnonzero(counts < most if step > 0 else counts > least)
        order = np.argsort(-step * (ideal - counts)[movable], kind="stable")
        size = step * max(abs(left) // len(movable), 1)
        chosen = movable[order[: abs(left)]]
        counts[chosen] = np.clip(counts[chosen] + size, least[chosen], most[chosen])
    return counts


def places(
    seed: int, stratum: int, start: int, stop: int, population: int
) -> UInt64[np.ndarray, "T"]:
    """Where the faults of trials start … stop - 1 lie in a stratum: numbers in [0, population).

    `seed` and `stratum` are any 64-bit integers. Raises `InputError` for trials that the stratum
    does not have, and strata of no fault or of more than 2^62.
    """
    if not 0 < population <= LARGEST:
        raise InputError(
            f"stratum {stratum}: it has {population} faults; a sample needs 1 to 2^62 of them"
        )
    if not 0 <= start <= stop <= population:
        raise InputError(
            f"stratum {stratum}: trials {start} to {stop - 1} of {population} faults, which are "
            "drawn without replacement; ask for no more than there are"
        )
    key = _word(_word(seed) + stratum * _GOLDEN + 1)
    if population <= SORTED:
        hashes = mix(np.arange(population, dtype=np.uint64) + np.uint64(key))
        return np.argsort(mix(hashes ^ np.uint64(key)), kind="stable").astype(np.uint64)[start:stop]
    return _walk(np.arange(start, stop, dtype=np.uint64), key, population)


def mix(word: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection of 64 bits."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _walk(numbers: UInt64[np.ndarray, "T"], key: int, population: int) -> UInt64[np.ndarray, "T"]:
    """The permutation of a power of 4, again and again where it leads beyond the population."""
    half = -(-(population - 1).bit_length() // 2)
    keys = [_word(key + (number + 1) * _GOLDEN) for number in range(ROUNDS)]
    faults = _feistel(numbers, keys, half)
    beyond = np.flatnonzero(faults >= population)
    while beyond.size:
        faults[beyond] = _feistel(faults[beyond], keys, half)
        beyond = beyond[faults[beyond] >= population]
    return faults


def _feistel(
    numbers: UInt64[np.ndarray, "T"], keys: list[int], half: int
) -> UInt64[np.ndarray, "T"]:
    low = np.uint64(2**half - 1)
    left, right = numbers >> np.uint64(half), numbers & low
    for key in keys:
        drawn = mix(mix(right + np.uint64(key)) + np.uint64(key)) >> np.uint64(64 - half)
        left, right = right, left ^ drawn
    return (left << np.uint64(half)) | right


def _word(number: int) -> int:
    """A 64-bit hash of an integer."""
    return int(mix(np.asarray([number % _WORDS], np.uint64))[0])
