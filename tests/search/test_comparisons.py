"""Mappings that met different numbers of draws, compared on those that both met."""

import itertools

import numpy as np
import pytest
from scipy import stats

from afpjax.search.race import Pool, compare, contested, estimates, margins

from .world import World


def some_pool(seed=0, count=30, trials=8):
    world = World(seed, trials)
    mappings = np.unique(world.genomes(count, seed), axis=0)
    met = np.random.default_rng(seed).integers(1, trials + 1, len(mappings))
    met[:3] = trials
    right = world.right(mappings, range(trials))
    right[np.arange(trials) >= met[:, None]] = 0
    return Pool(world.costs(mappings), np.arange(len(mappings)), right, met)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_compared_on_common_draws_only(seed):
    pool = some_pool(seed)
    rivals = np.array([0, 7, 12])
    pairs = compare(pool, rivals)
    for i, (column, j) in itertools.product(range(len(pool.met)), enumerate(rivals)):
        common = min(pool.met[i], pool.met[j])
        differences = pool.right[j, :common] - pool.right[i, :common]
        assert pairs.common[i, column] == common
        assert pairs.squares[i, column] == (differences**2).sum()
        np.testing.assert_allclose(pairs.gap[i, column], differences.mean(), atol=1e-12)
        assert pairs.no_dearer[i, column] == (pool.costs[j] <= pool.costs[i]).all()
        cheaper = (pool.costs[j] < pool.costs[i]).any()
        assert pairs.cheaper[i, column] == (pairs.no_dearer[i, column] and cheaper)


def test_margins_are_students_interval_and_vanish_when_all_is_met():
    pool = some_pool(1)
    rivals = np.arange(len(pool.met))
    pairs = compare(pool, rivals)
    got = margins(pool, pairs, rivals)
    ordered = [(i, j) for i, j in itertools.product(rivals, rivals) if i != j]

    def differences(i, j):
        common = min(pool.met[i], pool.met[j])
        return (pool.right[j] - pool.right[i])[:common]

    usual = [(differences(i, j), pairs.comparable[i, j]) for i, j in ordered]
    squares = sum(((d - d.mean()) ** 2).sum() for d, near in usual if near)
    usual = max(squares / sum(len(d) - 1 for d, near in usual if near), 1)
    for i, j in ordered:
        d = differences(i, j)
        freedom = 4 + len(d) - 1
        variance = (4 * usual + ((d - d.mean()) ** 2).sum()) / freedom
        error = np.sqrt(variance * (1 / len(d) - 1 / 8))
        low, high = stats.t.interval(0.95, freedom, scale=max(error, 1e-300))
        np.testing.assert_allclose(got[i, j], (high - low) / 2, rtol=1e-9, atol=1e-12)
        assert (got[i, j] == 0) == (len(d) == 8)


def test_margins_hold_what_the_remaining_draws_bring():
    """Of gaps on three of twelve draws, 95 % of pairs move by no more until all twelve are met."""
    kept = []
    for seed in range(20):
        world = World(seed, 12)
        mappings = np.unique(world.genomes(25, seed), axis=0)
        right, rivals = world.right(mappings, range(12)), np.arange(len(mappings))
        first = np.where(np.arange(12) < 3, right, 0)
        pool = Pool(world.costs(mappings), rivals, first, np.full(len(rivals), 3))
        margin = margins(pool, compare(pool, rivals), rivals)
        mean = right.mean(axis=1)
        moved = first.sum(axis=1)[None] / 3 - first.sum(axis=1)[:, None] / 3
        moved -= mean[None] - mean[:, None]
        others = ~np.eye(len(rivals), dtype=bool)
        kept.append(np.mean(np.abs(moved) <= margin, where=others))
    assert 0.9 < np.mean(kept) < 0.995


@pytest.mark.parametrize("seed", range(3))
def test_whoever_met_fewer_draws_is_judged_beside_one_that_met_all(seed):
    pool = some_pool(seed)
    got, top = estimates(pool), pool.met.max()
    for i, met in enumerate(pool.met):
        if met == top:
            assert got[i] == pool.right[i].mean()
            continue
        beside = []
        for j in np.flatnonzero(pool.met == top):
            d = (pool.right[j] - pool.right[i])[:met]
            cheap = (pool.costs[j] <= pool.costs[i]).all()
            beats = cheap and (
                d.sum() > 0 or (d.sum() == 0 and (pool.costs[j] < pool.costs[i]).any())
            )
            beside.append((not beats, (d**2).mean(), j, pool.right[j].mean() - d.mean()))
        np.testing.assert_allclose(got[i], min(beside)[3], atol=1e-12)


def test_easy_first_draws_flatter_nobody():
    """On two easy draws the beaten mapping got more right than its rival on all of them."""
    costs = np.array([[1.0, 1.0], [2.0, 2.0]])
    right = np.array([[60, 61, 30, 31], [55, 56, 0, 0]])
    pool = Pool(costs, np.arange(2), right, np.array([4, 2]))
    assert right[1].sum() / 2 > right[0].mean()
    np.testing.assert_allclose(estimates(pool), [45.5, 40.5])


def test_the_front_comes_first_and_who_is_clearly_beaten_never():
    for seed in range(5):
        pool = some_pool(seed, 60)
        points = np.column_stack([pool.costs, -estimates(pool)])
        front = {
            i
            for i, p in enumerate(points)
            if not any((q <= p).all() and (q < p).any() for q in points)
        }
        got = contested(pool).tolist()
        wanted = [i for i in front if pool.met[i] < 8]
        assert set(got[: len(wanted)]) == set(wanted)
        assert [pool.met[i] for i in got[: len(wanted)]] == sorted(pool.met[i] for i in wanted)
        rivals = np.array(sorted(front))
        pairs = compare(pool, rivals)
        behind = np.asarray(pairs.gap > margins(pool, pairs, rivals))
        beaten = np.any(pairs.no_dearer & behind, axis=1).tolist()
        assert set(got) == {i for i in range(len(points)) if not beaten[i] and pool.met[i] < 8}
        assert any(beaten) and len(got) > len(wanted)
