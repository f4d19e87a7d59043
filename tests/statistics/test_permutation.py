"""Sampling without replacement: a bijection, random enough, the same whatever the chunks."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.sampling import LARGEST, SORTED, places

SIZES = [*range(1, 40), 255, 256, 257, SORTED - 1, SORTED, SORTED + 1, 2**14, 2**14 + 1, 10_007]


@pytest.mark.parametrize("size", SIZES)
def test_every_fault_comes_up_once(size):
    for seed in (0, 7, 2**64 - 1):
        found = places(seed, 3, 0, size, size)
        assert found.dtype == np.uint64
        np.testing.assert_array_equal(np.sort(found), np.arange(size, dtype=np.uint64))


@pytest.mark.parametrize("size", [1, 30, SORTED, 5_000, 2**40 + 3, LARGEST])
def test_chunks_do_not_matter(size):
    stop = min(size, 1_000)
    whole = places(5, 9, 0, stop, size)
    cuts = [0, *sorted(np.random.default_rng(0).integers(0, stop + 1, 6).tolist()), stop]
    parts = [places(5, 9, a, b, size) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(np.unique(whole)) == stop and int(whole.max()) < size


def test_the_permutation_does_not_depend_on_the_machine():
    """Two numbers of each regime, computed by hand with Python's integers."""
    mask = 2**64 - 1

    def mix(word):
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & mask
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB & mask
        return word ^ (word >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((mix(11) + 2 * golden + 1) & mask)
    order = sorted(range(50), key=lambda i: mix(mix((i + key) & mask) ^ key))
    assert places(11, 2, 0, 50, 50).tolist() == order
    size, half, number = 2**33 + 5, 17, 4
    keys = [mix((key + (r + 1) * golden) & mask) for r in range(8)]
    while True:
        left, right = number >> half, number & (2**half - 1)
        for each in keys:
            drawn = mix((mix((right + each) & mask) + each) & mask) >> (64 - half)
            left, right = right, left ^ drawn
        number = (left << half) | right
        if number < size:
            break
    assert places(11, 2, 4, 5, size).tolist() == [number]


def flat(counts):
    return stats.chisquare(np.asarray(counts).ravel()).pvalue


@pytest.mark.parametrize("size", [6, 54, 10_008, 3 * 2**40])
def test_places_and_consecutive_pairs_are_uniform(size):
    """Over seeds, trial 0 and the pair of trials (0, 1), in cells of the stratum."""
    runs, cells = 1_500, 6
    found = np.stack([places(seed, 0, 0, 2, size) for seed in range(runs)])
    cell = (found.astype(np.float64) * cells / size).astype(int)
    assert flat(np.bincount(cell[:, 0], minlength=cells)) > 1e-4
    pairs = np.zeros((cells, cells))
    np.add.at(pairs, (cell[:, 0], cell[:, 1]), 1)
    if size == cells:
        off = pairs[~np.eye(cells, dtype=bool)]
        assert flat(off) > 1e-4 and np.trace(pairs) == 0
    elif size > 10 * cells:
        assert flat(pairs) > 1e-4


@pytest.mark.parametrize("size", [SORTED + 500, 10_007, 2**17])
def test_one_permutation_is_random_along_its_trials(size):
    """Pairs of consecutive trials of one permutation, and how often one is beside the other."""
    found = places(3, 1, 0, size, size).astype(np.int64)
    cells, cell = 8, found * 8 // size
    pairs = np.zeros((cells, cells))
    np.add.at(pairs, (cell[:-1], cell[1:]), 1)
    assert flat(pairs) > 1e-4
    beside = np.sum(np.abs(np.diff(found)) == 1)
    assert stats.poisson.cdf(beside, 2) > 1e-4 and stats.poisson.sf(beside - 1, 2) > 1e-4
    fixed = np.sum(found == np.arange(size))
    assert stats.poisson.sf(fixed - 1, 1) > 1e-4


def test_all_orders_of_three_faults_are_equally_likely():
    orders = [tuple(places(seed, 1, 0, 3, 3).tolist()) for seed in range(3_000)]
    assert flat(np.unique(orders, axis=0, return_counts=True)[1]) > 1e-4
    assert len(set(orders)) == 6


def test_seeds_and_strata_have_different_samples():
    drawn = {
        (seed, stratum): tuple(places(seed, stratum, 0, 20, 10**6).tolist())
        for seed in (0, 1, 2**63)
        for stratum in (0, 1, 2, 1_000)
    }
    assert len(set(drawn.values())) == len(drawn)
    firsts = [int(places(0, stratum, 0, 1, 10**9)[0]) for stratum in range(2_000)]
    assert stats.kstest(np.asarray(firsts) / 1e9, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    "start, stop, size, message",
    [
        (0, 11, 10, "stratum 4: trials 0 to 10 of 10 faults"),
        (-1, 2, 10, "stratum 4: trials -1 to 1 of 10"),
        (0, 0, 0, "stratum 4: it has 0 faults"),
        (0, 1, LARGEST + 1, "a sample needs 1 to 2\\^62"),
    ],
)
def test_trials_that_do_not_exist_are_refused(start, stop, size, message):
    with pytest.raises(InputError, match=message):
        places(0, 4, start, stop, size)


def test_no_trials_are_no_places():
    assert places(0, 0, 5, 5, 10).shape == places(0, 0, 5, 5, 10**9).shape == (0,)
