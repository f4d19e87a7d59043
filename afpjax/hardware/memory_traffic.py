"""How often a layer on a device touches each level of memory, and what that costs.

Every level is counted in words of the device: a value of b bits is b / word_bits words, and a
product of a- and b-bit values costs a x b / word_bits^2 multiply-accumulates of energy, as the area
of a multiplier does. (Lanes are as wide as the format: bits change traffic and energy, not cycles.)
"""

from collections.abc import Iterator
from typing import NamedTuple

from afpjax.hardware.lanes import Loops, LoopSplit, best_splits, loops
from afpjax.hardware.platform import Device
from afpjax.network.layers import Layer


class Sizes(NamedTuple):
    """How wide values are, in bits, and how many images one inference batch has."""

    weight_bits: int = 16
    activation_bits: int = 16
    batch: int = 1


class Traffic(NamedTuple):
    """Values moved for one batch: at the DRAM, at the shared buffer, inside the PEs."""

    dram_weights: float
    dram_activations: float
    buffer: float = 0.0
    input: float = 0.0
    weight: float = 0.0
    partial_sum: float = 0.0


class _Tile(NamedTuple):
    """Output rows that are worked on together, with all weights passing by once per tile."""

    output_rows: int
    images: int
    count: int  # tiles in the whole batch


def layer_traffic(layer: Layer, device: Device, sizes: Sizes) -> Traffic:
    """The traffic of the mapping that costs least energy among those with the most lanes."""
    candidates = list(_candidates(layer, device, sizes))
    return min(candidates, key=lambda traffic: energy_pj(traffic, layer, device, sizes))


def energy_pj(traffic: Traffic, layer: Layer, device: Device, sizes: Sizes) -> float:
    """Picojoules of one batch: multiply-accumulates, and accesses per level x energy per access."""
    each, word = device.energy_pj, device.word_bits
    weight_words, activation_words = sizes.weight_bits / word, sizes.activation_bits / word
    activations = (
        traffic.input * each.input
        + traffic.partial_sum * each.partial_sum
        + traffic.buffer * each.buffer
        + traffic.dram_activations * each.dram
    )
    weights = traffic.weight * each.weight + traffic.dram_weights * each.dram
    products = layer.macs * sizes.batch * each.mac * weight_words * activation_words
    return products + activation_words * activations + weight_words * weights


def dram_bytes(traffic: Traffic, sizes: Sizes) -> float:
    """Bytes that one batch moves between the device and its DRAM."""
    weights = traffic.dram_weights * sizes.weight_bits
    return (weights + traffic.dram_activations * sizes.activation_bits) / 8


def _candidates(layer: Layer, device: Device, sizes: Sizes) -> Iterator[Traffic]:
    work = loops(layer)
    if device.array.dataflow == "fixed":
        activations = sizes.batch * (layer.inputs + layer.outputs)
        yield Traffic(layer.weights, activations)
    elif device.array.dataflow == "weight-stationary":
        splits = best_splits(work, device.array)
        for split in {(each.fed, each.added): each for each in splits}.values():
            yield _weight_stationary(layer, work, split, device, sizes)
    else:
        for split in best_splits(work, device.array):
            for tile in _tiles(work, sizes.batch):
                yield from _row_stationary(layer, work, split, tile, device, sizes)


def _weight_stationary(
    layer: Layer, work: Loops, split: LoopSplit, device: Device, sizes: Sizes
) -> Traffic:
    """Weights stay in the PEs while all outputs pass: one pass per fill of their weight buffers.

    Sums finish in the accumulators, so outputs cross the shared buffer once; a lane holds a weight
    for as many outputs as there are accumulators. A read of an input feeds the lanes that work on
    its group, a sum collects those of its vector, up to the memories' shares. Inputs come again
    from DRAM in every pass unless the shared buffer holds them.
    """
    memory = device.memory
    on_chip = memory.weight_words * device.array.rows * device.word_bits // sizes.weight_bits
    passes = _ceil(layer.weights, max(1, on_chip))
    inputs, outputs = sizes.batch * layer.inputs, sizes.batch * layer.outputs
    macs = sizes.batch * layer.macs
    held = inputs * sizes.activation_bits <= 8 * memory.buffer_bytes
    pixels = sizes.batch * work.output_rows * work.output_columns
    return Traffic(
        dram_weights=layer.weights,
        dram_activations=inputs * (1 if held else passes) + outputs,
        buffer=2 * inputs * passes + 2 * outputs,
        input=macs / min(memory.input_share, split.fed) + inputs * passes,
        weight=layer.weights + macs / min(memory.partial_sum_words, pixels),
        partial_sum=2 * macs / min(memory.partial_sum_share, split.added),
    )


def _row_stationary(
    layer: Layer, work: Loops, split: LoopSplit, tile: _Tile, device: Device, sizes: Sizes
) -> Iterator[Traffic]:
    """One tile's four choices: all its inputs, or one pass of them, stay in the buffer; sums alike.

    A PE keeps q channels of a filter row and p neurons (Eyeriss' names), as its scratchpads allow.
    Every pass over the neurons reads the inputs again, every pass over the channels reads and
    writes the partial sums; weights go around the shared buffer, once per tile.
    """
    memory, rows = device.memory, device.array.rows
    q = min(work.channels, max(1, memory.input_words // work.filter_columns))
    p = max(1, memory.weight_words // (q * work.filter_columns))
    p = min(work.neurons, p, memory.partial_sum_words)
    channel_passes = _ceil(work.channels, q * split.channels)
    channel_passes *= _ceil(work.filter_rows, min(split.filter_rows, rows))
    neuron_passes = _ceil(work.neurons, p * split.neurons)

    total, needed = _input_rows(layer, work, tile)
    overlap = max(1.0, tile.count * tile.images * needed / (total * sizes.batch))
    inputs, outputs = sizes.batch * layer.inputs * overlap, sizes.batch * layer.outputs
    tile_inputs = tile.images * layer.inputs / work.groups * needed / total
    tile_outputs = tile.images * layer.outputs / work.groups * tile.output_rows / work.output_rows

    for one_in, one_out in ((1, 1), (0, 1), (1, 0), (0, 0)):
        held_in = tile_inputs / (channel_passes if one_in else 1)
        held_out = tile_outputs / (neuron_passes if one_out else 1)
        fits = (held_in + held_out) * sizes.activation_bits <= 8 * memory.buffer_bytes
        smallest = one_in and one_out and tile.output_rows == tile.images == 1
        if not fits and not smallest:
            continue
        # Where neither all inputs nor all sums of a tile stay, every pass fetches inputs anew.
        fetched = inputs * (neuron_passes if one_in and one_out else 1)
        weights = layer.weights * tile.count
        yield Traffic(
            dram_weights=weights,
            dram_activations=fetched + outputs,
            buffer=fetched + inputs * neuron_passes + 2 * outputs * channel_passes,
            input=sizes.batch * layer.macs + inputs * neuron_passes * split.filter_rows,
            weight=sizes.batch * layer.macs + weights * split.output_rows,
            partial_sum=2 * sizes.batch * layer.macs,
        )


def _tiles(work: Loops, batch: int) -> Iterator[_Tile]:
    """Some rows of one image, one whole image, or several whole images."""
    rows = work.output_rows
    for height in sorted({_ceil(rows, pieces) for pieces in range(1, rows + 1)}):
        yield _Tile(height, 1, batch * _ceil(rows, height))
    for images in range(2, batch + 1):
        if batch % images == 0:
            yield _Tile(rows, images, batch // images)


def _input_rows(layer: Layer, work: Loops, tile: _Tile) -> tuple[float, float]:
    """Rows of the input, and those that one tile reads (overlap included).

    The input is taken to have the output's aspect: a layer does not say which axis is which.
    """
    if len(layer.output_size) == 1:  # the one row of a 1-D convolution
        return 1.0, 1.0
    larger = layer.inputs / (work.channels * work.groups * work.output_rows * work.output_columns)
    total = max(1.0, work.output_rows * larger ** (1 / max(1, len(layer.output_size))))
    stride = max(1, round(total / work.output_rows))
    needed = (tile.output_rows - 1) * stride + work.filter_rows
    return total, min(total, float(needed))


def _ceil(number: int, by: int) -> int:
    return -(-number // by)
