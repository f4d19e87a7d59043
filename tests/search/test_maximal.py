"""Maximal mappings, against all mappings of small random problems."""

import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults.model import FaultModel
from afpjax.search.maximal import compared, maximal, reliability_of
from afpjax.search.objectives import Caps, costs
from afpjax.search.program import within

from .test_program import every, problem

RATES = np.array([[0.02, 0.1], [0.2, 0.1], [0.0, 0.0]])


def by_hand(tables, caps, rates):
    """Choices by their rates [L, D, R]: those within that no single move makes safer."""
    mappings = every(tables)
    mappings = mappings[within(tables, mappings, caps)]
    layers, devices = tables.latency_ms.shape
    known = {tuple(map(tuple, rates[np.arange(layers), mapping])) for mapping in mappings}
    kept = set()
    for one in known:
        moves = []
        for layer in range(layers):
            for device in range(devices):
                new = tuple(rates[layer, device])
                if all(a <= b for a, b in zip(new, one[layer], strict=True)) and new != one[layer]:
                    moves.append((*one[:layer], new, *one[layer + 1 :]))
        if not any(move in known for move in moves):
            kept.add(one)
    return kept


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_all_maximal_mappings_are_found_and_no_other(seed, memory):
    """One layer has no faults, and the first two devices are alike in another."""
    tables = problem(seed, memory=memory)
    tables = tables._replace(latency_ms=tables.latency_ms + jnp.array([[0.0, 0.0, 3.0]]))
    rates = np.tile(RATES, (6, 1, 1))
    rates[2] = 0.0
    rates[4, 1] = rates[4, 0]
    cost = costs(tables, every(tables))
    caps = Caps(*(float(np.quantile(each, 0.4)) for each in cost[:2]))
    found = maximal(tables, compared(rates), caps, lambda some: within(tables, some, caps))
    assert found is not None and found.dtype == np.int32
    choices = [tuple(map(tuple, rates[np.arange(6), mapping])) for mapping in found]
    assert len(set(choices)) == len(choices) > 1
    assert set(choices) == by_hand(tables, caps, rates)
    assert within(tables, found, caps).all()
    # Of mappings that are alike, the one of the least product.
    product = cost.latency_ms.astype(np.float64) * cost.energy_mj
    allowed = within(tables, every(tables), caps)
    for mapping, choice in zip(found, choices, strict=True):
        same = [tuple(map(tuple, rates[np.arange(6), m])) == choice for m in every(tables)]
        least = product[np.array(same) & allowed].min()
        assert product[(every(tables) == mapping).all(axis=1)] == pytest.approx(least, rel=1e-6)


def test_many_are_none_at_all():
    tables = problem(0)
    rates = np.tile(RATES, (6, 1, 1))
    caps = Caps(*(float(np.quantile(each, 0.4)) for each in costs(tables, every(tables))[:2]))
    given = tables, compared(rates), caps, lambda some: within(tables, some, caps)
    whole = maximal(*given)
    assert whole is not None and maximal(*given, most=len(whole) - 1) is None
    assert maximal(*given, nodes=10) is None
    tight = Caps(0.1, 0.1)
    none = maximal(*given[:2], tight, lambda some: within(tables, some, tight))
    assert none is not None and none.shape == (0, 6)


def test_rates_compare_devices_where_a_layer_has_faults(quantized):
    """Weights in two of three layers; the third device errs least in weights, most in inputs."""
    faults = FaultModel(
        weight_rate=(0.02, 0.2, 0.0), activation_rate=(0.1, 0.1, 0.3), layers=("b", "d")
    )
    names = list(quantized.graph.names)
    found = reliability_of(faults, quantized, 3)
    for layer, name in enumerate(names):
        if name in ("b", "d"):
            assert found.alike[layer].tolist() == [0, 1, 2]
            assert np.argwhere(found.safer[layer]).tolist() == [[1, 0]]
        else:
            assert found.alike[layer].tolist() == [0, 0, 0] and not found.safer[layer].any()
    one = reliability_of(FaultModel(weight_rate=0.1, activation_rate=0.0), quantized, 3)
    assert not one.safer.any() and not one.alike.any()
