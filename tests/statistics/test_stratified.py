"""Strata together: unbiased, covered where a plain recipe fails, consistent with one stratum."""

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.statistics.proportions import KINDS, StratifiedEstimate, interval
from afpjax.statistics.proportions import stratified as of_arrays

MILLION = 10**6


def stratified(kind: str, *given, **more) -> StratifiedEstimate:
    return of_arrays(kind, *map(np.asarray, given), **more)


CAMPAIGNS = {
    "many strata, hardly a success": ([MILLION] * 100, [100] * 100, [2_000] * 100),
    "one known, one unseen": ([10**5, 10**5], [10**5, 100], [50_000, 3_000]),
    "one known, one nearly all": ([MILLION, MILLION], [10**5, 50], [MILLION // 2, 960_000]),
    "large and rarely sampled": ([9 * MILLION, MILLION], [50, 1_000], [180_000, 50_000]),
    "bits of a layer": ([27_648] * 8, [379] * 8, [0, 0, 0, 3, 20, 100, 1_000, 6_000]),
    "bits of a small layer": ([144] * 16, [100] * 16, [0] * 10 + [1, 2, 5, 10, 20, 60]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_whole_is_covered(kind, name):
    size, count, bad = map(np.asarray, CAMPAIGNS[name])
    rng, truth, runs = np.random.default_rng(0), bad.sum() / size.sum(), 300
    found = [stratified(kind, rng.hypergeometric(bad, size - bad, count), count, size)
             for _ in range(runs)]  # fmt: skip
    mean, low, high = (np.concatenate(each) for each in zip(*found, strict=True))
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93
    assert (low <= mean).all() and (mean <= high).all()
    assert abs(mean.mean() - truth) < 4 * mean.std() / runs**0.5 + 1e-9


def test_groups_are_layers_and_the_mean_is_weighted():
    size, count = np.asarray([100, 300, 50]), np.asarray([10, 10, 10])
    hits, groups = np.asarray([5.0, 1.0, 10.0]), np.asarray([0, 0, 1])
    found = stratified("wilson", hits, count, size, groups=groups)
    np.testing.assert_allclose(found.mean, [(100 * 0.5 + 300 * 0.1) / 400, 1.0])
    alone = stratified("wilson", hits[:2], count[:2], size[:2])
    np.testing.assert_allclose([found.low[0], found.high[0]], [alone.low[0], alone.high[0]])


@pytest.mark.parametrize("kind", KINDS)
def test_one_stratum_is_about_its_own_interval(kind):
    for hits in (0, 1, 30, 192, 385):
        one = stratified(kind, [hits], [385], [10**9])
        low, high = interval(kind, *np.asarray([[hits], [385]]), population=np.asarray([10**9]))
        assert one.low[0] <= low[0] + 0.004 and one.high[0] >= high[0] - 0.004
        assert one.high[0] - one.low[0] < 1.1 * (high[0] - low[0]) + 0.006


def test_strata_all_alike_still_have_a_variance():
    found = stratified("wilson", [0, 0], [50, 50], [MILLION, MILLION])
    assert found.mean[0] == 0 == found.low[0] and 0.02 < found.high[0] < 0.1
    found = stratified("wilson", [50, 0], [50, 50], [MILLION, MILLION])
    assert found.low[0] < 0.49 and found.high[0] > 0.51


def test_strata_known_in_full_have_no_width():
    found = stratified("wilson", [3, 7], [10, 20], [10, 20])
    assert found.low[0] == found.mean[0] == found.high[0] == pytest.approx(1 / 3)
    part = stratified("wilson", [3, 0], [10, 20], [10, 200])
    whole = stratified("wilson", [3, 0], [10, 199], [10, 200])
    assert whole.high[0] - whole.low[0] < (part.high[0] - part.low[0]) / 3


def test_squares_shorten_it():
    hits, count, size = np.full(4, 20.0), np.full(4, 400), np.full(4, MILLION)
    plain = stratified("wilson", hits, count, size)
    found = stratified("wilson", hits, count, size, squares=hits * 0.05)
    assert found.high[0] - found.low[0] < 0.6 * (plain.high[0] - plain.low[0])


def test_bad_input():
    with pytest.raises(InputError, match="stratum 1: its population is 0"):
        stratified("wilson", [0, 0], [1, 1], [3, 0])
    with pytest.raises(InputError, match="stratum 1: no trial yet"):
        stratified("wilson", [0, 0], [1, 0], [3, 3])
    with pytest.raises(InputError, match="more trials than there are faults"):
        stratified("wilson", [0, 0], [1, 4], [3, 3])
