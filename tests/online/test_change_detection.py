"""The alarm: its evidence by enumeration of all outcomes, and how often it comes by simulation."""

import itertools
from math import comb

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.online.change_detection import AlarmRule, alarm_rule, no_evidence, observed_share

LIMIT = 0.15


def binomial(canaries, rate):
    """Shares of a batch of independent canaries, and their chances."""
    return [
        (k / canaries, comb(canaries, k) * rate**k * (1 - rate) ** (canaries - k))
        for k in range(canaries + 1)
    ]


#: Batches whose mean share is the limit: canaries apart, all alike, and something between.
BATCHES = {
    "independent": binomial(4, LIMIT),
    "all or none": [(0.0, 1 - LIMIT), (1.0, LIMIT)],
    "between": [(0.0, 0.7), (0.5, 0.3)],
}


@pytest.mark.parametrize("name", BATCHES)
def test_nothing_is_to_be_won_by_betting_while_the_limit_holds(name):
    """E[L] = 1 at the limit and below 1 under it, for every bet; L is never negative."""
    chances = BATCHES[name]
    assert sum(share * chance for share, chance in chances) == pytest.approx(LIMIT)
    at = AlarmRule(LIMIT, 100.0)
    # The first batch meets evidence of 0, which counts as 1: what is left is L itself.
    means = sum(chance * at.updated(no_evidence(), share) for share, chance in chances)
    np.testing.assert_allclose(means, 1.0, atol=1e-12)
    above = AlarmRule(LIMIT + 0.05, 100.0)
    means = sum(chance * above.updated(no_evidence(), share) for share, chance in chances)
    assert (np.asarray(means) < 1).all()
    assert (at.updated(no_evidence(), 0.0) > 0).all()


@pytest.mark.parametrize("name", BATCHES)
def test_evidence_grows_by_no_more_than_one_a_batch(name):
    """E[M_T] <= T at the limit, over all outcomes of T batches: what an e-detector is."""
    chances, at = BATCHES[name], AlarmRule(LIMIT, 100.0)
    for length in (1, 2, 4):
        expected = 0.0
        for outcome in itertools.product(chances, repeat=length):
            evidence = no_evidence()
            for share, _ in outcome:
                evidence = at.updated(evidence, share)
            expected += np.prod([chance for _, chance in outcome]) * evidence.mean()
        assert expected <= length + 1e-12
        # 1 to begin with, and the more the fewer times M began anew.
        assert expected >= 1 - 1e-12


def test_evidence_is_that_of_a_plain_loop():
    rng = np.random.default_rng(1)
    at, evidence = alarm_rule(0.1, 3000.0, 1.0), no_evidence()
    plain = [0.0] * len(at.bets)
    for share in rng.integers(0, 5, 200) / 4:
        evidence = at.updated(evidence, float(share))
        for place, bet in enumerate(at.bets):
            plain[place] = max(plain[place], 1.0) * (1 + bet * (share - 0.1))
        np.testing.assert_allclose(evidence, plain)
        assert at.alarms(evidence) == (sum(plain) / len(plain) >= at.alarm)
    assert at.alarm == 3000.0


@pytest.mark.parametrize("limit", [0.001, 0.1, 0.99])
def test_bets_stay_below_what_could_be_lost(limit):
    bets = AlarmRule(limit, 10.0).bets
    assert (bets > 0).all() and (bets * limit < 1).all()


def test_alarms_are_counted_with_a_new_beginning_after_each():
    at = AlarmRule(0.1, 50.0)
    alone = next(n for n in range(1, 50) if at.count_alarms([1.0] * n))
    assert 1 < alone < 10
    assert at.count_alarms([1.0] * (3 * alone)) == 3
    assert at.count_alarms([1.0] * (3 * alone - 1)) == 2
    assert at.count_alarms([0.0] * 500) == 0 == at.count_alarms([])


def clustered(rng, batches, canaries, rate, alike):
    """Shares where a batch's canaries fail together with chance `alike`, else each by itself."""
    together = rng.random(batches) < alike
    apart = rng.binomial(canaries, rate, batches) / canaries
    return np.where(together, rng.random(batches) < rate, apart)


@pytest.mark.in_ci("100.0-1.0")
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("alarm", [100.0, 1000.0])
def test_false_alarms_are_as_rare_as_stated(alike, alarm):
    """50,000 batches at the very limit: at most one alarm in `alarm` batches.

    A Poisson count of that mean is above its mean + 4 deviations once in 30,000 times.
    """
    rng = np.random.default_rng([int(10 * alike), int(alarm)])
    shares = clustered(rng, 50_000, 8, LIMIT, alike)
    found = AlarmRule(LIMIT, alarm).count_alarms(shares)
    expected = 50_000 / alarm
    assert 0 < found <= expected + 4 * expected**0.5


def test_false_alarms_of_batches_that_depend_on_one_another():
    """The share that is likely wanders between batches, its mean given the past is the limit."""
    rng = np.random.default_rng(5)
    spread, found, steps = 0.0, 0, []
    for _ in range(20_000):
        spread = 0.99 * spread + 0.01 * rng.random()
        wide = LIMIT * (1 - spread)  # 0 or LIMIT + something, of mean LIMIT
        high = LIMIT + spread * (1 - LIMIT)
        steps.append(high if rng.random() < (LIMIT - wide) / (high - wide) else wide)
    found = AlarmRule(LIMIT, 200.0).count_alarms(steps)
    assert found <= 100 + 4 * 100**0.5


@pytest.mark.parametrize(("share", "within"), [(0.9, 12), (0.5, 30), (0.3, 120)])
def test_what_is_above_the_limit_is_soon_noticed(share, within):
    """One false alarm in 10 hours of 3,375 batches: half of all streams alarm within so many."""
    at = alarm_rule(0.1, 3375.0, 0.1)
    rng = np.random.default_rng(int(100 * share))
    noticed = [at.count_alarms(clustered(rng, within, 8, share, 0.3)) > 0 for _ in range(100)]
    assert np.mean(noticed) > 0.5


def test_rules_that_cannot_be():
    for limit in (0.0, 1.0):
        with pytest.raises(InputError, match=r"online\.theta: .* is outside \(0, 1\)"):
            alarm_rule(limit, 100.0, 1.0)
    with pytest.raises(InputError, match=r"online\.false_alarms: 200 an hour, but there are only"):
        alarm_rule(0.1, 100.0, 200.0)


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_the_observed_share_is_within_its_interval(alike):
    """Of 1,000 windows of 20 batches nine in ten or more: it is told, and decides nothing."""
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(1000):
        mean, (low, high) = observed_share(clustered(rng, 20, 8, 0.3, alike), 8)
        assert 0 <= low <= mean <= high <= 1
        inside.append(low <= 0.3 <= high)
    assert 0.9 <= np.mean(inside) <= 0.995
