"""The search that learns, against all mappings of made-up networks."""

import itertools

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.search.maximal import compared, maximal
from afpjax.search.objectives import Caps, costs
from afpjax.search.program import least_product, program_of, within
from afpjax.search.surrogate import Surrogate, SurrogatePlan, exchanges, refuse_strategy

from .losses import RATES, Additive
from .test_program import every, problem


def world(seed, layers=6, **how):
    """Costs under which the safe device is dear, the fragile one cheap; and the accuracies."""
    tables = problem(seed, layers=layers)
    rng = np.random.default_rng(seed + 50)
    size = rng.uniform(0.5, 2, (layers, 1))
    latency = size * np.array([[1.6, 1.0, 1.3]]) * rng.uniform(0.9, 1.1, (layers, 3))
    energy = size * np.array([[1.0, 0.9, 1.5]]) * rng.uniform(0.9, 1.1, (layers, 3))
    link = tables.link_latency_ms * 0.05
    tables = tables._replace(
        latency_ms=tables.latency_ms * 0 + latency.astype(np.float32),
        energy_mj=tables.energy_mj * 0 + energy.astype(np.float32),
        link_latency_ms=link,
        link_energy_mj=link,
    )
    reference = least_product(program_of(tables))[0]
    return tables, Additive(seed, layers, **how), reference


def surrogate(seed, tables, objective, reference, **more):
    rates = np.tile(RATES, (len(reference), 1, 1))
    return Surrogate(seed, tables, compared(rates), objective, reference, chance=0.1, **more)


def allowance(tables, reference, factor=1.0):
    cost = costs(tables, reference[None])
    return Caps(
        float(cost.latency_ms[0]) * (1 + 0.1 * factor),
        float(cost.energy_mj[0]) * (1 + 0.1 * factor),
    )


def best_of_all(tables, objective, caps):
    mappings = every(tables)
    mappings = mappings[within(tables, mappings, caps)]
    return objective.accuracy(mappings).max()


@pytest.mark.parametrize("seed", range(5))
def test_few_maximal_mappings_are_all_measured(seed):
    tables, objective, reference = world(seed)
    caps = allowance(tables, reference, 2.0)
    search = surrogate(seed, tables, objective, reference)
    found = search.search(caps)
    assert found.method == "all maximal" and found.maximal is not None and found.maximal < 96
    assert within(tables, found.mappings, caps).all()
    assert objective.accuracy(found.mappings[:1])[0] > best_of_all(tables, objective, caps) - 0.02
    assert search.evidence.passes < 32 * (4 * (found.maximal + 1) + 6 * 12) + 1


@pytest.mark.parametrize("seeds", [3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("by", ["maximal", "program"])
def test_the_optimum_of_all_is_learnt(by, seeds, monkeypatch):
    """Eight layers on three devices: the best of all feasible in nine of ten, with few measured."""
    hits = []
    for seed in range(1, seeds + 1):
        tables, objective, reference = world(seed, layers=8)
        caps = allowance(tables, reference, 3.0)
        monkeypatch.setattr("afpjax.search.surrogate.FEW", 0)
        if by == "program":
            monkeypatch.setattr("afpjax.search.surrogate.maximal", lambda *given: None)
        search = surrogate(seed, tables, objective, reference)
        found = search.search(caps, SurrogatePlan(rounds=3, size=8, finalists=6))
        assert found.method == ("learnt" if by == "program" else "learnt among maximal")
        assert within(tables, found.mappings, caps).all()
        best = best_of_all(tables, objective, caps)
        hits.append(objective.accuracy(found.mappings[:1])[0] > best - 0.02)
        measured = len(np.unique(search.evidence.table().mappings, axis=0))
        assert measured <= 1 + search.moves + 3 * 8
    assert sum(hits) >= 0.9 * seeds - 0.9


def test_the_same_seed_finds_the_same_whatever_is_remembered():
    tables, objective, reference = world(4, layers=8)
    caps, plan = allowance(tables, reference, 3.0), SurrogatePlan(rounds=2, size=8, finalists=4)
    runs = []
    for _ in range(2):
        search = surrogate(7, tables, objective, reference)
        runs.append(
            [search.search(caps, plan), search.search(allowance(tables, reference, 5), plan)]
        )
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.mappings, other.mappings)
        assert one[2:] == other[2:]


def test_rates_are_scaled_down_until_moves_say_something_and_up_again(monkeypatch):
    """At the given rates the reference and all its moves are at chance."""
    tables, objective, reference = world(1, layers=8, depth=60.0)
    assert objective.accuracy(reference[None])[0] < 0.12
    caps = allowance(tables, reference, 12.0)
    monkeypatch.setattr("afpjax.search.surrogate.FEW", 0)
    monkeypatch.setattr("afpjax.search.surrogate.maximal", lambda *given: None)
    search = surrogate(0, tables, objective, reference)
    found = search.search(caps, SurrogatePlan(rounds=4, size=8, finalists=6))
    assert search.first_factor < 1
    # Learnt at lower rates, chosen at those given.
    assert objective.accuracy(found.mappings[:1])[0] > best_of_all(tables, objective, caps) - 0.05
    assert {factor for *_, factor in objective.asked} >= {1.0, search.first_factor}


def test_where_nothing_is_lost_nothing_is_searched():
    tables, objective, reference = world(2, strength=0.0)
    search = surrogate(0, tables, objective, reference)
    found = search.search(allowance(tables, reference))
    assert found.method == "nothing lost" and found.mappings.tolist() == [reference.tolist()]
    assert search.evidence.passes == 4 * objective.images


def test_a_larger_allowance_is_never_worse_by_what_was_measured():
    tables, objective, reference = world(3, layers=8)
    search = surrogate(1, tables, objective, reference)
    plan, accuracies = SurrogatePlan(rounds=2, size=8, finalists=4), []
    for factor in (1, 2, 4, 8):
        found = search.search(allowance(tables, reference, factor), plan)
        accuracies.append(objective.accuracy(found.mappings[:1])[0])
    assert all(b >= a - 0.02 for a, b in itertools.pairwise(accuracies))
    assert accuracies[-1] > accuracies[0] + 0.05


def test_exchanges_are_all_of_one_layer_or_two():
    reliability = compared(np.tile(RATES, (4, 1, 1)))
    mapping = np.array([0, 1, 2, 1], np.int32)
    found = exchanges(mapping, reliability)
    by_hand = {
        tuple(other)
        for other in np.ndindex(3, 3, 3, 3)
        if 1 <= sum(a != b for a, b in zip(other, mapping, strict=True)) <= 2
    }
    assert len(found) == len(by_hand) and set(map(tuple, found.tolist())) == by_hand


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"with faults.strategy = layerwise give nsga2"):
        refuse_strategy("layerwise")
    refuse_strategy("platform")
    plan = SurrogatePlan()
    assert plan.within(0, 32, 44) == plan
    assert plan.within(10**6, 32, 44) == plan
    enough = (45 * 4 + 12 * 6 + 2 * 16 * 4) * 32
    assert plan.within(enough, 32, 44) == SurrogatePlan(rounds=2)
    with pytest.raises(InputError, match=r"search.effort: 100 image passes are too few; .* 10112;"):
        plan.within(100, 32, 44)


def test_maximal_mappings_that_no_rounds_are_left_for_are_learnt_of():
    """More maximal ones than a small plan measures."""
    tables, objective, reference = world(6, layers=8)
    caps = allowance(tables, reference, 3.0)
    rates = compared(np.tile(RATES, (8, 1, 1)))
    whole = maximal(tables, rates, caps, lambda some: within(tables, some, caps))
    assert whole is not None and len(whole) > 8
    found = surrogate(0, tables, objective, reference).search(
        caps, SurrogatePlan(rounds=1, size=8, finalists=4)
    )
    assert found.method == "learnt among maximal" and found.maximal == len(whole)
