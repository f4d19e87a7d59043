"""Heat maps, rankings, curves and endings lie where the numbers are, up to deep networks."""

from dataclasses import replace

import numpy as np
import pytest

from afpjax.jobs.campaign.cells import COLOURS
from afpjax.jobs.campaign.charts import Line, curves, ends, heat, ranking, step
from afpjax.report.style import HEAT

from ..svg import boxes, markers, texts
from .campaigns import cell


@pytest.mark.parametrize(
    ("value", "index"),
    [(0, 0), (1e-9, 1), (0.001, 1), (0.0011, 2), (0.03, 4), (0.1, 5), (0.31, 7), (1.0, 7)],
)
def test_steps(value, index):
    assert step(value) == index


def test_every_cell_has_the_colour_of_its_step():
    values = [[0.0, 0.5, None], [0.02, 0.0, 0.5]]
    svg = heat(values, ["a", "b"], ["0", "1", "2"], "bit")
    none, some, most = (boxes(svg, HEAT[n])[1:] for n in (0, 4, 7))  # the first is the scale's
    assert (len(none), len(some), len(most)) == (2, 1, 2)
    (left, top, *_), (middle, bottom, *_) = none
    assert left < middle
    assert top < bottom  # "a" stands above "b"
    assert most[0][:2] == pytest.approx((middle, top), abs=0.02)
    assert most[1][0] > middle


def test_a_column_s_name_is_kept_whole():
    """Rates of 0.001, 0.01 and 0.1 once lost the `0.` that they share."""
    said = texts(heat([[0, 0, 0]], ["a"], ["0.001", "0.01", "0.1"], "rate"))
    assert {"0.001", "0.01", "0.1"} <= set(said)


@pytest.mark.parametrize(("layers", "bits"), [(1, 2), (54, 32), (160, 32)])
def test_maps_of_any_network_fit(layers, bits):
    values = np.linspace(0, 1, layers * bits).reshape(layers, bits).tolist()
    names = [f"stage{index}.block.with.a.long.name.conv{index}" for index in range(layers)]
    said = texts(heat(values, names, [str(bit) for bit in range(bits)], "bit"))
    assert sum("…" in text for text in said) == (layers if 1 < layers <= 64 else layers == 1)


def test_ranking_in_the_order_given():
    cells = [cell("b", "all", 0.5), cell("a", "all", 0.25)]
    svg = ranking(cells, ["b", "a"], COLOURS["weights"], "label")
    assert [text for text in texts(svg) if text in "ab"] == ["b", "a"]
    (lower, below), (higher, top) = markers(svg, COLOURS["weights"])  # from the left
    assert lower < higher
    assert top < below


def test_curves_name_their_lines_where_there_are_several():
    cells = [cell("all", bit, 0.1 * bit) for bit in range(3)]
    line = Line("one", (0, 1, 2), cells, COLOURS["weights"], "o")
    assert "one" not in texts(curves([line], "sdc_rate", "bit", "%", rates=False))
    two = [line, line._replace(name="two", colour=COLOURS["link"])]
    assert {"one", "two"} <= set(texts(curves(two, "sdc_rate", "bit", "%", rates=False)))


def test_endings_sum_to_one_and_those_that_never_are_have_no_name():
    found = cell("a", "all", 0.2).endings
    shares = (found.masked, found.tolerable, found.shaken, found.sdc1, found.non_finite)
    assert sum(shares) == pytest.approx(1)
    assert found.shaken == pytest.approx(0.2)  # a quarter of the 0.8 that keep their class
    assert replace(found, masked=0.9).shaken == 0  # they may sum to a little more than one
    said = texts(ends([found], ["a"]))
    assert "masked" in said and "not finite" not in said
    assert "not finite" in texts(ends([cell("a", "all", 0.2, odd=0.1).endings], ["a"]))
