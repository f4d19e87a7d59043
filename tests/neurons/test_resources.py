"""Memory, energy and frame rate of small networks, worked out by hand; and bad input."""

import dataclasses

import numpy as np
import pytest

from afpjax.hardware import Link
from afpjax.hardware.board import Board
from afpjax.inputs.errors import InputError
from afpjax.network.layers import LayerGraph
from afpjax.neurons.resources import Resources, patches, resources

from .table2 import chain, conv, dense

PLAIN = Board(
    name="plain",
    description="",
    memory_mb=1000.0,
    base_mb=10.0,
    unfolded_bytes=4.0,
    peak_gmac_s=1.0,
    bandwidth_gb_s=1.0,
    launch_ms=0.5,
    image_ms=2.0,
    message_ms=0.25,
    base_w=5.0,
    compute_w=3.0,
)
WIRE = Link("wire", "", 0.008, 0.0, 0, 0, 100.0, 0.0)  # 1 kB in 1 ms, 0.1 W
#: 1 x 1 convolution of 4 channels to 8 neurons on 10 x 10, and a dense layer of those 800 to 6.
SMALL = chain(conv("first", 4, 10, 1, 8, 10), dense("last", 800, 6))
HALVES = np.array([[4, 4], [3, 3]])


def small(loads=HALVES, board=PLAIN, link=WIRE, **options) -> Resources:
    return resources(SMALL, loads, board, link, **options)


def test_memory_is_weights_and_the_largest_layers_activations():
    weights = 2 * (4 * (4 + 1) + 3 * (800 + 1))
    # Input, unfolded input, own outputs, and the buffer for all of them.
    first = 2 * 400 + 4 * 400 + 2 * 400 + 2 * 800
    last = 2 * 800 + 4 * 800 + 2 * 3  # nobody reads the logits
    expected = 10 + (weights + max(first, last)) / 1e6
    np.testing.assert_allclose(small().memory_mb, [expected, expected], rtol=1e-12)
    # Who computes everything needs no buffer; who computes nothing one for what it is sent.
    alone = (2 * (8 * 5 + 6 * 801) + 2 * 800 + 4 * 800 + 2 * 6, 2 * 800)
    got = small(np.array([[8, 0], [6, 0]])).memory_mb
    np.testing.assert_allclose(got, 10 + np.array(alone) / 1e6, rtol=1e-12)


def test_time_is_the_longer_of_arithmetic_and_traffic_and_the_slowest_devices():
    macs = 100 * 4 * 8, 800 * 6
    # 1e6 multiply-accumulates, or bytes, take a millisecond.
    moved = [
        [2 * 400 + 8 * 400 + share * (2 * 8 * 5 + 2 * 800) for share in (0.25, 0.75)],
        [2 * 800 + 8 * 800 + share * (2 * 6 * 801 + 2 * 6) for share in (0.5, 0.5)],
    ]
    for peak in (1.0, 0.01):
        times = [
            [0.5 + max(share * m / peak, b) / 1e6 for share, b in zip(shares, row, strict=True)]
            for shares, m, row in zip(((0.25, 0.75), (0.5, 0.5)), macs, moved, strict=True)
        ]
        board = dataclasses.replace(PLAIN, peak_gmac_s=peak)
        got = small(np.array([[2, 6], [3, 3]]), board)
        np.testing.assert_allclose(got.busy_ms, np.sum(times, axis=0), rtol=1e-12)
        # One gather, of one message each.
        assert got.compute_ms == pytest.approx(2.0 + max(times[0]) + max(times[1]) + 0.25)


def test_the_wires_carry_what_the_device_lacks_that_lacks_most():
    loads = np.array([[2, 6], [3, 3]])
    assert small(loads).link_ms == pytest.approx(2 * 600 / 1e3)
    assert small(np.array([[8, 8], [3, 3]])).link_ms == 0.0
    air = dataclasses.replace(WIRE, shared_medium=True)  # devices send in turns
    assert small(loads, link=air).link_ms == pytest.approx(2 * (600 + 200) / 1e3)
    first, last = SMALL.layers
    pooled = chain(first, dataclasses.replace(last, input_shape=(1, 200)))
    assert small().link_ms == pytest.approx(2 * 400 / 1e3)
    assert resources(pooled, HALVES, PLAIN, WIRE).link_ms == pytest.approx(2 * 100 / 1e3)


def test_a_stream_overlaps_the_wires_with_the_computing_but_for_its_first_batch():
    slow = dataclasses.replace(PLAIN, image_ms=0.0, launch_ms=0.0)
    for link in (WIRE, dataclasses.replace(WIRE, bandwidth_gbit_s=0.0008)):
        got = small(board=slow, link=link)
        longer, shorter = sorted((got.compute_ms, got.link_ms), reverse=True)
        assert got.step_ms == longer
        assert got.fps == pytest.approx(1e6 / (1000 * longer + shorter))
        alone = small(board=slow, link=link, images=1)
        assert alone.fps == pytest.approx(1e3 / (longer + shorter))


def test_energy_is_power_by_time_and_what_is_received():
    got = small(np.array([[2, 6], [3, 3]]), images=1)
    total_s = (got.compute_ms + got.link_ms) / 1e3
    # 600 and 200 values of 2 bytes, a kilobyte a millisecond.
    received = np.array([1.2, 0.4]) * 0.1e-3
    expected = 5.0 * total_s + 3.0 * got.busy_ms / 1e3 + received
    np.testing.assert_allclose(got.energy_j, expected, rtol=1e-12)
    assert got.peak_energy_j == got.energy_j[0] and got.peak_memory_mb == got.memory_mb[1]


def test_a_batch_loads_weights_and_launches_layers_once():
    board = dataclasses.replace(PLAIN, image_ms=0.0, message_ms=0.0)
    one, eight = small(board=board, images=8), small(board=board, images=8, batch=8)
    weights = 2 * (4 * 5 + 3 * 801) / 1e6
    assert eight.compute_ms == pytest.approx(8 * one.compute_ms - 7 * (weights + 2 * 0.5))
    assert eight.link_ms == pytest.approx(8 * one.link_ms)
    activations = one.peak_memory_mb - 10 - weights
    assert eight.peak_memory_mb == pytest.approx(10 + weights + 8 * activations)
    assert eight.fps > one.fps and eight.peak_energy_j < one.peak_energy_j
    # A started batch takes as long as a full one.
    assert small(images=9, batch=8).fps == pytest.approx(9 / 16 * small(images=16, batch=8).fps)


def test_wider_weights_take_more_memory_and_time():
    half, single = small(), small(weight_bytes=4)
    weights = 2 * (4 * 5 + 3 * 801) / 1e6
    assert single.peak_memory_mb - half.peak_memory_mb == pytest.approx(weights)
    assert single.compute_ms - half.compute_ms == pytest.approx(weights)


def test_idle_devices_keep_their_weights_and_their_base_power():
    loads = np.array([[4, 4, 4], [3, 3, 3]])
    waiting, two = small(loads, idle=(2,)), small()
    assert waiting.fps == two.fps
    np.testing.assert_allclose(waiting.energy_j[:2], two.energy_j)
    assert waiting.busy_ms[2] == 0.0
    assert waiting.energy_j[2] == pytest.approx(5.0 / two.fps)
    assert waiting.memory_mb[2] > 10 + 2 * (4 * 5 + 3 * 801) / 1e6
    three = small(loads)
    assert three.compute_ms == pytest.approx(two.compute_ms + 0.25)  # one message more


def test_a_depthwise_convolution_is_not_unfolded_and_a_grouped_one_by_group():
    assert patches(conv("depthwise", 8, 5, 7, 8, 5, groups=8)) == 0
    assert patches(conv("grouped", 8, 5, 3, 4, 5, groups=2)) == 9 * 4 * 25
    assert patches(conv("grey", 1, 5, 3, 4, 5)) == 9 * 25
    grouped = chain(conv("grouped", 8, 5, 3, 4, 5, groups=2))
    got = resources(grouped, np.array([[4]]), PLAIN, WIRE)
    whole = 2 * 200 + 2 * 4 * (9 * 4 + 1) + 2 * 100
    assert got.busy_ms[0] == pytest.approx(0.5 + (whole + 8 * 2 * 9 * 4 * 25) / 1e6)
    assert got.memory_mb[0] == pytest.approx(10 + (whole + 4 * 9 * 4 * 25) / 1e6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch: 0; give 1 or more"),
        ({"weight_bytes": 0}, "weight_bytes: 0; give 1 or more"),
        ({"activation_bytes": -2}, "activation_bytes: -2; give 1 or more"),
        ({"idle": (2,)}, "idle: no device 2; devices are 0 to 1"),
        ({"idle": (0, 1)}, "idle: all devices"),
        ({"loads": np.array([[9, 4], [3, 3]])}, "loads of layer `first`.*give 0 to 8 neurons"),
        ({"loads": np.array([[4, 4]])}, "loads: 1 x 2 numbers for 2 layers"),
        ({"loads": np.zeros((2, 0), int)}, "loads: 2 x 0 numbers"),
        ({"batch": 10**6}, "device 0 needs .* MB and `plain` has 1000: lower the batch"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(change, message):
    with pytest.raises(InputError, match=message) as caught:
        small(**change)
    assert "\n" not in str(caught.value)


def test_a_network_without_layers_is_refused():
    with pytest.raises(InputError, match="loads: 0 x 2 numbers for 0 layers"):
        resources(LayerGraph((), ()), np.zeros((0, 2), int), PLAIN, WIRE)
