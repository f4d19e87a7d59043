"""Placements as tasks: every device its own neurons, and what is left when devices are lost."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.deploy.service.plan import ServedExport
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.neurons.placement import Placement

from .exports import FLOAT, NAMES, assert_near, drawn, placed, quantized_of, runner_of

HWIO = ("NHWC", "HWIO", "NHWC")
PARAMS = {
    "stem": {"w": drawn(3, 3, 2, 6)},
    "depthwise": {"w": drawn(3, 3, 1, 12)},
    "mixed": {"w": drawn(4, 12, 5)},
    "head": {"w": drawn(5, 3)},
}
IMAGES = drawn(5, 4, 4, 2)


def conv(x, w, **options):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=HWIO, **options)


def network(params, images, losing=lambda layer, value: value):
    """A convolution, a grouped one, products of several axes in and out, and a residual sum.

    `losing` is what becomes of a layer's output [..., neurons].
    """
    value = losing(0, conv(images, params["stem"]["w"]) + 0.5)
    value = jax.nn.relu(value)
    grouped = losing(1, conv(value, params["depthwise"]["w"], feature_group_count=6))
    value = jax.nn.relu(grouped) + jnp.concatenate([value, value], axis=-1)
    rows = value.mean(axis=1)  # [B, 4, 12]
    mixed = losing(2, jnp.einsum("btc,tcd->btd", rows, params["mixed"]["w"]).reshape(len(rows), 20))
    mixed = jnp.tanh(mixed).reshape(len(rows), 4, 5).sum(axis=1)
    return losing(3, mixed @ params["head"]["w"])


NEURONS = (6, 12, 20, 3)


def placement_of(seed=0, whole_head=False):
    """Every neuron on one device at least, one layer without any on the last device."""
    rng = np.random.default_rng(seed)
    holds = []
    for count in NEURONS:
        held = rng.random((3, count)) < 0.4
        held[rng.integers(0, 2, count), np.arange(count)] = True
        holds.append(held)
    holds[0][2] = False
    if whole_head:
        holds[3][:] = True
    return Placement("random", ("stem", "depthwise", "mixed", "head"), tuple(holds))


SUBSTITUTES = tuple(drawn(count, seed=3) for count in NEURONS)


def without(placement, failed):
    """The function itself, lost neurons replaced: found without `answering`."""

    def losing(layer, value):
        alive = [device for device in range(3) if device not in failed]
        kept = placement.holds[layer][alive].any(axis=0)
        return jnp.where(kept, value, SUBSTITUTES[layer])

    return losing


@pytest.fixture(scope="module")
def quantized():
    return quantized_of(network, PARAMS, IMAGES)


@pytest.fixture(scope="module")
def exported(quantized):
    return placed(quantized, placement_of(), SUBSTITUTES, batch=2)


def test_every_set_of_devices_that_is_left_gives_what_the_function_gives(exported):
    runner = runner_of(exported)
    for lost in range(3):
        for failed in combinations(range(3), lost):
            expected = network(PARAMS, IMAGES, without(placement_of(), failed))
            assert_near(runner(IMAGES, failed), expected, 1e-5)
    with pytest.raises(InputError, match="all devices are lost"):
        runner(IMAGES, (0, 1, 2))


def test_int8_placements_give_afpjax_s_own_logits():
    quantized = quantized_of(network, PARAMS, IMAGES, QFormat(bits=8, frac=4, scale="channel"))
    runner = runner_of(placed(quantized, placement_of(), SUBSTITUTES))
    assert_near(runner(IMAGES), np.asarray(quantized(IMAGES)), 1e-6)


def test_a_device_has_the_weights_of_its_own_neurons_alone(exported):
    placement, manifest = placement_of(), exported.manifest
    each = np.array([9 * 2, 9, 12, 5])  # weights that one neuron reads
    for number, device in enumerate(manifest.devices):
        held = np.array([held[number].sum() for held in placement.holds])
        biases = held[0]
        assert device.weight_bytes == pytest.approx(4 * (held @ each + biases), abs=1500)
        own = [task for task in manifest.tasks if task.device == device.device]
        assert [t.layers for t in own if t.layers] == [
            (name,) for name, count in zip(placement.layers, held, strict=True) if count
        ]
        assert own[-1].outputs == (manifest.output,) and own[-1].layers == ()


def test_the_manifest_has_the_placement(exported):
    placement, manifest = placement_of(), exported.manifest
    assert manifest.placement.layers == placement.layers
    for mine, theirs in zip(manifest.placement.holds, placement.holds, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for values, each in zip(SUBSTITUTES, manifest.pieces.values(), strict=True):
        np.testing.assert_array_equal(np.array(each.substitute, np.float32), values)


def test_who_has_a_copy_is_sent_none(quantized):
    """Counted neuron by neuron; pieces are float32, and a neuron of `stem` has 4 x 4 places."""
    placement = placement_of(whole_head=True)
    manifest = placed(quantized, placement, SUBSTITUTES).manifest
    places = (16, 16, 1, 1)
    expected: dict[tuple[str, str], int] = {}
    for layer, held in enumerate(placement.holds):
        for neuron in range(held.shape[1]):
            owner = int(np.flatnonzero(held[:, neuron])[0])
            for target in range(3):
                if not held[target, neuron]:
                    key = NAMES[owner], NAMES[target]
                    expected[key] = expected.get(key, 0) + 4 * places[layer]
    found: dict[tuple[str, str], int] = {}
    for send in manifest.sends:
        key = send.source, send.target
        found[key] = found.get(key, 0) + send.bytes
        assert not send.tensor.startswith("head")
    assert found == expected


def test_placements_that_do_not_fit_are_refused(quantized):
    placement = placement_of()
    other = Placement("random", placement.layers, (*placement.holds[:3], np.ones((3, 4), bool)))
    with pytest.raises(InputError, match="of another network"):
        placed(quantized, other, SUBSTITUTES)


def coded_placement(whole=()):
    """Two workers, each its own slice of every layer, and a spare with sums of theirs; it has
    copies of the first layer's neurons 1 and 4, and of the layers in `whole` everything."""
    holds = []
    for layer, count in enumerate(NEURONS):
        first = np.arange(count) < count // 2
        spare = np.zeros(count, bool)
        if layer == 0:
            spare[[1, 4]] = True
        holds.append(np.stack([first, ~first, spare | (layer in whole)]))
    return Placement("cdc", ("stem", "depthwise", "mixed", "head"), tuple(holds), spare=2)


@pytest.mark.parametrize(
    ("fmt", "whole", "tolerance"),
    [
        (FLOAT, (), 1e-5),
        (QFormat(bits=8, frac=4, scale="channel"), (1, 3), 1e-5),
        (QFormat(bits=16, frac=8, scale="global"), (), 1e-5),
        # A rounding error of a sum may end a bfloat16 step apart.
        (QFormat(kind="bfloat16"), (1, 3), 0.02),
    ],
)
def test_coded_sums_make_up_for_one_lost_device(fmt, whole, tolerance):
    """Grouped convolutions and products of several axes too; biases, and several batches."""
    quantized = quantized_of(network, PARAMS, IMAGES, fmt)
    runner = runner_of(placed(quantized, coded_placement(whole), SUBSTITUTES, batch=2))
    for failed in ((), (0,), (1,), (2,)):
        assert_near(runner(IMAGES, failed), np.asarray(quantized(IMAGES)), tolerance)


@pytest.fixture(scope="module")
def coded(quantized):
    return placed(quantized, coded_placement(), SUBSTITUTES)


def test_of_two_lost_devices_coded_sums_make_up_for_none(coded):
    runner = runner_of(coded)
    for failed in combinations(range(3), 2):
        expected = network(PARAMS, IMAGES, without(coded_placement(), failed))
        assert_near(runner(IMAGES, failed), expected, 1e-5)


def test_a_sum_is_one_filter_and_neurons_of_all_groups_read_all_channels(coded):
    manifest = coded.manifest
    assert manifest.placement.spare == 2
    for mine, theirs in zip(manifest.pieces.values(), range(4), strict=True):
        sums = coded_placement().coded(theirs)
        assert mine.sums == tuple(tuple(np.flatnonzero(row)) for row in sums)
    weights = 5 * 9 * 2 + 6 * 9 * 6 + 10 * 4 * 12 + 2 * 5  # stem: 2 neurons and 3 sums
    assert manifest.devices[2].weight_bytes == pytest.approx(4 * weights, abs=1500)
    assert manifest.devices[0].weight_bytes < manifest.devices[2].weight_bytes


def test_sums_and_copies_that_nobody_needs_are_not_worked_out(quantized):
    exported = placed(quantized, coded_placement(whole=(3,)), SUBSTITUTES)
    served = ServedExport(exported.manifest, exported.files, NAMES)
    layers = {"stem", "depthwise", "mixed"}

    def makers(lost):
        tasks = served.plan(0, lost).tasks
        return {
            name: {NAMES.index(t.device) for t in tasks if t.task.startswith(f"{name}@")}
            for name in layers
        }

    for lost, of_all in (((), {0, 1}), ((2,), {0, 1}), ((0,), {1, 2})):
        assert all(found == of_all for found in makers(lost).values())
    assert makers((0, 1)) == {"stem": {2}, "depthwise": set(), "mixed": set()}
