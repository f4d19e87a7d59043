"""How a layer is laid on an array: the best split against a search of all of them."""

import itertools
import math

import numpy as np
import pytest

from afpjax.hardware import active_lanes
from afpjax.hardware.lanes import Loops, best_splits, loops
from afpjax.hardware.platform import PEArray
from afpjax.network.layers import Layer


def most_row_stationary(work: Loops, rows: int, columns: int) -> int:
    """The docstring's rule, tried out for every number of lanes."""
    neurons, best = work.neurons * work.groups, 0
    for filters, channels, stacked in itertools.product(
        {1, work.filter_rows}, range(1, rows + 1), range(1, rows + 1)
    ):
        uneven = work.channels % channels or neurons % stacked
        if filters * channels * stacked > rows or uneven or min(channels, stacked) > 1:
            continue
        for beside, pixels in itertools.product(range(1, columns + 1), repeat=2):
            uneven = neurons % (stacked * beside) or work.output_rows % pixels
            if beside * pixels <= columns and not uneven and min(beside, pixels) == 1:
                best = max(best, filters * channels * stacked * beside * pixels)
    return best


def most_weight_stationary(work: Loops, rows: int, columns: int) -> int:
    neurons, best = work.neurons * work.groups, 0
    for c, k in itertools.product(range(1, rows + 1), repeat=2):
        for inner_c, inner_k in itertools.product(range(1, columns + 1), repeat=2):
            fits = c * k <= rows and inner_c * inner_k <= columns
            even = work.channels % (c * inner_c) == 0 and neurons % (k * inner_k) == 0
            if fits and even:
                best = max(best, c * inner_c * k * inner_k)
    return best


def random_loops(rng: np.random.Generator) -> Loops:
    groups, channels, neurons, filters, columns, rows, width = rng.integers(
        1, [4, 13, 25, 6, 6, 15, 15]
    )
    return Loops(*map(int, (groups, channels, neurons, filters, columns, rows, width)))


@pytest.mark.parametrize(
    ("dataflow", "oracle"),
    [("row-stationary", most_row_stationary), ("weight-stationary", most_weight_stationary)],
)
def test_no_split_has_more_lanes(dataflow, oracle):
    rng = np.random.default_rng(0)
    for _ in range(60):
        work, (rows, columns) = random_loops(rng), map(int, rng.integers(1, 9, 2))
        splits = best_splits(work, PEArray(dataflow, rows, columns))
        assert {split.lanes for split in splits} == {oracle(work, rows, columns)}
        for split in splits:
            assert work.channels % split.channels == 0
            assert work.groups * work.neurons % split.neurons == 0
            assert work.output_rows % split.output_rows == 0
            assert split.filter_rows in (1, work.filter_rows)


def test_a_fixed_array_keeps_all_its_lanes(layer_of):
    layer = layer_of(("odd", 7, 5, 3, 11, 5, 1))
    assert active_lanes(layer, PEArray("fixed", 6, 9)) == 54


def layer(kind, inputs, kernel, outputs, *, neurons, fan_in, **rest) -> Layer:
    macs = math.prod(outputs) * fan_in
    weights = math.prod(kernel)
    return Layer("any", kind, inputs, kernel, outputs, neurons, fan_in, macs, weights, 0, **rest)


LOOPS = {
    "grouped": (
        layer(
            "conv", (1, 31, 31, 96), (5, 5, 48, 256), (1, 27, 27, 256),
            neurons=256, fan_in=1200, window=(5, 5), output_size=(27, 27), groups=2,
        ),
        Loops(2, 48, 128, 5, 5, 27, 27),
    ),
    "1d, one row": (
        layer(
            "conv", (1, 20, 3), (5, 3, 8), (1, 16, 8),
            neurons=8, fan_in=15, window=(5,), output_size=(16,),
        ),
        Loops(1, 3, 8, 1, 5, 1, 16),
    ),
    "3d, rows of planes": (
        layer(
            "conv", (1, 8, 9, 10, 3), (2, 3, 4, 3, 8), (1, 7, 7, 7, 8),
            neurons=8, fan_in=72, window=(2, 3, 4), output_size=(7, 7, 7),
        ),
        Loops(1, 3, 8, 2, 12, 7, 49),
    ),
    # It was taken for one pixel, which left the columns of a row-stationary array idle.
    "dense at many positions": (
        layer("dense", (1, 14, 16), (16, 5), (1, 14, 5), neurons=5, fan_in=16),
        Loops(1, 16, 5, 1, 1, 14, 1),
    ),
    "dense, batch axes in its kernel": (
        layer("dense", (4, 10, 8), (4, 8, 6), (4, 10, 6), neurons=24, fan_in=8),
        Loops(4, 8, 6, 1, 1, 10, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_every_kind_of_layer(name):
    of_layer, expected = LOOPS[name]
    assert loops(of_layer) == expected


def test_a_filter_taller_than_the_array_is_run_row_by_row():
    work = Loops(1, 3, 8, 11, 11, 5, 5)
    assert best_splits(work, PEArray("row-stationary", 4, 5))[0].filter_rows == 1
