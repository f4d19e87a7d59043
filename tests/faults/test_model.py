"""The fault model: what it refuses, and the thresholds it gives."""

from typing import Any

import jax
import numpy as np
import pytest

from afpjax.faults import kinds
from afpjax.faults.model import FaultModel, layer_mask, thresholds
from afpjax.inputs.errors import InputError

PROFILE = (1.0,) * 4
BY_BIT = ("flip", "stuck-at-0", "stuck-at-1")
REFUSED = [
    (dict(bits=()), "faults.bits: .* distinct positions"),
    (dict(bits=(1, 1)), "faults.bits: .* must be distinct"),
    (dict(bits=(-1,)), "from 0 up"),
    (dict(weight_rate=1.5), r"weight_rate: 1.5 is outside \[0, 1\]"),
    (dict(activation_rate=(0.1, -0.1)), r"activation_rate: -0.1 is outside \[0, 1\]"),
    (dict(weight_rate=float("nan")), r"nan is outside \[0, 1\]"),
    (dict(weight_rate=()), "0 rates"),
    (dict(link_rate=1.5), r"link_rate: 1.5 is outside \[0, 1\]"),
    (dict(link_rate=float("nan")), "link_rate: needs a number, got NaN"),
    (dict(link_rate=1.0, link_kind="resent"), "always lost is resent for ever"),
    (dict(link_kind="late"), "link_kind: 'late' is none of bits, zero, last, resent"),
    (dict(bit_profile=(1.0, 0.5)), "2 factors for 4 bits"),
    (dict(bits=(0,), bit_profile=(-1.0,)), "factor is negative"),
    (dict(budget=-1), "faults.budget"),
    (dict(link_rate=0.1, budget=5), "budget: counts faulty bits of layers, not of the link"),
    (dict(generator="mersenne"), "none of hash, threefry"),
    (dict(kind="seu"), "faults.kind: 'seu' is none of burst, flip, lost, lost-last, random"),
    (dict(scope="layer"), r"faults\.scope: 'layer' is none of \"\", run, trial, image"),
    (dict(shared="both"), r"faults\.shared: 'both' is none of stored, read"),
    (dict(kind="burst", bits=(0, 2)), r"burst has adjacent bits, \[0, 2\] are not"),
    (dict(kind="burst", bits=(2, 1)), r"burst has adjacent bits, \[2, 1\] are not"),
    (dict(kind="burst", burst=5), "faults.burst: 5 adjacent bits of 4; give 1 to 4"),
    (dict(kind="burst", burst=0), "faults.burst: 0 adjacent bits"),
    (dict(kind="lost", packet=0), "faults.packet: 0; give 1 or more"),
    *(
        (dict(kind=kind, bit_profile=PROFILE), f"faults.bit_profile: a {kind} fault has one rate")
        for kind in ("burst", "zero", "lost")
    ),
    *(
        (dict(budget=3, **other), "faults.budget: .*default scope and one of flip, stuck-at-0")
        for other in (dict(kind="random"), dict(kind="lost-last"), dict(scope="trial"))
    ),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_values_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message) as raised:
        FaultModel(**settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            (dict(kind=kind, bits=(15, 16)), "bit 16 is faulty, but the format has 16 bits")
            for kind in (*BY_BIT, "burst")
        ),
        (dict(layers=["z"]), "no layer 'z'; layers: a, b, c"),
        (dict(layers=4), "first 4 of 3 layers"),
        (dict(weight_rate=(0.1, 0.2)), "mapping names device 2"),
    ],
)
def test_what_the_network_and_its_mapping_lack_is_refused(quantized, settings, message):
    with pytest.raises(InputError, match=message):
        thresholds(FaultModel(**settings), quantized, np.array([0, 1, 2]))


@pytest.mark.parametrize("kind", kinds.names())
def test_kinds_that_strike_whole_values_have_one_rate_for_each_device(kind, quantized):
    faults = FaultModel(kind=kind, weight_rate=(0.0, 0.5), activation_rate=0.25, layers=["a", "b"])
    weights, activations, _ = thresholds(faults, quantized, np.array([1, 0, 1], np.int32))
    columns = 4 if kind in BY_BIT else 1
    np.testing.assert_array_equal(weights, np.outer([2**30, 0, 0], [1] * columns))
    np.testing.assert_array_equal(activations, np.outer([2**29, 2**29, 0], [1] * columns))


def test_each_layer_has_the_rates_of_its_device_and_each_bit_its_factor(quantized):
    rates: dict[str, Any] = dict(weight_rate=(0.0, 0.5), activation_rate=(1.0, 0.25))
    faults = FaultModel(bits=(0, 3), bit_profile=(1.0, 0.25), **rates)
    mappings = np.array([[0, 1, 0], [1, 1, 1]], np.int32)
    weights, activations, _ = thresholds(faults, quantized, mappings)
    np.testing.assert_array_equal(weights, np.multiply.outer(mappings, [2**30, 2**28]))
    np.testing.assert_array_equal(activations[..., 0], np.where(mappings, 2**29, 2**31))
    jitted = jax.jit(lambda m: thresholds(faults, quantized, m).weights)(mappings)
    np.testing.assert_array_equal(jitted, weights)


def test_layers_are_all_first_or_named(quantized):
    graph = quantized.graph
    for layers, expected in [("all", [1, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0]), ("b", [0, 1, 0])]:
        np.testing.assert_array_equal(layer_mask(FaultModel(layers=layers), graph), expected)
    np.testing.assert_array_equal(layer_mask(FaultModel(layers=["c", "a"]), graph), [1, 0, 1])
