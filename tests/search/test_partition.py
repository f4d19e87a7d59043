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
from afpjax.search.objectives import Caps, RobustnessObjective, costs
from afpjax.search.partition import measure, reference_point

KEY = jax.random.key(3)
SMALL: dict[str, Any] = {"trials": 2, "population": 16, "generations": 12}


def drops_by_hand(quantized, images, labels, mappings, faults, key, trials):
    outcomes = afpjax.accuracy(quantized, images, labels, mappings, faults, key, trials=trials)
    clean = (np.asarray(quantized(images)).argmax(axis=1) == labels).mean()
    return clean - outcomes.mean(axis=1)


def test_partition_finds_the_enumerated_front(
    quantized, platform, faults, images, labels, tables, every_mapping, undominated
):
    front = afpjax.partition(quantized, platform, faults, images, labels, KEY, **SMALL)
    draws = jax.random.split(KEY)[0]
    cost = costs(tables, every_mapping)
    drop = drops_by_hand(quantized, images, labels, every_mapping, faults, draws, 2)
    points = np.stack([cost.latency_ms, cost.energy_mj, drop], axis=1).astype(np.float32)
    best = undominated(points)
    np.testing.assert_array_equal(front.mappings, every_mapping[best])
    found = np.stack([front.latency_ms, front.energy_mj, front.accuracy_drop], axis=1)
    np.testing.assert_array_equal(found, points[best])
    assert (front.method, front.evaluations) == ("enumeration", 3**5)
    alone = costs(tables, np.array([[0] * 5, [1] * 5, [2] * 5], np.int32))  # single devices
    corner = np.array([1.1 * alone.latency_ms.max(), 1.1 * alone.energy_mj.max(), 1.0])
    np.testing.assert_allclose(front.reference_point, corner, rtol=1e-6)
    np.testing.assert_allclose(reference_point(tables), corner, rtol=1e-6)
    expected = moocore.hypervolume(found.astype(np.float64), ref=np.array(front.reference_point))
    np.testing.assert_allclose(front.hypervolume, expected)
    assert front.history == (front.hypervolume,)


def test_layerwise_is_another_objective_and_warns(quantized, platform, faults, images, labels):
    with pytest.warns(UserWarning, match="do not add up"):
        args = quantized, platform, faults, images, labels, KEY
        front = afpjax.partition(*args, strategy="layerwise", **SMALL)
    evaluator = Evaluator(quantized, images, labels, jax.random.split(KEY)[0])
    drops = RobustnessObjective(evaluator, faults, 2, "layerwise").drop(front.mappings)
    np.testing.assert_array_equal(front.accuracy_drop, drops.astype(np.float32))


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


def test_what_the_parts_refuse_is_refused(quantized, platform, faults, images, labels):
    args = quantized, platform, faults
    with pytest.raises(InputError, match="48 images but 47 labels"):
        afpjax.partition(*args, images, labels[:-1], KEY, **SMALL)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"trials": 0}, "trials: 0; give 1"),
        ({"generations": 0}, "generations: 0; give 1"),
        ({"caps": Caps(latency_ms=1e-6)}, r"raise search.latency_cap_ms \(1e-06\)"),
    )
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            afpjax.partition(*args, images, labels, KEY, **SMALL | options)
    for wrong, message in (
        (FaultModel(weight_rate=(0.1,) * 2), "faults.weight_rate: 2 rates for 3 devices"),
        (FaultModel(activation_rate=(0.1,) * 4), "faults.activation_rate: 4 rates for 3 dev"),
        (dataclasses.replace(faults, layers=("z",)), "no layer 'z'"),
    ):
        with pytest.raises(InputError, match=message):
            afpjax.partition(quantized, platform, wrong, images, labels, KEY, **SMALL)


def test_measure_tells_right_from_wrong_for_every_trial_and_image(
    quantized, images, labels, faults
):
    mappings = np.array([[0, 1, 2, 1, 0], [1, 1, 1, 1, 1]], np.int32)
    told = []
    got = measure(Evaluator(quantized, images, labels, 9), faults, mappings, 3, told.append)
    assert got.shape == (2, 3, 48) and sum(told) == 6
    for place, trial in np.ndindex(2, 3):
        given = dict(mapping=mappings[place], faults=faults, key=9, trial=trial)
        said = np.asarray(quantized(images, **given)).argmax(axis=1)
        np.testing.assert_array_equal(got[place, trial], said == labels)
