"""What the figures of job `distribute` show lies where the numbers are."""

import numpy as np
import pytest

from afpjax.jobs.distribute.charts import (
    AccuracyRow,
    Series,
    copies,
    lanes,
    over_memory,
    rows,
    runs,
)
from afpjax.jobs.distribute.result import LayerPlacement, ThresholdsResult
from afpjax.report import style

from ..svg import boxes, is_linear, markers, texts
from .kept import about

BLUE, RED = style.METHODS[0], style.METHODS[5]


def row(name: str, accuracy: float, colour: str = BLUE, **more: object) -> AccuracyRow:
    return AccuracyRow(name, colour, about(accuracy), **more)  # pyright: ignore


def layer(name: str, held: list[int]) -> LayerPlacement:
    return LayerPlacement(name, len(held), 0.1, 1, 1.0, held)


def test_dots_lie_where_their_accuracies_are_below_their_headings():
    values = np.array([0.7, 0.82, 0.76, 0.9])
    groups = {
        "1 of 4 lost": [row("A", values[0], aside="59 %"), row("B", values[1])],
        "2 of 4 lost": [row("A", values[2]), row("B", values[3], hollow=0.5)],
    }
    svg = rows(groups, 0.95, "memory")
    places = np.array(sorted(markers(svg, BLUE), key=lambda mark: mark[1]))
    assert is_linear(places[:, 0], values) > 0
    gaps = np.diff(places[:, 1])
    assert gaps[0] == pytest.approx(gaps[2], abs=0.05)
    assert gaps[1] > 2 * gaps[0]  # a heading and a gap between
    said = texts(svg)
    assert [text for text in said if "lost" in text or text in "AB"] == [
        "1 of 4 lost", "A", "B", "2 of 4 lost", "A", "B"
    ]  # fmt: skip
    assert {"59 %", "memory"} <= set(said)
    assert len(markers(svg, style.PAPER)) == 1  # the other accuracy


def test_quantiles_mark_the_median_and_the_mean():
    quantiles = (0.1, 0.3, 0.5, 0.6, 0.9)
    both = [row("A", 0.4, quantiles=quantiles), row("B", 0.5, RED, quantiles=quantiles)]
    svg = rows({"": both}, 0.9)
    (median,), (other,) = markers(svg, BLUE), markers(svg, RED)
    assert median[0] == other[0]
    first, second = markers(svg, style.PAPER)  # means of A and B
    assert second[0] == pytest.approx(median[0])
    assert first[0] < second[0]


def points(*memories: float) -> list[ThresholdsResult]:
    return [
        ThresholdsResult(
            thresholds=[0.1], memory=memory, accuracy=about(0.3 + memory / 2),
            search_accuracy=0.5, energy_j=1.0, fps=1.0,
        )
        for memory in memories
    ]  # fmt: skip


def test_curves_go_through_their_accuracies_whatever_the_order():
    """A line without a name has no mark in the legend."""
    own = points(0.3, 0.45, 0.6, 1.0)
    line, dot = Series("_", BLUE, "o", "-", own), Series("_", RED, "D", "", points(0.25))
    svg = over_memory([line, dot], 0.9)
    assert over_memory([line._replace(points=own[::-1]), dot], 0.9) == svg
    places = np.array(markers(svg, BLUE))
    assert len(places) == 4 and len(markers(svg, RED)) == 1
    assert is_linear(places[:, 0], np.array([point.memory for point in own])) > 0
    assert is_linear(places[:, 1], np.array([point.accuracy.value for point in own])) < 0


def test_a_front_of_one_point_is_a_figure_too():
    assert "searched" in texts(over_memory([Series("searched", RED, "*", "-", points(0.5))], 0.9))


def test_runs_put_neurons_of_few_copies_first_and_keep_their_number():
    found = runs([0b111, 0b010, 0b011, 0b001, 0b010, 0b111, 0b100, 0b110])
    assert [run.mask for run in found] == [0b001, 0b010, 0b100, 0b011, 0b110, 0b111]
    assert [round(8 * (run.end - run.start)) for run in found] == [1, 2, 1, 1, 1, 2]
    assert (found[0].start, found[-1].end) == (0, 1)


@pytest.mark.parametrize("devices", [2, 8])
def test_every_device_has_a_lane_as_full_as_its_share_of_the_neurons(devices):
    """Thick where it has the only copy, thin where it has one of several."""
    rng = np.random.default_rng(devices)
    held = rng.integers(1, 2**devices, 64).tolist()
    svg = lanes([layer("conv", held)], devices)
    assert {"conv", "64"} <= set(texts(svg))
    widths, tops = [], []
    for device in range(devices):
        found = boxes(svg, style.DEVICES[device])
        heights = [low - top for _, top, _, low in found]
        widths.append(sum(right - left for left, _, right, _ in found))
        tops.append(np.mean([(top + low) / 2 for _, top, _, low in found]))
        alone = [
            right - left
            for (left, _, right, _), height in zip(found, heights, strict=True)
            if height > 0.7 * max(heights)
        ]
        share = sum(mask == 1 << device for mask in held) / sum(m >> device & 1 for m in held)
        if share:
            assert sum(alone) / widths[-1] == pytest.approx(share, abs=0.01)
    counts = np.array([sum(mask >> device & 1 for mask in held) for device in range(devices)])
    assert np.array(widths) / sum(widths) == pytest.approx(counts / counts.sum(), abs=0.005)
    assert tops == sorted(tops)


@pytest.mark.parametrize(("devices", "layers"), [(8, 53), (4, 150)])
def test_bars_of_copies_fill_each_layer(devices, layers):
    rng = np.random.default_rng(0)
    placed = [
        layer(f"block{n}.conv", [2**devices - 1, *rng.integers(1, 2**devices, 63).tolist()])
        for n in range(layers)
    ]
    svg = copies(placed, devices)
    said = texts(svg)
    assert {"1 copy", f"{devices} copies"} <= set(said)
    assert sum(text.endswith(".conv") for text in said) == (layers if layers <= 64 else 0)
    wide = {
        colour: [right - left for left, _, right, _ in boxes(svg, colour)][-layers:]
        for colour in style.HEAT
        if len(boxes(svg, colour)) > layers
    }
    assert len(wide) == len({mask.bit_count() for one in placed for mask in one.held})
    total = np.sum(list(wide.values()), axis=0)
    assert total == pytest.approx(total[0], abs=0.05)


def test_the_fewer_copies_the_more_a_colour_stands_out():
    svg = copies([layer("a", [2**n - 1 for n in range(1, 9)])], 8)
    order = sorted(style.HEAT, key=lambda colour: boxes(svg, colour)[-1][0])
    contrasts = [style.contrast(colour, style.PAPER) for colour in order]
    assert contrasts == sorted(contrasts, reverse=True)
    assert len(set(contrasts)) == 8
