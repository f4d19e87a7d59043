"""Weights that several layer calls share, beside a recurrent network in NumPy's integers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import afpjax
from afpjax.campaigns import masks, strata
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import CLASS_SHIFT, LOGITS, OUTCOME
from afpjax.evaluate.sensitivity import sensitivity
from afpjax.faults.bits import WEIGHTS, seed_words
from afpjax.faults.budget import once
from afpjax.faults.inject import flips_of_trial
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import Fault, Site
from afpjax.hardware.cost import cost_tables
from afpjax.hardware.platform import load_platform
from afpjax.hardware.tables import check_capacity, mapping_cost
from afpjax.inputs.errors import InputError

from . import words
from .words import loaded, stored

BITS, STEPS, KEY = 8, 3, 5
FORMAT = afpjax.QFormat(bits=BITS, frac=4)
RNG = np.random.default_rng(2)
KERNELS = {
    "in": RNG.normal(size=(5, 6)).astype(np.float32) * 0.7,
    "step": RNG.normal(size=(6, 6)).astype(np.float32) * 0.5,
    "out": RNG.normal(size=(6, 3)).astype(np.float32),
}
IMAGES = RNG.normal(size=(7, 5)).astype(np.float32)
LABELS = np.zeros(7, np.int32)
CALLS = ("in", *["step"] * STEPS, "out")
NAMES = ("in", "step", "step:2", "step:3", "out")


def apply(params, images):
    value = jax.nn.relu(images @ params["in"])
    for _ in range(STEPS):
        value = jax.nn.relu(value @ params["step"])
    return value @ params["out"]


@pytest.fixture(scope="module")
def quantized():
    network = afpjax.trace(apply, KERNELS, IMAGES)
    return afpjax.quantize(network, FORMAT)


@pytest.fixture(scope="module")
def evaluator(quantized):
    return Evaluator(quantized, IMAGES, LABELS, KEY, metric=LOGITS)


def forward(mask_of):
    """Logits of stored words; `mask_of[call]` is struck in the kernel that the call reads."""
    value = IMAGES
    for call, name in enumerate(CALLS):
        kernel = stored(FORMAT, KERNELS[name]) ^ mask_of.get(call, 0)
        value = loaded(FORMAT, stored(FORMAT, value)) @ loaded(FORMAT, kernel)
        if call < len(CALLS) - 1:
            value = np.maximum(value, 0)
    return value


def one_bit(name, element, bit):
    mask = np.zeros(KERNELS[name].size, int)
    mask[element] = 1 << bit
    return mask.reshape(KERNELS[name].shape)


def test_layers_know_what_they_share(quantized):
    assert quantized.graph.names == NAMES
    assert [layer.shares for layer in quantized.layers] == ["", "", "step", "step", ""]
    assert quantized.graph.stored == (0, 1, 1, 1, 4)


@pytest.mark.parametrize(("named", "element", "bit"), [(1, 0, 7), (2, 13, 5), (3, 35, 6)])
def test_a_fault_in_a_stored_weight_strikes_all_who_read_it(evaluator, named, element, bit):
    mask = one_bit("step", element, bit)
    fault = [Fault.at(Site(named, element, bit))]
    (stored,) = evaluator.evaluate_sites(fault)
    np.testing.assert_array_equal(stored, forward({1: mask, 2: mask, 3: mask}))
    (read,) = evaluator.evaluate_sites(fault, shared="read")
    np.testing.assert_array_equal(read, forward({named: mask}))


def test_a_place_that_two_calls_name_is_one_place(evaluator):
    twice = [Fault.at(Site(1, 8, 6), Site(2, 8, 6), Site(3, 9, 5), Site(0, 3, 7))]
    step = one_bit("step", 8, 6) | one_bit("step", 9, 5)
    expected = forward({0: one_bit("in", 3, 7), 1: step, 2: step, 3: step})
    np.testing.assert_array_equal(evaluator.evaluate_sites(twice)[0], expected)


def mask_of(number, trial, rate, bits):
    """The flips of layer `number`'s stream, from the hash itself."""
    return words.mask_of((KEY, trial, number, 0), WEIGHTS, rate, bits, KERNELS[CALLS[number]].shape)


@pytest.mark.parametrize("shared", ["stored", "read"])
def test_masks_are_those_of_the_stored_copy_or_of_each_read(quantized, evaluator, shared):
    bits, rates, trials, mapping = (2, 5), (0.1, 0.3), [0, 3], (1, 0, 1, 0, 1)
    faults = FaultModel(bits=bits, weight_rate=rates, activation_rate=0.0, shared=shared)
    limits = thresholds(faults, quantized, np.array([mapping]))
    found = evaluator.evaluate(faults, limits, trials)[0]
    own = (0, 1, 1, 1, 4) if shared == "stored" else range(5)
    for trial, logits in zip(trials, found, strict=True):
        masks = {
            call: mask_of(keeper, trial, rates[mapping[call]], bits)
            for call, keeper in enumerate(own)
        }
        np.testing.assert_array_equal(logits, forward(masks))
    of = np.array(mapping)
    alone = quantized(jnp.asarray(IMAGES), mapping=of, faults=faults, key=KEY, trial=trials[-1])
    np.testing.assert_array_equal(alone, found[-1])


def counted(quantized, faults, mapping, trial):
    """Flips of every layer's weights."""
    limits = jax.tree.map(jnp.asarray, thresholds(faults, quantized, mapping))
    place = jnp.arange(1, dtype=jnp.uint32), limits, seed_words(KEY), jnp.uint32(trial)
    return jax.jit(flips_of_trial, static_argnums=0)(faults.spec(), quantized, *place).weights


@pytest.mark.parametrize(
    ("shared", "calls"), [("stored", {1: 0.3}), ("read", {1: 0.1, 2: 0.3, 3: 0.1})]
)
def test_flips_of_a_stored_weight_are_counted_once(quantized, shared, calls):
    bits, struck = (1, 2), {0: 0.1, 4: 0.1} | calls
    faults = FaultModel(bits=bits, weight_rate=(0.1, 0.3), activation_rate=0.0, shared=shared)
    expected = [
        int(np.bitwise_count(mask_of(n, 4, struck[n], bits)).sum()) if n in struck else 0
        for n in range(5)
    ]
    assert counted(quantized, faults, np.array([0, 0, 1, 0, 0]), 4).tolist() == expected


def test_of_rare_rates_a_stored_weight_counts_at_the_highest_threshold_of_63_bits(quantized):
    spec = FaultModel(bits=(0, 1), weight_rate=1e-9).spec()
    calls = [[3, 7, 5, 1], [2, 7, 900, 4], [3, 0, 6, 2**32 - 1]]
    limits = jnp.asarray([[1, 0, 2, 0], *calls, [0, 4, 0, 5]], jnp.uint32)
    nothing = [0] * 4
    expected = [[1, 0, 2, 0], [3, 7, 6, 4], nothing, nothing, [0, 4, 0, 5]]
    assert once(spec, quantized.layers, limits).tolist() == expected


def test_a_budget_counts_stored_bits_once(quantized):
    faults = FaultModel(weight_rate=0.4, activation_rate=0.0, budget=3)
    flips = counted(quantized, faults, np.zeros(5, np.int32), 0).tolist()
    assert flips[2:4] == [0, 0] and sum(flips) == 3


def test_a_stored_weight_is_one_population(quantized):
    def sizes(shared, layers=(0, 1, 2, 3, 4), by="layer"):
        places: dict[str, Any] = {"by": by, "layers": layers, "bits": range(BITS)}
        targets = ["weights", "activations"]
        made = strata.strata(quantized, strata.Single(), targets=targets, shared=shared, **places)
        return [(each.target, each.layers, each.faults) for each in made]

    weights = [("weights", (0,), 240), ("weights", (1,), 288), ("weights", (4,), 144)]
    assert sizes("stored")[:3] == weights and len(sizes("stored")) == 8
    assert len(sizes("read")) == 10
    assert sizes("stored", [2, 3])[0] == ("weights", (1,), 288)
    assert sizes("stored", by="network")[0] == ("weights", (0, 1, 4), 672)


def test_masks_of_a_cell_strike_all_who_read_it(quantized):
    evaluator = Evaluator(quantized, IMAGES, LABELS, KEY, metric=OUTCOME)
    faults = FaultModel(bits=(2, 5), weight_rate=0.3, activation_rate=0.0)
    places: dict[str, Any] = {"by": "layer", "targets": ["weights"], "layers": [2], "crossing": ()}
    (cell,) = masks.cells(faults, rates=[0.3], network=quantized.layers, **places)
    assert cell.layers == (1,)
    options: dict[str, Any] = dict(trials=2, margin=0.1, confidence=0.95, advance=lambda rows: None)
    (counted,) = masks.run(evaluator, faults, [cell], **options)
    for trial, answers in enumerate(counted.answers):
        mask = mask_of(1, trial, 0.3, (2, 5))
        said = forward({1: mask, 2: mask, 3: mask}).argmax(axis=1)
        np.testing.assert_array_equal(answers >> CLASS_SHIFT, said)


def test_layers_of_a_fault_model_reach_a_stored_weight_by_any_call(quantized):
    limits = thresholds(FaultModel(layers=["step:3"]), quantized, np.zeros(5, np.int32))
    assert limits.weights.any(axis=1).tolist() == [False, True, True, True, False]
    assert limits.activations.any(axis=1).tolist() == [False, False, False, True, False]
    read = FaultModel(layers=["step:3"], shared="read")
    limits = thresholds(read, quantized, np.zeros(5, np.int32))
    assert limits.weights.any(axis=1).tolist() == [False, False, False, True, False]


def test_a_layer_struck_alone_is_struck_as_it_is_stored(quantized):
    labels = forward({}).argmax(axis=1).astype(np.int32)
    evaluator = Evaluator(quantized, IMAGES, labels, KEY)
    faults = FaultModel(bits=(5,), weight_rate=0.3, activation_rate=0.0)
    found = sensitivity(evaluator, faults, 1, 1)
    step, first, last = (mask_of(n, 0, 0.3, (5,)) for n in (1, 0, 4))
    for layer in (1, 2, 3):
        alone = forward({1: step, 2: step, 3: step}).argmax(axis=1) == labels
        all_but = forward({0: first, 4: last}).argmax(axis=1) == labels
        np.testing.assert_array_equal(found.alone[layer, 0, 0], alone)
        np.testing.assert_array_equal(found.all_but[layer, 0, 0], all_but)


def test_a_device_holds_a_stored_kernel_once(quantized):
    platform = load_platform(("eyeriss", "simba"), "ucie")
    tables = cost_tables(quantized.graph, platform, weight_bits=BITS, activation_bits=BITS)
    used = [int(each) for each in tables.weight_bytes]
    activations = [int(each) for each in tables.activation_bytes]
    kernel = KERNELS["step"].size
    for mapping in np.stack(np.meshgrid(*[[0, 1]] * 5), -1).reshape(-1, 5):
        expected = 0.0
        small = tables._replace(capacity_bytes=jnp.ones(2, jnp.float32))
        for device in (0, 1):
            mine = np.flatnonzero(mapping == device)
            held = sum(used[n] for n in mine) + max((activations[n] for n in mine), default=0)
            held -= kernel * max(0, int(np.isin(mine, [1, 2, 3]).sum()) - 1)
            expected += max(held - 1, 0)
        assert float(mapping_cost(small, jnp.asarray(mapping)).violation) == expected
    enough = sum(used) - 2 * kernel
    for room, fits in ((enough, True), (enough - 1, False)):
        given = tables._replace(
            capacity_bytes=jnp.asarray([room - 1, 1], jnp.float32),
            activation_bytes=jnp.zeros_like(tables.activation_bytes),
        )
        if fits:
            check_capacity(given, platform.names, quantized.graph)
        else:
            with pytest.raises(InputError, match="fits in no mapping"):
                check_capacity(given, platform.names, quantized.graph)


def test_kernels_that_differ_once_folded_are_stored_one_by_one():
    """A scale after each call, as batch norms have: two alike, one that differs."""
    scales = [np.full(6, 2.0, np.float32), np.full(6, 2.0, np.float32), np.full(6, 3.0, np.float32)]

    def scaled(params, images):
        value = images @ params["in"]
        for scale in scales:
            value = jax.nn.relu((value @ params["step"]) * scale[None])
        return value @ params["out"]

    network = afpjax.trace(scaled, KERNELS, IMAGES)
    assert [layer.shares for layer in network.layers] == ["", "", "step", "", ""]


def test_equal_numbers_in_arrays_of_their_own_are_not_shared():
    params = {"one": np.eye(5, dtype=np.float32), "two": np.eye(5, dtype=np.float32)}

    def twice(params, images):
        return jax.nn.relu(images @ params["one"]) @ params["two"]

    def halves(params, images):
        return jax.nn.relu(images @ params["one"][:, :5]) @ params["one"][:, 5:]

    assert not any(layer.shares for layer in afpjax.trace(twice, params, IMAGES).layers)
    wide = {"one": np.tile(np.eye(5, dtype=np.float32), 2)}
    assert not any(layer.shares for layer in afpjax.trace(halves, wide, IMAGES).layers)
