"""Weights that several layer calls share, beside a recurrent network in NumPy's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import afpjax
from afpjax.campaigns import masks, strata
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import CLASS_SHIFT, LOGITS, OUTCOME
from afpjax.evaluate.sensitivity import sensitivity
from afpjax.faults.bits import WEIGHTS, flip_mask, seed_words, stream, threshold
from afpjax.faults.inject import flips_of_trial
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import Fault, Site
from afpjax.hardware.cost import cost_tables
from afpjax.hardware.platform import load_platform
from afpjax.hardware.tables import check_capacity, mapping_cost
from afpjax.inputs.errors import InputError

BITS, FRAC, STEPS, KEY = 8, 4, 3, 5
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
    return afpjax.quantize(network, afpjax.QFormat(bits=BITS, frac=FRAC))


@pytest.fixture(scope="module")
def evaluator(quantized):
    return Evaluator(quantized, IMAGES, LABELS, KEY, metric=LOGITS)


def codes(values):
    return np.clip(np.round(values * 2**FRAC), -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1).astype(int)


def flipped(word, mask):
    """Bits of a two's complement word of `BITS` bits."""
    unsigned = (word & (2**BITS - 1)) ^ mask
    return np.where(unsigned >= 2 ** (BITS - 1), unsigned - 2**BITS, unsigned)


def forward(mask_of):
    """Logits in integers; `mask_of[call]` is struck in the kernel that the call reads."""
    value = codes(IMAGES)
    for call, name in enumerate(CALLS):
        kernel = codes(KERNELS[name])
        if call in mask_of:
            kernel = flipped(kernel, mask_of[call])
        total = value @ kernel  # on a grid of 2^-2·FRAC
        if call == len(CALLS) - 1:
            return total / 2.0 ** (2 * FRAC)
        value = codes(np.maximum(total, 0) / 2.0 ** (2 * FRAC))
    raise AssertionError


def one_bit(name, element, bit):
    mask = np.zeros(KERNELS[name].size, int)
    mask[element] = 1 << bit
    return mask.reshape(KERNELS[name].shape)


def test_layers_know_what_they_share(quantized):
    assert quantized.graph.names == NAMES
    assert [layer.shares for layer in quantized.layers] == ["", "", "step", "step", ""]
    assert quantized.graph.stored == (0, 1, 1, 1, 4)


@pytest.mark.parametrize("named", [1, 2, 3])
@pytest.mark.parametrize(("element", "bit"), [(0, 7), (13, 5), (35, 6)])
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
    drawn = stream(
        seed_words(KEY), trial=jnp.uint32(trial), layer=jnp.uint32(number), target=WEIGHTS
    )
    limits = np.full(len(bits), threshold(np.array([rate]))[0])
    shape = KERNELS[CALLS[number]].shape
    return np.asarray(flip_mask(drawn, shape, bits, limits)).astype(int)


@pytest.mark.parametrize("shared", ["stored", "read"])
@pytest.mark.parametrize("mapping", [(0, 0, 0, 0, 0), (1, 0, 1, 0, 1)])
def test_masks_are_those_of_the_stored_copy_or_of_each_read(quantized, evaluator, shared, mapping):
    bits, rates, trials = (2, 5), (0.1, 0.3), [0, 3]
    faults = FaultModel(bits=bits, weight_rate=rates, activation_rate=0.0, shared=shared)
    limits = thresholds(faults, quantized, np.array([mapping]))
    found = evaluator.evaluate(faults, limits, trials)[0]
    for trial, logits in zip(trials, found, strict=True):
        own = (0, 1, 1, 1, 4) if shared == "stored" else range(5)
        masks = {
            call: mask_of(keeper, trial, rates[mapping[call]], bits)
            for call, keeper in enumerate(own)
        }
        np.testing.assert_array_equal(logits, forward(masks))
        of = np.array(mapping)
        alone = quantized(jnp.asarray(IMAGES), mapping=of, faults=faults, key=KEY, trial=trial)
        np.testing.assert_array_equal(alone, logits)


def test_flips_of_a_stored_weight_are_counted_once(quantized):
    mapping, bits = np.array([0, 0, 1, 0, 0]), (1, 2)
    for shared, calls in (("stored", {1: 0.3}), ("read", {1: 0.1, 2: 0.3, 3: 0.1})):
        faults = FaultModel(bits=bits, weight_rate=(0.1, 0.3), activation_rate=0.0, shared=shared)
        limits = jax.tree.map(jnp.asarray, thresholds(faults, quantized, mapping))
        counted = flips_of_trial(
            faults.spec(),
            quantized,
            jnp.arange(2, dtype=jnp.uint32),
            limits,
            seed_words(KEY),
            jnp.uint32(4),
        ).weights
        struck = {0: 0.1, 4: 0.1} | calls
        expected = [
            int(np.bitwise_count(mask_of(n, 4, struck[n], bits)).sum()) if n in struck else 0
            for n in range(5)
        ]
        assert counted.tolist() == expected


@pytest.mark.in_ci("3")
@pytest.mark.parametrize("budget", [0, 3, 1000])
def test_a_budget_counts_stored_bits_once(quantized, budget):
    faults = FaultModel(weight_rate=0.4, activation_rate=0.0, budget=budget)
    limits = jax.tree.map(jnp.asarray, thresholds(faults, quantized, np.zeros(5, np.int32)))
    indices, seed = jnp.arange(1, dtype=jnp.uint32), seed_words(KEY)
    flips = flips_of_trial(faults.spec(), quantized, indices, limits, seed, jnp.uint32(0))
    assert int(flips.weights.sum()) <= budget
    if budget == 1000:
        assert flips.weights.tolist()[2:4] == [0, 0] and int(flips.weights.sum()) > 100


def test_a_stored_weight_is_one_population(quantized):
    def sizes(shared, layers=(0, 1, 2, 3, 4), by="layer"):
        made = strata.strata(
            quantized,
            strata.Single(),
            by=by,
            targets=["weights", "activations"],
            layers=layers,
            bits=range(BITS),
            shared=shared,
        )
        return [(each.target, each.layers, each.faults) for each in made]

    weights = [("weights", (0,), 240), ("weights", (1,), 288), ("weights", (4,), 144)]
    assert sizes("stored")[:3] == weights and len(sizes("stored")) == 8
    assert len(sizes("read")) == 10
    assert sizes("stored", [2, 3])[0] == ("weights", (1,), 288)
    assert sizes("stored", by="network")[0] == ("weights", (0, 1, 4), 672)


def test_masks_of_a_cell_strike_all_who_read_it(quantized):
    evaluator = Evaluator(quantized, IMAGES, LABELS, KEY, metric=OUTCOME)
    faults = FaultModel(bits=(2, 5), weight_rate=0.3, activation_rate=0.0)
    (cell,) = masks.cells(
        faults,
        by="layer",
        targets=["weights"],
        layers=[2],
        crossing=(),
        rates=[0.3],
        network=quantized.layers,
    )
    assert cell.layers == (1,)
    found = masks._answers(evaluator, faults, [cell], 2)[0]
    for trial in range(2):
        mask = mask_of(1, trial, 0.3, (2, 5))
        said = forward({1: mask, 2: mask, 3: mask}).argmax(axis=1)
        np.testing.assert_array_equal(found[trial] >> CLASS_SHIFT, said)


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


def test_an_unknown_view_is_refused():
    with pytest.raises(InputError, match=r"faults\.shared: 'both' is none of stored, read"):
        FaultModel(shared="both")
