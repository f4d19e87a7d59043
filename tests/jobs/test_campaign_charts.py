"""Heat maps, rankings, curves and endings lie where the numbers are, up to deep networks."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from afpjax.jobs.campaign.cells import COLOURS
from afpjax.jobs.campaign.charts import Line, curves, ends, heat, ranking, step
from afpjax.report.style import HEAT, contrast

from ..svg import SVG, drawn, texts
from .campaigns import cell


def boxes(svg: bytes, colour: str) -> list[tuple[float, float]]:
    """Corners of the rectangles of a heat map's colour (a scale's own are not counted)."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if f"fill: {colour}" in path.get("style", ""):
            corners = re.findall(r"M (\S+) (\S+)", path.get("d", ""))
            found.append([(float(x), float(y)) for x, y in corners])
    return max(found, key=lambda each: each[0][1])  # the map lies below the scale


@pytest.mark.parametrize(
    ("value", "index"),
    [(0, 0), (1e-9, 1), (0.001, 1), (0.0011, 2), (0.03, 4), (0.1, 5), (0.31, 7), (1.0, 7)],
)
def test_steps(value, index):
    assert step(value) == index


def test_every_cell_has_the_colour_of_its_step():
    values = [[0.0, 0.5, None], [0.02, 0.0, 0.5]]
    svg = heat(values, ["a", "b"], ["0", "1", "2"], "bit")
    none, most = boxes(svg, HEAT[0]), boxes(svg, HEAT[7])
    assert len(none) == len(most) == 2
    assert len(boxes(svg, HEAT[4])) == 1
    (left, top), (middle, bottom) = sorted(none)
    assert left < middle
    assert top < bottom  # "a" stands above "b"
    assert sorted(most)[0] == pytest.approx((middle, top), abs=0.02)
    assert sorted(most)[1][0] > middle


def test_a_column_s_name_is_kept_whole():
    """Rates of 0.001, 0.01 and 0.1 once lost the `0.` that they share."""
    said = texts(heat([[0, 0, 0]], ["a"], ["0.001", "0.01", "0.1"], "rate"))
    assert {"0.001", "0.01", "0.1"} <= set(said)


@pytest.mark.parametrize(("layers", "bits"), [(1, 2), (21, 16), (54, 32), (160, 32)])
def test_maps_of_any_network_fit(layers, bits):
    values = np.linspace(0, 1, layers * bits).reshape(layers, bits).tolist()
    names = [f"stage{index}.block.with.a.long.name.conv{index}" for index in range(layers)]
    said = texts(heat(values, names, [str(bit) for bit in range(bits)], "bit"))
    assert sum("…" in text for text in said) == (layers if 1 < layers <= 64 else layers == 1)


def test_colours_stand_out_more_from_step_to_step():
    steps = [contrast(colour, "#ffffff") for colour in HEAT]
    assert steps == sorted(steps)
    assert len(set(HEAT)) == 8


def test_ranking_in_the_order_given():
    cells = [cell("b", "all", 0.5), cell("a", "all", 0.25)]
    svg = ranking(cells, ["b", "a"], COLOURS["weights"], "label")
    assert [text for text in texts(svg) if text in "ab"] == ["b", "a"]
    dots = [
        (float(use.attrib["x"]), float(use.attrib["y"]))
        for use in drawn(svg).iter(f"{SVG}use")
        if COLOURS["weights"] in use.get("style", "")
    ]
    (first, top), (second, below) = dots
    assert first > second
    assert top < below


def test_curves_name_their_lines_where_there_are_several():
    cells = [cell("all", bit, 0.1 * bit) for bit in range(3)]
    line = Line("one", (0, 1, 2), cells, COLOURS["weights"], "o")
    assert "one" not in texts(curves([line], "sdc_rate", "bit", "%", rates=False))
    two = [line, line._replace(name="two", colour=COLOURS["link"])]
    assert {"one", "two"} <= set(texts(curves(two, "sdc_rate", "bit", "%", rates=False)))


def test_endings_sum_to_one():
    found = cell("a", "all", 0.2).endings
    shares = (found.masked, found.tolerable, found.shaken, found.sdc1, found.non_finite)
    assert sum(shares) == pytest.approx(1)
    assert found.shaken == pytest.approx(0.2)  # a quarter of the 0.8 that keep their class
    assert replace(found, masked=0.9).shaken == 0  # they may sum to a little more than one


def test_endings_that_never_are_have_no_name():
    said = texts(ends([cell("a", "all", 0.2).endings], ["a"]))
    assert "masked" in said
    assert "not finite" not in said
    assert "not finite" in texts(ends([cell("a", "all", 0.2, odd=0.1).endings], ["a"]))
