"""Races on a made-up world whose accuracies are known, and on the small network's real faults."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.search import explore as module
from afpjax.search.explore import Budget, Evaluated, as_fitness, explore, populations, thinned
from afpjax.search.objectives import NO_CAPS, Caps, RobustnessObjective, costs, with_faults
from afpjax.search.pareto import hypervolume
from afpjax.search.partition import search
from afpjax.search.race import (
    Pool,
    Race,
    RacePlan,
    compare,
    contested,
    estimates,
    margins,
    race_for,
)

from .world import CLEAN, IMAGES, World

KEY = jax.random.key(5)
POPULATION, GENERATIONS = 32, 24


def run(world, total, *, key=KEY, renew=False, size=POPULATION):
    """A whole search of the world; without a total every mapping meets every draw."""
    budget = Budget(size, GENERATIONS, renew)
    few = module.few(np.full(world.layers, 3))
    calls, newcomers = populations(budget, False), size * (1 + renew)
    if few:
        calls, newcomers = 1, 3**world.layers
    race = Race(world, RacePlan(total, calls, newcomers, 0 if few else size))

    def evaluate(draw, genomes):
        cost = world.costs(genomes)
        return as_fitness([*cost.T, race.drops(draw, genomes, cost)], np.zeros(len(genomes)))

    def keep(mappings, points):
        everywhere = np.ones(len(points), bool)
        return thinned(points.astype(np.float32), everywhere, len(points) if few else size)

    def settle(draw):
        mappings, cost, drop = race.settle(draw, keep)
        columns = np.column_stack([cost, drop]).astype(np.float32)
        return Evaluated(mappings, columns, np.zeros(len(drop), np.float32))

    cardinality = np.full(world.layers, 3)
    found = explore(key, cardinality, evaluate, budget, settle=settle if total else None)
    return found, race


def volume(world, found):
    """Of the mappings found, by what is true of them; a share of the reference box."""
    corner = np.array([*1.1 * world.prices.max(axis=1).sum(axis=1), 1.0])
    return hypervolume(world.points(found.genomes), corner) / corner.prod()


def numbers_met(world):
    """Row -> the draws it met, each once."""
    met: dict[bytes, list[int]] = {}
    for row, number in world.asked:
        met.setdefault(row, []).append(number)
    return met


@pytest.mark.slow
def test_at_the_same_total_the_race_finds_more_than_equal_shares():
    """NSGA-II among 6,561 mappings; four of eight draws for each, or where the race puts them."""
    gains = []
    for seed in range(8):
        key, of = jax.random.key(seed), {"layers": 8, "common": 0.2}
        found, alike = run(World(seed, 4, **of), 0, key=key)
        raced, race = run(World(seed, 8, **of), alike.spent.passes, key=key)
        assert race.spent.passes <= alike.spent.passes
        gains.append(volume(World(seed, **of), raced) - volume(World(seed, **of), found))
    assert np.mean(gains) > 0.005 and np.sum(np.array(gains) > 0) >= 6


@pytest.mark.parametrize(("share", "renew"), [(0.0, False), (0.1, True), (0.4, False), (2.0, True)])
def test_what_is_spent_is_what_was_run_and_never_more_than_the_total(share, renew):
    budget = Budget(8, GENERATIONS, renew)
    least = populations(budget, False) * 8 * (1 + renew) + 8 * 7
    most = populations(budget, False) * 8 * (1 + renew) * 8
    total = IMAGES * int(least + share * (most - least)) + 63  # a draw does not fit in that
    world = World()
    found, race = run(world, total, renew=renew, size=8)
    spent, met = race.spent, numbers_met(world)
    assert spent.total == total >= spent.passes == IMAGES * len(world.asked)
    assert len(set(world.asked)) == len(world.asked)
    expected = np.unique([len(numbers) for numbers in met.values()], return_counts=True)
    assert spent.mappings == tuple(zip(*map(list, expected), strict=True))
    for numbers in met.values():  # of each set the first ones
        for draw in {number // 8 for number in numbers}:
            own = [number for number in numbers if number // 8 == draw]
            assert own == list(range(8 * draw, 8 * draw + len(own)))
    # The front is on equal draws, on all of them unless the total is spent.
    draw = GENERATIONS if renew else 0
    last = range(8 * draw, 8 * draw + 8)
    level = min(sum(n in last for n in met[genome.tobytes()]) for genome in found.genomes)
    assert level == 8 or total - spent.passes < IMAGES
    drop = CLEAN - world.means(found.genomes, last[:level])
    np.testing.assert_allclose(found.objectives[:, 2], drop, atol=1e-6)
    np.testing.assert_array_equal(found.history[-1], found.objectives)


def test_every_pool_has_an_equal_part_of_two_thirds_of_the_total():
    """Ten pools, none of whose mappings is settled before all draws: each takes what it may."""
    rows = 10 * 20 * 4 * 3 // 2
    world = World(trials=32, own=0.6)
    race = Race(world, RacePlan(rows * world.images, 10, 20, 4))
    for call in range(10):
        race.drops(0, world.genomes(20, call), world.costs(world.genomes(20, call)))
        assert len(world.asked) == (call + 1) * 20 * 4


def test_clear_cases_are_settled_by_the_first_share():
    """One mapping costs least and is safe; what costs more and loses much meets a quarter."""
    world = World(trials=16, own=0.02, common=0.1)
    world.prices[:, 2] = world.prices.min(axis=1)
    world.hurt[0, 0] = 0.003
    mappings = np.array([[2] * 12, [0] * 12, [1] * 12, [1, 0] * 6, [0] + [2] * 11], np.int32)
    race = Race(world, RacePlan(10**6, 1, 5, 5))
    race.drops(0, mappings, world.costs(mappings))
    met = [len(numbers_met(world)[mapping.tobytes()]) for mapping in mappings]
    assert met == [16, 4, 4, 4, 16]  # the last one is too near to tell


def test_equal_costs_and_equal_rows_are_one_row_paid_once():
    class Alike(World):
        def rows(self, mappings):
            return [mapping[:2].tobytes() for mapping in mappings]

    world = Alike(layers=6)
    world.hurt[:, 2:] = 0
    mappings = world.genomes(40)
    kinds = len(np.unique(mappings[:, :2], axis=0))
    race = Race(world, RacePlan(0))
    race.drops(0, mappings, world.costs(mappings))
    assert race.spent.passes == kinds * 8 * 64
    assert race.spent.mappings == ((8, len(np.unique(mappings, axis=0))),)


def test_the_order_of_a_pool_and_copies_in_it_change_nothing():
    world, other = World(), World()
    total = 64 * (3 * 20 + 7 * 8) * 2
    one, two = (Race(each, RacePlan(total, 3, 20, 8)) for each in (world, other))
    for call in range(3):
        mappings = np.concatenate([world.genomes(20, 0)[: 10 * call], world.genomes(20, call)])
        order = np.random.default_rng(call).permutation(len(mappings))
        order = np.concatenate([order, order[:3]])
        drops = one.drops(0, mappings, world.costs(mappings))
        again = two.drops(0, mappings[order], other.costs(mappings[order]))
        np.testing.assert_array_equal(drops[order], again)
    assert sorted(world.asked) == sorted(other.asked) and one.spent == two.spent


def test_totals_that_do_not_suffice_are_refused(tables, objective):
    least = (10 * 20 + 4 * 7) * 64
    Race(World(), RacePlan(least, 10, 20, 4))
    message = f"search.effort: {least - 1} image passes are too few.* all 8 .* take {least};"
    with pytest.raises(InputError, match=message):
        Race(World(), RacePlan(least - 1, 10, 20, 4))
    with pytest.raises(InputError, match=r"search\.effort: -1 image passes"):
        Budget(8, 3, effort=-1)
    alone = dataclasses.replace(objective, strategy="layerwise")  # has no effort to share out
    assert race_for(tables, alone, Budget(8, 3)) is None
    with pytest.raises(InputError, match=r"search.effort: with faults.strategy = layerwise"):
        search(KEY, tables, alone, Budget(8, 3, effort=10**6))


# On the small network


searches = pytest.mark.parametrize(
    ("few", "renew"), [(0, True), pytest.param(4096, False, marks=pytest.mark.slow)]
)


@pytest.fixture
def eight(objective):
    return dataclasses.replace(objective, trials=8)


class Noted:
    """An evaluator that remembers which rows it was asked for, and under which trials."""

    def __init__(self, evaluator):
        self._evaluator, self.asked = evaluator, set()

    def __getattr__(self, name):
        return getattr(self._evaluator, name)

    def evaluate(self, faults, limits, trials, *rest):
        tables = [np.asarray(part) for part in limits if part is not None]
        for place, trial in itertools.product(range(len(tables[0])), trials):
            self.asked.add((b"".join(part[place].tobytes() for part in tables), trial))
        return self._evaluator.evaluate(faults, limits, trials, *rest)


@searches
def test_without_a_total_the_search_is_the_one_without_a_race(
    tables, objective, monkeypatch, few, renew
):
    """Bit for bit, the fault-free accuracy and `drop` being all that it sees."""
    monkeypatch.setattr(module, "FEW", few)
    narrow = Caps(float(np.median(costs(tables, np.zeros((1, 5), np.int32)).latency_ms)))
    budget = Budget(16, 12, renew)
    given = np.array([[0, 1, 0, 1, 0], [2, 1, 2, 1, 2]], np.int32)  # before single devices
    front = search(KEY, tables, objective, budget, allowance=narrow, initial=given)
    plain = [with_faults(tables, caps, objective) for caps in (NO_CAPS, narrow)]
    first = np.repeat(np.arange(3, dtype=np.int32)[:, None], 5, axis=1)
    first = np.concatenate([given, first])
    found = explore(KEY, np.full(5, 3), plain[0], budget, initial=first, focus=plain[1])
    np.testing.assert_array_equal(front.mappings, found.genomes)
    columns = np.column_stack([front.latency_ms, front.energy_mj, front.accuracy_drop])
    np.testing.assert_array_equal(columns, found.objectives)
    assert front.evaluations == found.evaluations
    assert front.spent is not None and front.spent.total == 0


@searches
def test_a_search_with_an_effort_keeps_to_it_and_ends_on_all_draws(
    tables, eight, monkeypatch, few, renew
):
    monkeypatch.setattr(module, "FEW", few)
    evaluator = eight.evaluator
    narrow = Caps(float(np.median(costs(tables, np.zeros((1, 5), np.int32)).latency_ms)))
    fronts = []
    for _ in range(2):  # the second one finds all its answers in the evaluator's memory
        noted = Noted(evaluator)
        watched = object.__new__(RobustnessObjective)
        watched.__dict__.update(eight.__dict__, evaluator=noted)
        budget = Budget(16, 12, renew, effort=48 * 1000)
        fronts.append(search(KEY, tables, watched, budget, allowance=narrow))
        spent = fronts[-1].spent
        clean = {(row, trial) for row, trial in noted.asked if not any(row)}
        paid = {each for each in noted.asked - clean}
        assert 48 * len(paid) <= spent.passes <= 48 * (len(paid) + 8 * 13) and spent.passes <= 48000
    for name in ("mappings", "accuracy_drop", "spent", "history"):
        np.testing.assert_array_equal(*(getattr(front, name) for front in fronts))
    draw = 12 if renew and not few else 0
    drop = eight.drop(fronts[0].mappings, draw).astype(np.float32)
    np.testing.assert_array_equal(fronts[0].accuracy_drop, drop)
    assert fronts[0].history[-1] == fronts[0].hypervolume


@pytest.mark.slow
@pytest.mark.parametrize("trials", [8, 16])
def test_among_all_mappings_the_race_finds_the_front_of_all_draws(tables, objective, trials):
    """243 mappings: exactly at half of the effort; at a quarter it errs less than equal shares."""

    def front(trials, share=0):
        effort = share and 243 * 48 * trials // share
        given = dataclasses.replace(objective, trials=trials)
        found = search(KEY, tables, given, Budget(16, 12, effort=effort))
        assert found.spent is not None and (found.spent.passes <= effort or not share)
        return {mapping.tobytes() for mapping in found.mappings}

    every = front(trials)
    assert len(every) > 10
    assert front(trials, 2) == every != front(trials // 2)
    assert len(front(trials, 4) ^ every) < len(front(trials // 4) ^ every)


def test_mappings_that_are_struck_alike_are_one_row(objective):
    only = dataclasses.replace(objective.faults, layers=("b",))
    one_rate = dataclasses.replace(objective, faults=only)
    rows = one_rate.rows(np.array([[0, 1, 0, 0, 0], [2, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.int32))
    assert rows[0] == rows[1] != rows[2]


# Mappings that met different numbers of draws, compared on those that both met


def some_pool(seed=0, count=30, trials=8):
    world = World(seed, trials)
    mappings = np.unique(world.genomes(count, seed), axis=0)
    met = np.random.default_rng(seed).integers(1, trials + 1, len(mappings))
    met[:3] = trials
    right = world.right(mappings, range(trials))
    right[np.arange(trials) >= met[:, None]] = 0
    return Pool(world.costs(mappings), np.arange(len(mappings)), right, met)


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
