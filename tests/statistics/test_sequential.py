"""Stopping: where the looks are, what a stop depends on, and the recursion against simulation."""

import time

import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.proportions import KINDS, interval
from afpjax.statistics.sampling import sample_size
from afpjax.statistics.sequential import RECURSION, coverage, level, looks, stopped


@pytest.mark.parametrize("margin", [0.3, 0.05, 0.01, 0.002])
@pytest.mark.parametrize("population", [1, 7, 300, 2304, 10**6, 2**62])
def test_looks_are_few_ascend_and_end_at_the_sample_size(margin, population):
    found = looks(margin, population=population)
    assert found[-1] == sample_size(np.asarray(population), margin)
    assert found[0] >= 1 and (np.diff(found) > 0).all() and len(found) < 16
    endless = looks(margin)
    assert set(found[:-1]) <= set(endless), "strata differ in their last look only"


@pytest.mark.in_ci("0.05-wilson", "0.05-clopper-pearson")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.05, 0.01])
def test_the_coverage_at_the_stop_is_kept_for_every_rate(kind, margin):
    """On rates that the level was not found with: 300, from 1e-5 to 1 - 1e-5."""
    rng = np.random.default_rng(0)
    rates = np.concatenate([10 ** rng.uniform(-5, np.log10(0.5), 250), rng.uniform(0.5, 1, 50)])
    covered = coverage(kind, looks(margin), margin, level(kind, margin), rates)
    assert covered.min() > 0.945
    naive = coverage(kind, looks(margin), margin, 0.95, rates)
    assert naive.min() < covered.min() and naive.min() < 0.945, "looking often is not free"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.002, 0.04, 0.3])
def test_the_recursion_agrees_with_simulated_campaigns(kind, rate):
    rng, runs, margin, at = np.random.default_rng(1), 4_000, 0.05, 0.95
    size, hits, done, inside = 0, np.zeros(runs, int), np.zeros(runs, bool), np.zeros(runs, bool)
    for look in looks(margin).tolist():
        hits = hits + rng.binomial(look - size, rate, runs)
        size = look
        low, high = interval(kind, hits, np.full(runs, look), confidence=at)
        stop = ~done & (((high - low) / 2 <= margin) | (look == looks(margin)[-1]))
        inside |= stop & (low <= rate) & (rate <= high)
        done |= stop
    expected = coverage(kind, looks(margin), margin, at, np.asarray([rate]))[0]
    error = 4 * np.sqrt(expected * (1 - expected) / runs) + 1e-9
    assert done.all() and abs(inside.mean() - expected) < error


def test_peers_rule_stops_at_nothing_and_this_one_does_not():
    """IterativeFI's Wald rule, margin 0.5 %, stops at a pilot of 664 without any success."""
    hits, trials, population = np.asarray([0]), np.asarray([664]), np.asarray([10**9])
    assert not stopped("wilson", hits, trials, population, margin=0.0005)[0]
    low, high = interval("wilson", hits, trials, population=population, confidence=0.99)
    assert low[0] == 0 and high[0] > 0.005


@pytest.mark.in_ci("clopper-pearson")
@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_depends_on_the_trials_before_it_alone(kind):
    """Whoever asks at whatever numbers of trials finds the same first stop."""
    rng = np.random.default_rng(3)
    outcomes = (rng.random(4_000) < 0.03).cumsum()
    population = np.asarray([10**6])

    def first(numbers):
        for count in numbers:
            hits = np.asarray([outcomes[count - 1]])
            if stopped(kind, hits, np.asarray([count]), population, margin=0.02)[0]:
                return count
        raise AssertionError("never stopped")

    at = first(range(1, 2_500))
    assert at == first(looks(0.02).tolist()) and at in looks(0.02)
    assert at < looks(0.02)[-1]
    found = [outcomes[[at - 1]], np.asarray([at])]
    low, high = interval(kind, *found, population=population, confidence=level(kind, 0.02))
    assert high[0] - low[0] <= 0.04


def test_strata_stop_each_for_itself():
    population = np.asarray([5, 2304, 10**6, 10**6])
    trials, hits = np.asarray([5, 227, 227, 227]), np.asarray([2.0, 0.0, 110.0, 0.0])
    got = stopped("wilson", hits, trials, population, margin=0.05)
    np.testing.assert_array_equal(got, [True, True, False, True])
    between_looks = stopped("wilson", *np.asarray([[0], [228], [10**6]]), margin=0.05)
    assert 227 in looks(0.05) and not between_looks


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_interval_is_hardly_wider_than_the_margin(kind):
    for margin in (0.05, 0.01):
        count = looks(margin)[-1:]
        low, high = interval(kind, count // 2, count, confidence=level(kind, margin))
        assert margin < (high - low)[0] / 2 < 1.08 * margin


def test_a_level_takes_a_second_and_small_margins_spend_alpha_equally():
    start = time.process_time()
    found = level("wilson", 0.011)
    assert time.process_time() - start < 10 and 0.95 < found < 0.98
    tiny = level("wilson", 0.001)
    assert looks(0.001)[-1] > RECURSION
    np.testing.assert_allclose(1 - tiny, 0.05 / len(looks(0.001)))


def test_bad_input():
    with pytest.raises(InputError, match=r"margin: 0.0 is outside"):
        looks(0.0)
    with pytest.raises(InputError, match="'wald' is none of"):
        level("wald", 0.1)
    with pytest.raises(InputError, match=r"confidence: 1.0 is outside"):
        level("wilson", 0.1, 1.0)
    with pytest.raises(InputError, match="stratum 0: its population is 0"):
        stopped("wilson", *np.zeros((3, 1), int), margin=0.1)


def test_the_recursion_without_a_stop_is_the_binomial():
    rates = np.asarray([0.001, 0.2, 0.5])
    got = coverage("clopper-pearson", np.asarray([60]), 0.01, 0.95, rates)
    low, high = interval("clopper-pearson", np.arange(61), np.full(61, 60))
    inside = (low[:, None] <= rates) & (rates <= high[:, None])
    expected = (stats.binom.pmf(np.arange(61)[:, None], 60, rates) * inside).sum(0)
    np.testing.assert_allclose(got, expected, atol=1e-9)
