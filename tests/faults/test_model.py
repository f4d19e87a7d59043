"""The fault model: what it refuses, and the thresholds it gives."""

import jax
import numpy as np
import pytest

from afpjax.errors import InputError
from afpjax.faults.model import FaultModel, layer_mask, thresholds

REFUSED = {
    "distinct positions": dict(bits=()),
    "must be distinct": dict(bits=(1, 1)),
    "from 0 up": dict(bits=(-1,)),
    r"1.5 is outside \[0, 1\]": dict(weight_rate=1.5),
    r"-0.1 is outside \[0, 1\]": dict(activation_rate=(0.1, -0.1)),
    r"nan is outside \[0, 1\]": dict(weight_rate=float("nan")),
    "no rate": dict(weight_rate=()),
    "2 factors for 4 bits": dict(bit_profile=(1.0, 0.5)),
    "factor is negative": dict(bits=(0,), bit_profile=(-1.0,)),
    "budget": dict(budget=-1),
    "none of hash, threefry": dict(generator="mersenne"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_values_that_make_no_sense_are_refused(message):
    with pytest.raises(InputError, match=message):
        FaultModel(**REFUSED[message])


def test_one_probability_per_bit(quantized):
    faults = FaultModel(bits=(0, 3), weight_rate=0.5, bit_profile=(1.0, 0.25), activation_rate=0.0)
    weights, activations = thresholds(faults, quantized, np.zeros(3, np.int32))
    np.testing.assert_array_equal(weights, [[2**30, 2**28]] * 3)
    np.testing.assert_array_equal(activations, 0)


def test_each_layer_has_the_rates_of_its_device(quantized):
    faults = FaultModel(bits=(0,), weight_rate=(0.0, 0.5), activation_rate=(1.0, 0.25))
    mappings = np.array([[0, 1, 0], [1, 1, 1]], np.int32)
    weights, activations = thresholds(faults, quantized, mappings)
    np.testing.assert_array_equal(weights[..., 0], np.where(mappings, 2**30, 0))
    np.testing.assert_array_equal(activations[..., 0], np.where(mappings, 2**29, 2**31))
    jitted = jax.jit(lambda m: thresholds(faults, quantized, m).weights)(mappings)
    np.testing.assert_array_equal(jitted, weights)


def test_layers_are_all_first_or_named(quantized):
    graph = quantized.graph
    for layers, expected in [("all", [1, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0]), ("b", [0, 1, 0])]:
        np.testing.assert_array_equal(layer_mask(FaultModel(layers=layers), graph), expected)
    np.testing.assert_array_equal(layer_mask(FaultModel(layers=["c", "a"]), graph), [1, 0, 1])
    weights, _ = thresholds(FaultModel(layers=1), quantized, np.zeros(3, np.int32))
    assert np.asarray(weights)[0].all() and not np.asarray(weights)[1:].any()
