"""Traffic and energy: small layers worked out by hand, level by level."""

import dataclasses
import math
from typing import Any

import pytest

from afpjax.hardware import Device, Sizes, layer_cost, load_device, shipped_devices
from afpjax.hardware.platform import Energies, Memories, PEArray
from afpjax.network.layers import Layer

LEVELS = ("mac", "input", "weight", "partial_sum", "buffer", "dram")


def device(dataflow: Any = "row-stationary", rows=2, columns=2, **memory) -> Device:
    sizes = dict(buffer_bytes=10**6, input_words=3, weight_words=6, partial_sum_words=2)
    return Device(
        name="small",
        description="",
        clock_mhz=1.0,
        word_bits=16,
        memory_bytes=10**9,
        dram_gb_s=1.0,
        weight_fault_rate=0.0,
        activation_fault_rate=0.0,
        array=PEArray(dataflow, rows, columns),
        memory=Memories(**{**sizes, **memory}),
        energy_pj=Energies(*[1.0] * 6),
    )


def counts(layer: Layer, on: Device, sizes: Sizes) -> dict[str, float]:
    """Accesses per level, each read from the energy where that level alone costs 1 pJ."""
    found = {}
    for level in LEVELS:
        alone = Energies(**{each: float(each == level) for each in LEVELS})
        found[level] = layer_cost(layer, dataclasses.replace(on, energy_pj=alone), sizes)[1] * 1e9
    return found


def test_a_dense_layer_on_rows_by_hand(layer_of):
    """4 -> 2 on 2x2 PEs: two channels down, two neurons across, all in one pass.

    Buffer: 4 inputs in and out, 2 sums written and read. Each of 8 products reads an input and a
    weight, and reads and writes a sum; fills are 4 inputs and 8 weights.
    """
    layer = layer_of(("fc", 4, 0, 0, 2, 0, 1))
    expected = dict(mac=8, input=12, weight=16, partial_sum=16, buffer=12, dram=14)
    assert counts(layer, device(), Sizes()) == pytest.approx(expected)
    assert layer_cost(layer, device(), Sizes())[0] == pytest.approx(2e-3)  # 8 / 4 cycles at 1 MHz


def test_narrow_formats_take_fewer_words_and_smaller_products(layer_of):
    layer = layer_of(("fc", 4, 0, 0, 2, 0, 1))
    got = counts(layer, device(), Sizes(weight_bits=8, activation_bits=4))
    expected = dict(mac=1, input=3, weight=8, partial_sum=4, buffer=3, dram=8 / 2 + 6 / 4)
    assert got == pytest.approx(expected)


def test_a_convolution_on_rows_by_hand(layer_of):
    """4 -> 4 channels, 3x3, 4x4 in, 2x2 out, on 3x2 PEs that hold a channel and 2 neurons each.

    Three filter rows down and two neurons across: one pass over the neurons, four over the
    channels. All inputs stay in the buffer.
    """
    layer, on = layer_of(("conv", 4, 4, 3, 4, 2, 1)), device(rows=3, partial_sum_words=16)
    expected = dict(
        mac=576,
        input=576 + 3 * 64,
        weight=576 + 144,
        partial_sum=2 * 576,
        buffer=2 * 64 + 2 * 4 * 16,
        dram=144 + 64 + 16,
    )
    assert counts(layer, on, Sizes()) == pytest.approx(expected)
    assert layer_cost(layer, on, Sizes())[0] == pytest.approx(576 / 6 * 1e-3)


def test_a_buffer_too_small_is_paid_at_the_dram(layer_of):
    """One row at a time: all weights twice, 2 x 3 of 4 input rows, and inputs anew per pass."""
    layer = layer_of(("conv", 4, 4, 3, 4, 2, 1))
    on = device(rows=3, weight_words=3, partial_sum_words=16, buffer_bytes=1)
    assert counts(layer, on, Sizes())["dram"] == pytest.approx(2 * 144 + 2 * 96 + 16)


def test_a_filter_taller_than_the_array_takes_a_pass_for_every_row(layer_of):
    """As above on one PE: sums are written and read three times."""
    got = counts(layer_of(("conv", 1, 4, 3, 1, 2, 1)), device(rows=1, columns=1), Sizes())
    assert got["buffer"] == pytest.approx(16 + 16 + 2 * 3 * 4)


def test_rows_between_strides_take_room(layer_of):
    """1x1 with stride 2, 8x8 in: two output rows span three input rows, 24 + 8 words.

    With room for 30, one row is worked on at a time, and the weights come four times.
    """
    layer = layer_of(("conv", 1, 8, 1, 2, 4, 1))
    on = device(rows=1, columns=1, input_words=1, weight_words=1, buffer_bytes=60)
    assert counts(layer, on, Sizes())["dram"] == pytest.approx(4 * 2 + 64 + 32)


def spatial(image, kernel, out) -> Layer:
    """A convolution of any number of spatial axes, channels last."""
    *window, channels, neurons = kernel
    fan_in = math.prod(kernel[:-1])
    outputs = (1, *out, neurons)
    return Layer(
        "conv", "conv", (1, *image, channels), kernel, outputs, neurons, fan_in,
        fan_in * math.prod(outputs), math.prod(kernel), 0, tuple(window), out,
    )  # fmt: skip


def test_a_1d_convolution_holds_its_whole_row():
    """2 -> 2 channels, stride 4: 32 inputs, 8 sums, in two passes over either.

    Neither all inputs with half the sums (36 words) nor the reverse (24) fit 23 words. A stride was
    taken for a share of the row that need not be there.
    """
    layer = spatial((16,), (3, 2, 2), (4,))
    on = device(rows=1, columns=1, weight_words=3, buffer_bytes=46)
    assert counts(layer, on, Sizes())["dram"] == pytest.approx(12 + 2 * 32 + 8)


def test_a_3d_convolution_reads_overlapping_planes_again():
    """Stride 2, 8 planes in, 4 out, 3 needed by each: 12 are read for 8, and weights 4 times."""
    layer = spatial((8, 8, 8), (3, 3, 3, 1, 1), (4, 4, 4))
    got = counts(layer, device(rows=1, columns=1, input_words=9, buffer_bytes=1), Sizes())
    assert got["dram"] == pytest.approx(4 * 27 + 512 * 12 / 8 + 64)


@pytest.mark.parametrize(("buffer_bytes", "inputs_read"), [(10**6, 16), (1, 32)])
def test_a_convolution_on_stationary_weights_by_hand(layer_of, buffer_bytes, inputs_read):
    """1x1, 4 -> 8 channels, 2x2 pixels; half the 32 weights fit, so the inputs pass twice."""
    on = device(
        "weight-stationary", weight_words=8, buffer_bytes=buffer_bytes, input_share=2,
        partial_sum_share=2,
    )  # fmt: skip
    layer = layer_of(("conv", 4, 2, 1, 8, 2, 1))
    expected = dict(
        mac=128,
        input=128 / 2 + 2 * 16,
        weight=32 + 128 / 2,
        partial_sum=2 * 128 / 2,
        buffer=2 * 2 * 16 + 2 * 32,
        dram=32 + inputs_read + 32,
    )
    assert counts(layer, on, Sizes()) == pytest.approx(expected)
    assert layer_cost(layer, on, Sizes())[0] == pytest.approx(128 / 4 * 1e-3)


def test_a_fixed_device_is_a_plain_roofline(layer_of):
    on = device("fixed", rows=2, columns=3)
    layer = layer_of(("conv", 4, 4, 3, 4, 2, 1))
    expected = dict(mac=576, input=0, weight=0, partial_sum=0, buffer=0, dram=144 + 64 + 16)
    assert counts(layer, on, Sizes()) == pytest.approx(expected)
    slow = dataclasses.replace(on, dram_gb_s=1e-6)  # a byte per millisecond
    assert layer_cost(layer, on, Sizes())[0] == pytest.approx(576 / 6 * 1e-3)
    assert layer_cost(layer, slow, Sizes())[0] == pytest.approx(2 * (144 + 64 + 16))


def test_a_batch_shares_the_weights_of_a_dense_layer(layer_of):
    """Four images: products four times, weights from DRAM once."""
    layer = layer_of(("fc", 4, 0, 0, 2, 0, 1))
    for dataflow in ("row-stationary", "fixed"):
        one, four = (counts(layer, device(dataflow), Sizes(batch=b)) for b in (1, 4))
        assert (one["dram"], four["dram"]) == pytest.approx((8 + 6, 8 + 4 * 6))
        assert (one["mac"], four["mac"]) == pytest.approx((8, 32))


@pytest.mark.parametrize("name", shipped_devices())
def test_a_batch_never_costs_more_than_its_images(name, networks):
    on = load_device(name)
    unlimited = dataclasses.replace(on, dram_gb_s=math.inf)
    for layer in networks["alexnet"].layers + networks["squeezenet"].layers[:4]:
        for batch in (2, 6):
            (ms, mj), (batch_ms, batch_mj) = (
                layer_cost(layer, on, Sizes(batch=b)) for b in (1, batch)
            )
            assert mj < batch_mj <= batch * mj * (1 + 1e-12)
            assert ms < batch_ms <= batch * ms * (1 + 1e-12)
            computing = [layer_cost(layer, unlimited, Sizes(batch=b))[0] for b in (1, batch)]
            assert computing[1] == pytest.approx(batch * computing[0])
