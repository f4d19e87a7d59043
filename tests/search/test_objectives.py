"""Costs, limits and drops against loops over single mappings and single draws."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults.model import FaultModel
from afpjax.hardware.tables import CostTables, mapping_cost
from afpjax.inputs.errors import InputError
from afpjax.search.explore import Infeasible
from afpjax.search.objectives import (
    NO_CAPS,
    Caps,
    RobustnessObjective,
    by_cost,
    costs,
    explained,
    violation,
    with_faults,
)
from afpjax.search.partition import tables_for

KEY = 7  # of the evaluator in `objective`


def random_tables(layers, devices, tensors):
    rng = np.random.default_rng(layers)

    def floats(*shape):
        return jnp.asarray(rng.random(shape, np.float32))

    return CostTables(
        latency_ms=floats(layers, devices),
        energy_mj=floats(layers, devices),
        weight_bytes=floats(layers),
        activation_bytes=floats(layers),
        capacity_bytes=floats(devices) * layers,
        producers=jnp.asarray(rng.integers(-1, layers, tensors), jnp.int32),
        consumers=jnp.asarray(rng.random((tensors, layers)) < 0.1),
        link_latency_ms=floats(tensors),
        link_energy_mj=floats(tensors),
    )


@pytest.mark.parametrize("count", [1, 128, 300])
def test_costs_are_those_of_every_mapping_by_itself(count):
    tables = random_tables(21, 3, 25)
    mappings = np.random.default_rng(1).integers(0, 3, (count, 21)).astype(np.int32)
    got = costs(tables, mappings)
    for place in {0, count // 2, count - 1}:
        alone = mapping_cost(tables, jnp.asarray(mappings[place]))
        for name, value in alone._asdict().items():
            column = getattr(got, name)
            assert column.shape == (count,) and column.dtype == np.float32
            np.testing.assert_allclose(column[place], value, rtol=1e-5)
    assert count < 128 or (got.violation > 0).any()


def test_a_mapping_costs_the_same_to_the_last_bit_wherever_it_turns_up():
    """In calls of other sizes it was added up in another order, so the table and the front of one
    result differed for one mapping."""
    tables = random_tables(21, 3, 21)
    mappings = np.random.default_rng(2).integers(0, 3, (4000, 21)).astype(np.int32)
    whole = costs(tables, mappings)
    for size in (1, 3, 40, 200, 1000):
        for name, column in costs(tables, mappings[-size:])._asdict().items():
            np.testing.assert_array_equal(column, getattr(whole, name)[-size:], err_msg=name)
    for column in costs(tables, np.repeat(mappings[:1], 200, axis=0)):
        assert len(np.unique(column)) == 1


def test_violation_sums_what_each_limit_is_missed_by(quantized, with_memory, every_mapping):
    platform = with_memory(1000, 700, 1500)
    tables = tables_for(quantized, platform)
    cost = costs(tables, every_mapping)
    caps = Caps(float(np.median(cost.latency_ms)), float(np.median(cost.energy_mj)))
    got = violation(cost, caps)
    weights, held = np.asarray(tables.weight_bytes), np.asarray(tables.activation_bytes)
    for place, mapping in enumerate(every_mapping):
        expected = max(cost.latency_ms[place] / caps.latency_ms - 1, 0)
        expected += max(cost.energy_mj[place] / caps.energy_mj - 1, 0)
        for device, room in enumerate((1000, 700, 1500)):
            here = mapping == device
            used = weights[here].sum() + (held[here].max() if here.any() else 0)
            expected += max(used - room, 0) / room
        np.testing.assert_allclose(got[place], expected, atol=1e-6)
    assert (got == 0).any() and (got > 0).any()


def test_by_cost_has_the_columns_asked_for_of_decoded_genomes(tables, every_mapping):
    keys = ("energy_mj", "link_latency_ms")
    evaluate = by_cost(tables, NO_CAPS, keys, decode=lambda genomes: 2 - genomes)
    fitness = evaluate(0, every_mapping)
    expected = costs(tables, 2 - every_mapping)
    columns = np.stack([expected.energy_mj, expected.link_latency_ms], axis=1)
    np.testing.assert_array_equal(np.asarray(fitness.objectives), columns)
    assert fitness.objectives.dtype == fitness.violation.dtype == jnp.float32


def accuracy_by_hand(quantized, images, labels, faults, mapping, trial):
    logits = quantized(images, mapping=mapping, faults=faults, key=KEY, trial=trial)
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())


def test_drop_is_clean_minus_faulty_on_the_same_images_and_draws(
    objective, quantized, images, labels
):
    mappings = np.array([[0, 1, 2, 1, 0], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2]], np.int32)
    args = quantized, images, labels, objective.faults
    clean = (np.asarray(quantized(images)).argmax(axis=1) == labels).mean()
    got = objective.drop(mappings, 3)  # by two trials to a draw
    for place, mapping in enumerate(mappings):
        faulty = [accuracy_by_hand(*args, mapping, trial) for trial in (6, 7)]
        np.testing.assert_allclose(got[place], clean - np.mean(faulty), atol=1e-12)
    assert got[1] > 0 == got[2]  # the third device does not fail
    told = []
    named = objective.accuracy(mappings[:1], [4, 11], told.append)
    expected = [accuracy_by_hand(*args, mappings[0], trial) for trial in (4, 11)]
    np.testing.assert_allclose(named, [np.mean(expected)])
    assert sum(told) == 2


def test_the_layerwise_drop_is_the_sum_of_layers_struck_alone(objective):
    mappings = np.array([[0, 1, 2, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 2, 2]], np.int32)
    alone = np.zeros(3)
    for name in objective.evaluator.quantized.graph.names:
        only = dataclasses.replace(objective.faults, layers=(name,))
        alone += dataclasses.replace(objective, faults=only).drop(mappings, 1)
    layerwise = dataclasses.replace(objective, strategy="layerwise")
    np.testing.assert_allclose(layerwise.drop(mappings, 1), alone, atol=1e-12)
    # They do not add up: the same mappings lose something else with all layers objective.
    assert not np.allclose(layerwise.drop(mappings, 1), objective.drop(mappings, 1), atol=0.01)


@pytest.mark.parametrize("strategy", ["platform", "layerwise"])
def test_one_rate_strikes_all_devices_alike(objective, strategy):
    one = FaultModel(weight_rate=0.2, activation_rate=(0.3, 0.3, 0.3))
    alike = dataclasses.replace(objective, faults=one, strategy=strategy)
    mappings = np.array([[0] * 5, [1] * 5, [2, 0, 1, 2, 0]], np.int32)
    drops = alike.drop(mappings)
    assert len(set(drops)) == 1 and drops[0] > 0


def test_mappings_that_break_a_limit_are_not_run(tables, objective, every_mapping):
    cost = costs(tables, every_mapping)
    caps = Caps(latency_ms=float(np.quantile(cost.latency_ms, 0.1)))
    within = cost.latency_ms <= caps.latency_ms
    ran = []
    run = objective.evaluator.evaluate

    def evaluate(faults, limits, trials, *rest):
        ran.append(len(limits.weights))
        return run(faults, limits, trials, *rest)

    objective.evaluator.evaluate = evaluate
    fitness = with_faults(tables, caps, objective)(0, every_mapping)
    assert sorted(ran) == [1, within.sum()]  # the fault-free run, and what is allowed
    objectives = np.asarray(fitness.objectives)
    np.testing.assert_array_equal(objectives[:, 0], cost.latency_ms)
    np.testing.assert_array_equal(objectives[:, 1], cost.energy_mj)
    assert (objectives[~within, 2] == 1).all()
    drops = objective.drop(every_mapping[within])
    np.testing.assert_array_equal(objectives[within, 2], drops.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(fitness.violation) > 0, ~within)
    ran.clear()
    fitness = with_faults(tables, Caps(energy_mj=1e-12), objective)(0, every_mapping[:9])
    assert not ran and (np.asarray(fitness.violation) > 0).all()


def test_draws_and_strategies_that_do_not_exist_are_refused(objective):
    with pytest.raises(InputError, match="trials is 0: give at least 1"):
        dataclasses.replace(objective, trials=0)
    with pytest.raises(InputError, match="strategy `device` is none of platform, layerwise"):
        RobustnessObjective(objective.evaluator, objective.faults, 2, "device")


def test_missed_limits_are_told_with_layer_and_device_or_what_the_nearest_mapping_costs(
    tables, platform, quantized, with_memory
):
    """Device 0 holds a and b (weights 720, activations 48) in 1,000 bytes, but not c as well."""
    names, first = (platform.names, quantized.graph.names), np.zeros(5, np.int32)
    small = tables_for(quantized, with_memory(1000, 1000, 1000))
    cost, caps = costs(tables, first[None]), Caps(latency_ms=1e-6)
    takes = f"it takes {cost.latency_ms[0]:.4g} ms .* search.latency_cap_ms .1e-06."
    for given, limits, mapping, message in (
        (small, NO_CAPS, first, "tried: layer `c` has no room on device `eyeriss`, which has"),
        (small, NO_CAPS, [0, 1, 1, 1, 2], "layer `c` has no room on device `simba`"),
        (tables, caps, first, takes),
    ):
        with (
            pytest.raises(InputError, match=f"no mapping keeps .*{message}"),
            explained(given, limits, *names),
        ):
            raise Infeasible(np.array(mapping, np.int32))
