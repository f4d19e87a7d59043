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


def test_loops_of_a_grouped_convolution(layer_of):
    got = loops(layer_of(("grouped", 96, 31, 5, 256, 27, 2)))
    assert got == Loops(2, 48, 128, 5, 5, 27, 27)


def test_loops_of_a_1d_convolution_are_one_row():
    got = layer(
        "conv", (1, 20, 3), (5, 3, 8), (1, 16, 8),
        neurons=8, fan_in=15, window=(5,), output_size=(16,),
    )  # fmt: skip
    assert loops(got) == Loops(1, 3, 8, 1, 5, 1, 16)


def test_loops_of_a_3d_convolution_are_rows_of_planes():
    got = layer(
        "conv", (1, 8, 9, 10, 3), (2, 3, 4, 3, 8), (1, 7, 7, 7, 8),
        neurons=8, fan_in=72, window=(2, 3, 4), output_size=(7, 7, 7),
    )  # fmt: skip
    assert loops(got) == Loops(1, 3, 8, 2, 12, 7, 49)


def test_a_dense_layer_at_many_positions_is_a_1x1_convolution_of_as_many_pixels(layer_of):
    """It was taken for one pixel, which left the output columns of a row-stationary array idle."""
    tokens = layer("dense", (1, 14, 16), (16, 5), (1, 14, 5), neurons=5, fan_in=16)
    assert loops(tokens) == Loops(1, 16, 5, 1, 1, 14, 1)
    assert active_lanes(tokens, PEArray("row-stationary", 1, 14)) == 14


def test_a_dense_layer_with_batch_axes_in_its_kernel_has_groups():
    heads = layer("dense", (4, 10, 8), (4, 8, 6), (4, 10, 6), neurons=24, fan_in=8)
    assert loops(heads) == Loops(4, 8, 6, 1, 1, 10, 1)


def test_a_filter_taller_than_the_array_is_run_row_by_row():
    work = Loops(1, 3, 8, 11, 11, 5, 5)
    assert best_splits(work, PEArray("row-stationary", 4, 5))[0].filter_rows == 1
