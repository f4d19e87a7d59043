"""The fault model: what it refuses, and the thresholds it gives."""

import jax
import numpy as np
import pytest

from afpjax.faults import kinds
from afpjax.faults.model import FaultModel, layer_mask, thresholds
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat

REFUSED = {
    "distinct positions": dict(bits=()),
    "must be distinct": dict(bits=(1, 1)),
    "from 0 up": dict(bits=(-1,)),
    r"1.5 is outside \[0, 1\]": dict(weight_rate=1.5),
    r"-0.1 is outside \[0, 1\]": dict(activation_rate=(0.1, -0.1)),
    r"nan is outside \[0, 1\]": dict(weight_rate=float("nan")),
    "0 rates": dict(weight_rate=()),
    "2 factors for 4 bits": dict(bit_profile=(1.0, 0.5)),
    "factor is negative": dict(bits=(0,), bit_profile=(-1.0,)),
    "budget": dict(budget=-1),
    "none of hash, threefry": dict(generator="mersenne"),
    "faults.kind: 'seu' is none of burst, flip, lost, lost-last, random, stuck-at-0": dict(
        kind="seu"
    ),
    r"faults\.scope: 'layer' is none of \"\", run, trial, image": dict(scope="layer"),
    r"burst has adjacent bits, \[0, 2\] are not": dict(kind="burst", bits=(0, 2)),
    r"burst has adjacent bits, \[2, 1\] are not": dict(kind="burst", bits=(2, 1)),
    "faults.burst: 5 adjacent bits of 4; give 1 to 4": dict(kind="burst", burst=5),
    "faults.burst: 0 adjacent bits": dict(kind="burst", burst=0),
    "faults.packet: 0; give 1 or more": dict(kind="lost", packet=0),
    "faults.packet: -3; give": dict(kind="lost-last", packet=-3),
    "faults.bit_profile: a zero fault has one rate": dict(kind="zero", bit_profile=4 * (1.0,)),
    "faults.bit_profile: a random fault has": dict(kind="random", bit_profile=4 * (1.0,)),
    "faults.bit_profile: a burst fault has": dict(kind="burst", bit_profile=4 * (1.0,)),
    "faults.bit_profile: a lost fault has": dict(kind="lost", bit_profile=4 * (1.0,)),
    "faults.bit_profile: a lost-last fault has": dict(kind="lost-last", bit_profile=4 * (1.0,)),
    **{
        f"faults.budget: .*default scope and one of flip, stuck-at-0, stuck-at-1{'$' * n}": each
        for n, each in enumerate(
            [dict(kind=kind, budget=3) for kind in ("burst", "zero", "random", "lost", "lost-last")]
            + [dict(scope=scope, budget=3) for scope in ("run", "trial", "image")]
        )
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_values_that_make_no_sense_are_refused(message):
    with pytest.raises(InputError, match=message) as raised:
        FaultModel(**REFUSED[message])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", kinds.names())
def test_every_kind_has_what_it_can_have(kind):
    """A profile and a budget where bits are struck one by one; scopes and adjacent bits for all."""
    for scope in ("", "run", "trial", "image"):
        made = FaultModel(kind=kind, scope=scope, bits=(5, 6, 7), burst=3, packet=1)
        assert (made.kind, made.scope, made.bits) == (kind, scope, (5, 6, 7))
    if kind in ("flip", "stuck-at-0", "stuck-at-1"):
        made = FaultModel(kind=kind, bits=(0, 9), bit_profile=(1.0, 0.0), budget=0, burst=7)
        assert (made.bit_profile, made.budget) == ((1.0, 0.0), 0)


@pytest.mark.parametrize("kind", kinds.names())
def test_kinds_that_strike_whole_values_have_one_rate_for_each_device(kind, quantized):
    faults = FaultModel(kind=kind, weight_rate=(0.0, 0.5), activation_rate=0.25, layers=["a", "b"])
    weights, activations, _ = thresholds(faults, quantized, np.array([1, 0, 1], np.int32))
    columns = 4 if kind in ("flip", "stuck-at-0", "stuck-at-1") else 1
    np.testing.assert_array_equal(weights, np.outer([2**30, 0, 0], [1] * columns))
    np.testing.assert_array_equal(activations, np.outer([2**29, 2**29, 0], [1] * columns))


def test_a_kind_that_names_bits_must_have_bits_of_the_format(network_of):
    network = network_of(QFormat(bits=4, frac=2))
    for kind in ("flip", "stuck-at-0", "stuck-at-1", "burst"):
        with pytest.raises(InputError, match="bit 4 is faulty, but the format has 4 bits"):
            thresholds(FaultModel(kind=kind, bits=(3, 4)), network, np.zeros(3, np.int32))


def test_one_probability_per_bit(quantized):
    faults = FaultModel(bits=(0, 3), weight_rate=0.5, bit_profile=(1.0, 0.25), activation_rate=0.0)
    weights, activations, _ = thresholds(faults, quantized, np.zeros(3, np.int32))
    np.testing.assert_array_equal(weights, [[2**30, 2**28]] * 3)
    np.testing.assert_array_equal(activations, 0)


def test_each_layer_has_the_rates_of_its_device(quantized):
    faults = FaultModel(bits=(0,), weight_rate=(0.0, 0.5), activation_rate=(1.0, 0.25))
    mappings = np.array([[0, 1, 0], [1, 1, 1]], np.int32)
    weights, activations, _ = thresholds(faults, quantized, mappings)
    np.testing.assert_array_equal(weights[..., 0], np.where(mappings, 2**30, 0))
    np.testing.assert_array_equal(activations[..., 0], np.where(mappings, 2**29, 2**31))
    jitted = jax.jit(lambda m: thresholds(faults, quantized, m).weights)(mappings)
    np.testing.assert_array_equal(jitted, weights)


def test_layers_are_all_first_or_named(quantized):
    graph = quantized.graph
    for layers, expected in [("all", [1, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0]), ("b", [0, 1, 0])]:
        np.testing.assert_array_equal(layer_mask(FaultModel(layers=layers), graph), expected)
    np.testing.assert_array_equal(layer_mask(FaultModel(layers=["c", "a"]), graph), [1, 0, 1])
    weights, *_ = thresholds(FaultModel(layers=1), quantized, np.zeros(3, np.int32))
    assert np.asarray(weights)[0].all() and not np.asarray(weights)[1:].any()
