"""How a layer is laid on an array: which loops run in parallel, and so how many lanes work.

Every loop that runs in parallel is cut into a divisor of its length (a perfect factor), so that no
lane ever idles within a mapping; lanes beyond the product of the factors idle always.

Row stationary (Eyeriss; Chen et al., JSSC 2017): an array row takes one filter row each, times a
divisor of the channels or of the neurons, or such a divisor alone; an array column takes one output
row each (a divisor of their number), or a divisor of the neurons.
Weight stationary (Simba; Shao et al., MICRO 2019): PEs, and the vectors within a PE, are shared out
among channels and neurons; the lanes of a vector add their products into one sum, so they take
channels of one neuron (`vector` lanes; 1 where any lane may take any).

Fewer channels in a group than a vector has lanes leave the rest of them idle: a depthwise layer
works on one lane of each vector, however it is laid. What is read once feeds the neurons of its own
group alone, and a sum collects the channels that there are: one each, for a depthwise layer. Groups
are those of a convolution, 1-D to 3-D, transposed or not, and the batch axes of a dense kernel. An
array of row stationary PEs shares no reads between lanes, and `fixed` lanes all work on any layer.

No published figure decides whether lanes of a vector may work on neurons of their own: the layers
below have three channels or more in their one group, and the same lanes either way. That they may
not is the choice here, since Simba describes its vectors as dot products along the channels; with
`vector = 1` a device file says otherwise.

These rules give, lane for lane, all 45 AlexNet, SqueezeNet 1.1 and VGG-11 layers of CNNParted's
tables on its Eyeriss-like device, and 44 of the 45 on its Simba-like one: AlexNet's `features.6`
has 192 lanes there and 256 here (tests/hardware/test_published.py).
"""

import math
from functools import lru_cache
from typing import NamedTuple

from afpjax.hardware.platform import PEArray
from afpjax.network.layers import Layer


class Loops(NamedTuple):
    """Loop lengths of one group of a layer; a dense layer is a 1x1 convolution."""

    groups: int
    channels: int  # that one neuron reads
    neurons: int  # of one group
    filter_rows: int
    filter_columns: int
    output_rows: int
    output_columns: int


class LoopSplit(NamedTuple):
    """How many of each loop run in parallel."""

    filter_rows: int = 1
    channels: int = 1
    neurons: int = 1
    output_rows: int = 1
    fed: int = 1  # lanes of a PE with neurons of one group, which a read of an input feeds
    added: int = 1  # lanes that add to one sum, which an access to it collects

    @property
    def lanes(self) -> int:
        return self.filter_rows * self.channels * self.neurons * self.output_rows


def loops(layer: Layer) -> Loops:
    """The layer's loops; 1-D windows are columns, and of 3-D ones all but the first axis are.

    A dense layer's rows are the positions that it is applied at (tokens, pixels; mostly one), and
    its groups are the batch axes of its kernel.
    """
    window = layer.window if len(layer.window) > 1 else (1, *layer.window)
    size = layer.output_size if len(layer.output_size) > 1 else (1, *layer.output_size)
    groups = layer.groups
    if layer.kind == "dense":
        size = (layer.outputs // layer.neurons,)
        groups = layer.inputs // (layer.fan_in * size[0])
    return Loops(
        groups=groups,
        channels=layer.input_channels,
        neurons=layer.neurons // groups,
        filter_rows=window[0],
        filter_columns=math.prod(window[1:]),
        output_rows=size[0],
        output_columns=math.prod(size[1:]),
    )


def best_splits(work: Loops, array: PEArray) -> tuple[LoopSplit, ...]:
    """The splits that keep the most lanes at work, all of them: energy decides among equals.

    Groups count as neurons here: they are independent outputs. () for the dataflow `fixed`.
    """
    if array.dataflow == "fixed":
        return ()
    if array.dataflow == "row-stationary":
        found = _row_stationary(work, array.rows, array.columns)
    else:
        found = _weight_stationary(work, array.rows, array.columns, array.vector)
    most = max(split.lanes for split in found)
    return tuple(split for split in found if split.lanes == most)


def active_lanes(layer: Layer, array: PEArray) -> int:
    """Multiply-accumulates that the layer does per cycle on the array."""
    splits = best_splits(loops(layer), array)
    return splits[0].lanes if splits else array.rows * array.columns


@lru_cache(maxsize=4096)
def _row_stationary(work: Loops, rows: int, columns: int) -> tuple[LoopSplit, ...]:
    neurons = work.neurons * work.groups
    along_rows = set()
    for filter_rows in {1, work.filter_rows}:
        room = rows // filter_rows  # 0, and no divisors, for a filter taller than the array
        along_rows |= {(filter_rows, c, 1) for c in _divisors(work.channels, room)}
        along_rows |= {(filter_rows, 1, k) for k in _divisors(neurons, room)}
    along_columns = {(1, p) for p in _divisors(work.output_rows, columns)}
    along_columns |= {(k, 1) for k in _divisors(neurons, columns)}
    found = {
        LoopSplit(r, c, k * more, p)
        for r, c, k in along_rows
        for more, p in along_columns
        if neurons % (k * more) == 0
    }
    return tuple(sorted(found))


@lru_cache(maxsize=4096)
def _weight_stationary(work: Loops, rows: int, columns: int, vector: int) -> tuple[LoopSplit, ...]:
    neurons = work.neurons * work.groups

    def shares(room: int) -> list[tuple[int, int]]:
        return [
            (c, k) for c in _divisors(work.channels, room) for k in _divisors(neurons, room // c)
        ]

    within = {
        (lanes * c, k, lanes if vector > 1 else c)
        for lanes in _divisors(work.channels, vector)
        for c, k in shares(columns // vector)
    }
    found = {
        LoopSplit(1, c * inner_c, k * inner_k, 1, math.gcd(inner_k, work.neurons), added)
        for c, k in shares(rows)
        for inner_c, inner_k, added in within
        if work.channels % (c * inner_c) == 0 and neurons % (k * inner_k) == 0
    }
    return tuple(sorted(found))


@lru_cache(maxsize=65536)
def _divisors(number: int, most: int) -> tuple[int, ...]:
    """Divisors of `number` up to `most`."""
    return tuple(d for d in range(1, min(number, most) + 1) if number % d == 0)
