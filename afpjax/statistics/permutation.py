"""Sampling without replacement as a pure function: trial t of a stratum is a place in it.

`places` is a pseudo-random permutation of a stratum's N faults, evaluated at some trial numbers.
So a trial's fault depends on (seed, stratum, t) alone, never on how many trials there are, how they
are cut in chunks, or who runs them. Large strata go through a Feistel network (Luby and Rackoff,
SIAM J. Comput. 17, 1988) on the least even number of bits that holds N, walking along its cycles
until it is back below N (Black and Rogaway, CT-RSA 2002). Small ones, for which a Feistel network's
halves are too narrow to be random, are sorted by their hash.
"""

import numpy as np
from jaxtyping import UInt64

from afpjax.inputs.errors import InputError

ROUNDS = 8
SORTED = 2**12  # strata of so many faults or fewer are sorted
LARGEST = 2**62
_WORDS = 2**64
_GOLDEN = 0x9E3779B97F4A7C15


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
    found = _feistel(numbers, keys, half)
    beyond = np.flatnonzero(found >= population)
    while beyond.size:
        found[beyond] = _feistel(found[beyond], keys, half)
        beyond = beyond[found[beyond] >= population]
    return found


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
