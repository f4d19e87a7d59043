"""The exact program over mappings, against all mappings of small random problems."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.hardware.tables import CostTables, Shared
from afpjax.search.objectives import Caps, costs
from afpjax.search.program import exact_costs, least_product, program_of, solve, within


def problem(seed, layers=6, devices=3, *, memory=False, shared=False):
    """Random costs, links with several consumers, and memories that bind or do not."""
    rng = np.random.default_rng(seed)
    producers = np.concatenate([[-1], np.arange(layers - 1), rng.integers(0, layers - 2, 1)])
    consumers = np.zeros((layers + 1, layers), bool)
    consumers[np.arange(layers), np.arange(layers)] = True
    consumers[-1, producers[-1] + 2 :] = rng.random(layers - 2 - producers[-1]) < 0.7
    weights = rng.integers(1, 9, layers) * 100.0
    kernels = None
    if shared:  # layers 1, 3 and 4 read one kernel
        before = np.zeros((layers, layers), bool)
        before[3, 1] = before[4, 1] = before[4, 3] = True
        weights[[3, 4]] = weights[1] = 700
        sizes = np.zeros(layers, np.float32)
        sizes[[3, 4]] = 650
        kernels = Shared(jnp.asarray(before), jnp.asarray(sizes))
    room = weights.sum() * rng.uniform(0.8, 1.2, devices) * (0.65 if memory else 9.0)
    return CostTables(
        latency_ms=jnp.asarray(rng.uniform(1, 5, (layers, devices)), jnp.float32),
        energy_mj=jnp.asarray(rng.uniform(1, 5, (layers, devices)), jnp.float32),
        weight_bytes=jnp.asarray(weights, jnp.float32),
        activation_bytes=jnp.asarray(rng.integers(1, 5, layers) * 50, jnp.float32),
        capacity_bytes=jnp.asarray(room, jnp.float32),
        producers=jnp.asarray(producers, jnp.int32),
        consumers=jnp.asarray(consumers),
        link_latency_ms=jnp.asarray(rng.uniform(0, 1, layers + 1), jnp.float32),
        link_energy_mj=jnp.asarray(rng.uniform(0, 1, layers + 1), jnp.float32),
        shared=kernels,
    )


def every(tables):
    layers, devices = tables.latency_ms.shape
    return np.array(list(itertools.product(range(devices), repeat=layers)), np.int32)


KINDS = [{}, {"memory": True}, {"shared": True}, {"memory": True, "shared": True}]


@pytest.mark.parametrize("kind", KINDS, ids=["links", "memory", "shared", "memory and shared"])
@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_that_of_all_mappings(kind, seed):
    """Within caps and memory, links and shared kernels included; then without the best three."""
    tables = problem(seed, **kind)
    mappings, cost = every(tables), costs(tables, every(tables))
    rng = np.random.default_rng(seed + 100)
    gain = rng.normal(size=tables.latency_ms.shape)
    fits = np.asarray(cost.violation) <= 0
    caps = Caps(*(float(np.quantile(each[fits], 0.5)) for each in cost[:2]))
    allowed = fits & (cost.latency_ms <= caps.latency_ms) & (cost.energy_mj <= caps.energy_mj)
    assert 3 < allowed.sum() < (fits.sum() if kind.get("memory") else len(mappings))
    value = np.where(allowed, gain[np.arange(6), mappings].sum(axis=1), -np.inf)
    order = np.argsort(-value)
    program = program_of(tables)
    for skipped in (0, 3):
        found = solve(program, program.objective(gain), caps, excluded=mappings[order[:skipped]])
        assert found is not None
        np.testing.assert_array_equal(found, mappings[order[skipped]])
    none = Caps(0.5 * float(cost.latency_ms.min()), caps.energy_mj)
    assert solve(program, program.objective(gain), none) is None


@pytest.mark.parametrize("kind", KINDS, ids=["links", "memory", "shared", "memory and shared"])
@pytest.mark.parametrize("seed", range(4))
def test_the_least_product_is_that_of_all_mappings(kind, seed):
    tables = problem(seed, **kind)
    mappings, cost = every(tables), costs(tables, every(tables))
    product = cost.latency_ms.astype(np.float64) * cost.energy_mj
    fits = np.asarray(cost.violation) <= 0
    program = program_of(tables)
    for caps in (Caps(), Caps(latency_ms=float(np.quantile(cost.latency_ms[fits], 0.02)))):
        allowed = np.flatnonzero(fits & (cost.latency_ms <= caps.latency_ms))
        found = least_product(program, caps)
        np.testing.assert_array_equal(found[0], mappings[allowed[product[allowed].argmin()]])
        assert within(tables, found, caps).all()
        assert len(np.unique(found, axis=0)) == len(found)
    assert least_product(program, Caps(energy_mj=0.1)).shape == (0, 6)


def test_costs_in_double_precision_are_the_models():
    """Links with several consumers, on the network's graph that `problem` draws."""
    tables = problem(3)
    mappings = every(tables)[::7]
    cost, program = costs(tables, mappings), program_of(tables)
    found = np.array([exact_costs(program, mapping) for mapping in mappings])
    np.testing.assert_allclose(found[:, 0], cost.latency_ms, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], cost.energy_mj, rtol=1e-6)


def test_choices_that_are_alike_are_cut_together():
    """Devices 0 and 1 are one choice for every layer but the first."""
    tables = problem(1)
    alike = np.tile([0, 0, 1], (6, 1))
    alike[0] = [0, 1, 2]
    program = program_of(tables, alike)
    gain = np.zeros((6, 3))
    gain[:, 1] = 1.0
    first = solve(program, program.objective(gain))
    assert first is not None and first.tolist() == [1] * 6
    second = solve(program, program.objective(gain), excluded=first[None])
    assert second is not None
    assert second[0] != 1 or (second[1:] == 2).any()


def test_what_rounding_lets_in_is_not_chosen():
    """A mapping a hair above the cap is within HiGHS's tolerance; the next one is taken."""
    tables = problem(2)
    mappings, cost = every(tables), costs(tables, every(tables))
    latency = np.asarray(cost.latency_ms, np.float64)
    order = np.argsort(-latency)
    gain = np.asarray(tables.latency_ms, np.float64)
    cap = float(latency[order[5]]) * (1 - 1.2e-6)
    program = program_of(tables)
    found = solve(program, program.latency_ms * -1.0, Caps(latency_ms=cap))
    assert found is not None and gain.shape == (6, 3)
    assert costs(tables, found[None]).latency_ms[0] <= cap * (1 + 1e-6)
    assert mappings[order[5]].tolist() != found.tolist()
