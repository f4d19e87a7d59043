"""Lanes in vectors, on layers of few channels: a loop nest walked lane by lane, and counted."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from afpjax.hardware import Device, Sizes, active_lanes, layer_cost, load_device
from afpjax.hardware.platform import Energies, Memories, PEArray
from afpjax.network.layers import Layer


class Nest(NamedTuple):
    """A dense or 1x1 layer: what one pixel takes, and how many pixels there are."""

    groups: int
    channels: int  # of one group
    neurons: int  # of one group
    pixels: int


class Counted(NamedTuple):
    """Lanes at work in every cycle; reads of inputs and accesses to sums inside the PEs."""

    lanes: int
    inputs: int
    sums: int


def parts(length: int) -> Iterator[tuple[int, int, int]]:
    """All ways to cut a loop: over PEs, over vectors, and what is left for time."""
    for outer, inner in itertools.product(range(1, length + 1), repeat=2):
        if length % (outer * inner) == 0:
            yield outer, inner, length // (outer * inner)


def mappings(nest: Nest, array: PEArray) -> Iterator[Counted]:
    """Every mapping of the rule: PEs and vectors take anything, the lanes of a vector channels."""
    vectors = array.columns // array.vector
    for lanes in (n for n in range(1, array.vector + 1) if nest.channels % n == 0):
        cuts = [parts(nest.groups), parts(nest.neurons), parts(nest.channels // lanes)]
        for g, k, c in itertools.product(*cuts):
            if g[0] * k[0] * c[0] <= array.rows and g[1] * k[1] * c[1] <= vectors:
                yield walk(nest, g, k, c, lanes)


def walk(nest, g, k, c, lanes) -> Counted:
    """Go through all cycles of one pixel; each lane multiplies one channel for one neuron."""
    inputs = sums = macs = cycles = 0
    for gt, kt, ct in itertools.product(range(g[2]), range(k[2]), range(c[2])):
        cycles += 1
        for gp, kp, cp in itertools.product(range(g[0]), range(k[0]), range(c[0])):
            read, added = set(), set()
            for gv, kv, cv in itertools.product(range(g[1]), range(k[1]), range(c[1])):
                group = (gt * g[0] + gp) * g[1] + gv
                neuron = (kt * k[0] + kp) * k[1] + kv
                for lane in range(lanes):
                    channel = ((ct * c[0] + cp) * c[1] + cv) * lanes + lane
                    read.add((group, channel))
                    added.add((group, neuron, cv))  # a vector's sum; another vector has its own
                    macs += 1
            inputs += len(read)
            sums += 2 * len(added)
    assert macs == nest.groups * nest.neurons * nest.channels
    return Counted(macs // cycles, nest.pixels * inputs, nest.pixels * sums)


def conv(nest: Nest, *, axes: int = 2) -> Layer:
    """A 1x1 convolution of the nest over `axes` axes, all pixels along the last."""
    size = (1,) * (axes - 1) + (nest.pixels,)
    channels, neurons = nest.groups * nest.channels, nest.groups * nest.neurons
    macs = neurons * nest.channels * nest.pixels
    kernel = (*(1,) * axes, nest.channels, neurons)
    return Layer(
        "conv", "conv", (1, *size, channels), kernel, (1, *size, neurons), neurons, nest.channels,
        macs, math.prod(kernel), 0, (1,) * axes, size, nest.groups,
    )  # fmt: skip


def dense(nest: Nest) -> Layer:
    """A product with a batch axis for the groups, applied at every pixel."""
    kernel = (nest.groups, nest.channels, nest.neurons)
    return Layer(
        "dense", "dense", (nest.groups, nest.pixels, nest.channels), kernel,
        (nest.groups, nest.pixels, nest.neurons), nest.groups * nest.neurons, nest.channels,
        math.prod(kernel) * nest.pixels, math.prod(kernel), 0,
    )  # fmt: skip


def device(array: PEArray, share: int, added: int) -> Device:
    memory = Memories(10**6, 10**6, 10**6, 1, input_share=share, partial_sum_share=added)
    return dataclasses.replace(load_device("simba"), word_bits=16, array=array, memory=memory)


def counted(layer: Layer, on: Device) -> tuple[float, float]:
    """Reads of inputs but for filling their buffer, and accesses to sums, by the model."""

    def alone(level: str) -> float:
        energies = Energies(
            **{**dict.fromkeys(("mac", "weight", "buffer", "dram"), 0.0)},
            **{each: float(each == level) for each in ("input", "partial_sum")},
        )
        return layer_cost(layer, dataclasses.replace(on, energy_pj=energies), Sizes())[1] * 1e9

    return alone("input") - layer.inputs, alone("partial_sum")


KINDS = {
    "depthwise": Nest(12, 1, 1, 3),
    "depthwise, multiplied": Nest(6, 1, 2, 2),
    "grouped": Nest(4, 2, 3, 2),
    "grouped, few neurons": Nest(2, 4, 1, 1),
    "one channel": Nest(1, 1, 8, 2),
    "three channels": Nest(1, 3, 4, 2),
    "one neuron": Nest(1, 8, 1, 2),
    "wide": Nest(1, 8, 8, 1),
}


@pytest.mark.parametrize("array", [(2, 4, 2), (4, 8, 4), (3, 6, 3)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_lanes_reads_and_sums_are_those_of_the_best_mapping(kind, array):
    """As many lanes as any mapping has and, among those, the fewest accesses of either memory."""
    nest, on = KINDS[kind], PEArray("weight-stationary", *array)
    every = list(mappings(nest, on))
    most = max(each.lanes for each in every)
    best = [each for each in every if each.lanes == most]
    shared = device(on, on.columns // on.vector, on.vector)
    for layer in (conv(nest), conv(nest, axes=1), conv(nest, axes=3), dense(nest)):
        assert active_lanes(layer, on) == most
        reads, sums = counted(layer, shared)
        assert reads == pytest.approx(min(each.inputs for each in best))
        assert sums == pytest.approx(min(each.sums for each in best))


def test_a_depthwise_layer_shares_nothing_on_simba(layer_of):
    """MobileNet's: a lane of each vector at work, an input read and a sum written for each product.

    An input was counted as feeding four lanes, a sum as collecting four, and all lanes as working.
    """
    simba = dataclasses.replace(load_device("simba"), dram_gb_s=math.inf)
    layer = layer_of(("depthwise", 64, 16, 3, 64, 14, 64))
    assert active_lanes(layer, simba.array) == 64
    ms, _ = layer_cost(layer, simba, Sizes(8, 8))
    assert ms == pytest.approx(layer.macs / 64 / 200e3)
    reads, sums = counted(layer, simba)
    words = 2  # of 8 bits, in a value of 16
    assert reads + layer.inputs == pytest.approx(words * (layer.macs + layer.inputs))
    assert sums == pytest.approx(words * 2 * layer.macs)
