"""The offline phase as a library: `afpjax.partition` and what it is made of."""

import dataclasses
from typing import Any

import jax
import moocore
import numpy as np
import pytest

import afpjax
from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.search import explore as module
from afpjax.search.explore import Budget
from afpjax.search.objectives import Caps, RobustnessObjective, costs
from afpjax.search.partition import measure, reference_point, search

KEY = jax.random.key(3)
SMALL: dict[str, Any] = {"trials": 2, "population": 16, "generations": 12}


def drops_by_hand(quantized, images, labels, mappings, faults, key, trials):
    outcomes = afpjax.accuracy(quantized, images, labels, mappings, faults, key, trials=trials)
    clean = (np.asarray(quantized(images)).argmax(axis=1) == labels).mean()
    return clean - outcomes.mean(axis=1)


@pytest.mark.in_ci("rates0")
@pytest.mark.parametrize(
    "rates",
    [
        {"weight_rate": 0.1, "activation_rate": 0.2},
        {"weight_rate": (0.02, 0.2, 0.0), "activation_rate": (0.05, 0.3, 0.0)},
        {"weight_rate": (0.02, 0.2, 0.0), "activation_rate": 0.0},
    ],
)
def test_partition_finds_the_enumerated_front(
    quantized, platform, images, labels, tables, every_mapping, undominated, rates
):
    faults = FaultModel(**rates)
    front = afpjax.partition(quantized, platform, faults, images, labels, KEY, **SMALL)
    draws = jax.random.split(KEY)[0]
    args = quantized, images, labels
    cost = costs(tables, every_mapping)
    drop = drops_by_hand(*args, every_mapping, faults, draws, 2)
    points = np.stack([cost.latency_ms, cost.energy_mj, drop], axis=1).astype(np.float32)
    best = undominated(points)
    np.testing.assert_array_equal(front.mappings, every_mapping[best])
    found = np.stack([front.latency_ms, front.energy_mj, front.accuracy_drop], axis=1)
    np.testing.assert_array_equal(found, points[best])
    assert (front.method, front.evaluations) == ("enumeration", 3**5)
    corner = np.array(front.reference_point)
    expected = moocore.hypervolume(found.astype(np.float64), ref=corner)
    np.testing.assert_allclose(front.hypervolume, expected)
    assert front.history == (front.hypervolume,)


@pytest.mark.slow
def test_a_forced_search_is_the_same_for_the_same_key(
    quantized, platform, faults, images, labels, monkeypatch
):
    monkeypatch.setattr(module, "FEW", 0)
    one, other = (
        afpjax.partition(quantized, platform, faults, images, labels, KEY, renew=True, **SMALL)
        for _ in range(2)
    )
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert (one.method, one.generations, len(one.history)) == ("nsga2", 12, 12)
    # What survives was measured on the last generation's draw: trials 24 and 25.
    objective = RobustnessObjective(
        Evaluator(quantized, images, labels, jax.random.split(KEY)[0]), faults, 2
    )
    drops = objective.drop(one.mappings, 12).astype(np.float32)
    np.testing.assert_array_equal(one.accuracy_drop, drops)


def test_layerwise_is_another_objective_and_warns(quantized, platform, faults, images, labels):
    args = quantized, platform, faults, images, labels, KEY
    with pytest.warns(UserWarning, match="do not add up"):
        front = afpjax.partition(*args, strategy="layerwise", **SMALL)
    alone = np.zeros(len(front.mappings))
    for name in quantized.graph.names:
        only = dataclasses.replace(faults, layers=(name,))
        given = quantized, images, labels, front.mappings, only, jax.random.split(KEY)[0], 2
        alone += drops_by_hand(*given)
    np.testing.assert_allclose(front.accuracy_drop, alone, atol=1e-6)


def test_caps_hold_and_larger_batches_cost_more(quantized, platform, faults, images, labels):
    args = quantized, platform, faults, images, labels, KEY
    free = afpjax.partition(*args, batch=4, **SMALL)
    cap = float(np.median(free.latency_ms))
    capped = afpjax.partition(*args, batch=4, caps=Caps(latency_ms=cap), **SMALL)
    assert capped.latency_ms.max() <= cap < free.latency_ms.max()
    single = afpjax.partition(*args, **SMALL)
    assert free.latency_ms.min() > single.latency_ms.min()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        # b needs 576 bytes of weights and 48 of activations.
        ((500, 600, 400), "layer `b` fits on no device: .* device `simba`, the largest"),
        ((800, 200, 200), "no mapping: its weights need .* layer `c` .* device `eyeriss`"),
        # Each layer fits somewhere and all weights, 1,520 bytes, in all memories: no packing does.
        ((1210, 310, 10), "layer `[a-e]` has no room on device `(eyeriss|simba|simba-ecc)`"),
    ],
)
def test_memory_that_no_mapping_meets_is_told_with_layer_and_device(
    quantized, with_memory, faults, images, labels, sizes, message
):
    with pytest.raises(InputError, match=message):
        afpjax.partition(quantized, with_memory(*sizes), faults, images, labels, KEY, **SMALL)


@pytest.mark.parametrize("few", [0, 4096])
def test_caps_that_no_mapping_meets_are_told(
    quantized, platform, faults, images, labels, monkeypatch, few
):
    monkeypatch.setattr(module, "FEW", few)
    args = quantized, platform, faults, images, labels, KEY
    with pytest.raises(InputError, match=r"raise search.latency_cap_ms \(1e-06\)"):
        afpjax.partition(*args, caps=Caps(latency_ms=1e-6), **SMALL)


@pytest.mark.parametrize(("target", "count"), [("weight", 2), ("activation", 4)])
def test_rates_of_another_number_of_devices_are_refused(
    quantized, platform, images, labels, target, count
):
    """Two rates for three devices failed late, four were taken and the last was not used."""
    faults = FaultModel(**{f"{target}_rate": (0.1,) * count})
    with pytest.raises(InputError, match=f"faults.{target}_rate: {count} rates for 3 devices"):
        afpjax.partition(quantized, platform, faults, images, labels, KEY, **SMALL)


def test_what_the_parts_refuse_is_refused(quantized, platform, faults, images, labels):
    args = quantized, platform, faults
    with pytest.raises(InputError, match="48 images but 47 labels"):
        afpjax.partition(*args, images, labels[:-1], KEY, **SMALL)
    with pytest.raises(InputError, match="trials: 0; give 1"):
        afpjax.partition(*args, images, labels, KEY, trials=0)
    with pytest.raises(InputError, match="generations: 0; give 1"):
        afpjax.partition(*args, images, labels, KEY, generations=0)
    unknown = dataclasses.replace(faults, layers=("z",))
    with pytest.raises(InputError, match="no layer 'z'"):
        afpjax.partition(quantized, platform, unknown, images, labels, KEY, **SMALL)


def test_given_mappings_are_among_the_first(tables, objective, monkeypatch):
    monkeypatch.setattr(module, "FEW", 0)
    given = np.array([[0, 1, 0, 1, 0], [2, 1, 2, 1, 2]], np.int32)
    first = []
    rows = RobustnessObjective.rows

    def noted(self, mappings):
        first.append(mappings)
        return rows(self, mappings)

    monkeypatch.setattr(RobustnessObjective, "rows", noted)
    search(KEY, tables, objective, Budget(16, 12), initial=given)
    met = first[0].tolist()
    for mapping in (*given.tolist(), [0] * 5, [1] * 5, [2] * 5):
        assert mapping in met


def test_measure_tells_right_from_wrong_for_every_trial_and_image(
    quantized, images, labels, faults
):
    evaluator = Evaluator(quantized, images, labels, 9)
    mappings = np.array([[0, 1, 2, 1, 0], [1, 1, 1, 1, 1]], np.int32)
    told = []
    got = measure(evaluator, faults, mappings, 3, told.append)
    assert got.shape == (2, 3, 48) and sum(told) == 6
    for place, mapping in enumerate(mappings):
        for trial in range(3):
            logits = quantized(images, mapping=mapping, faults=faults, key=9, trial=trial)
            said = np.asarray(logits).argmax(axis=1)
            np.testing.assert_array_equal(got[place, trial], said == labels)


def test_every_single_device_is_inside_the_reference_point(tables):
    cost = costs(tables, np.array([[0] * 5, [1] * 5, [2] * 5], np.int32))
    expected = [1.1 * float(cost.latency_ms.max()), 1.1 * float(cost.energy_mj.max()), 1.0]
    np.testing.assert_allclose(reference_point(tables), expected, rtol=1e-6)
