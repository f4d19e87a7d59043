"""What the figures of job `distribute` show lies where the numbers are."""

import re

import numpy as np
import pytest

from afpjax.jobs.distribute.view_curve import curve
from afpjax.jobs.distribute.view_layers import copies, lanes, runs
from afpjax.jobs.distribute.view_rows import Row, bars, dots, spreads
from afpjax.jobs.distribute.view_search import fronts
from afpjax.jobs.distribute.view_words import METHOD_NAMES, method_look
from afpjax.report import style

from ..svg import SVG, drawn, is_linear, texts
from .distributions import distribution, near
from .test_style import DARK, LIGHT

BLUE, RED = style.METHODS["robustdice"], style.METHODS["lop"]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def boxes(svg: bytes, colour: str) -> list[Box]:
    """The rectangles of a colour, from the top left on."""
    found = []
    for path in drawn(svg).iter(f"{SVG}path"):
        if f"fill: {colour}" in path.get("style", ""):
            for outline in re.split(r"[zZ]", path.get("d", "")):
                points = re.findall(r"[ML] (\S+) (\S+)", outline)
                x, y = (
                    ([float(each) for each in ends] for ends in zip(*points, strict=True))
                    if (points)
                    else ([], [])
                )
                if len(points) >= 4:
                    found.append((min(x), min(y), max(x), max(y)))
    return sorted(found, key=lambda box: (round(box[1], 1), box[0]))


def marks(svg: bytes, colour: str) -> list[tuple[float, float]]:
    """Where the markers of a colour stand, from the left; bands are pale."""
    return sorted(
        (float(use.attrib["x"]), float(use.attrib["y"]))
        for use in drawn(svg).iter(f"{SVG}use")
        if f"fill: {colour}" in use.get("style", "") and "opacity" not in use.get("style", "")
    )


def row(name: str, accuracy: float, colour: str = BLUE, **more: object) -> Row:
    record = {"accuracy": accuracy, "accuracy_interval": near(accuracy)}
    return Row(name, record, colour, **more)  # pyright: ignore


def test_bars_are_as_long_as_accuracies_below_their_headings():
    values = [0.8, 0.4, 0.2]
    groups = {
        "1 of 4 lost": [row("A", values[0]), row("B", values[1])],
        "2 of 4 lost": [row("A", values[2])],
    }
    svg = bars(groups, 0.9)
    found = boxes(svg, BLUE)
    assert len(found) == 3
    lengths = np.array([right - left for left, _, right, _ in found])
    assert lengths / lengths[0] == pytest.approx(np.array(values) / 0.8, abs=0.002)
    said = texts(svg)
    assert [text for text in said if "lost" in text or text in "AB"] == [
        "1 of 4 lost", "A", "B", "2 of 4 lost", "A"
    ]  # fmt: skip
    gaps = np.diff([top for _, top, _, _ in found])
    assert gaps[1] > 2 * gaps[0]  # a heading and a gap between


def test_what_bars_cost_stands_at_the_right_of_each():
    groups = {"lost": [row("A", 0.5, aside="59 %"), row("B", 0.5, aside="25 %")]}
    said = texts(bars(groups, aside="memory"))
    assert {"59 %", "25 %", "memory"} <= set(said)
    assert "memory" not in texts(bars(groups))


@pytest.mark.parametrize("draw", [bars, dots])
def test_the_other_accuracy_is_a_mark_of_its_own(draw):
    with_it = {"": [row("A", 0.5, hollow=0.25), row("B", 0.5)]}
    without = {"": [row("A", 0.5), row("B", 0.5)]}
    hollow = [len(marks(draw(groups), style.PAPER)) for groups in (with_it, without)]
    assert hollow == [1, 0]


def test_dots_lie_where_their_accuracies_are():
    values = np.array([0.7, 0.82, 0.76, 0.9])
    svg = dots({"": [row(str(n), value) for n, value in enumerate(values)]}, 0.95)
    places = np.array(sorted(marks(svg, BLUE), key=lambda mark: mark[1]))
    assert is_linear(places[:, 0], values) > 0
    assert np.diff(places[:, 1]) == pytest.approx(places[1, 1] - places[0, 1], abs=0.05)


def test_spreads_mark_the_median_and_the_mean():
    quantiles = {"5%": 0.1, "25%": 0.3, "50%": 0.5, "75%": 0.6, "95%": 0.9}
    record = {"accuracy": 0.4, "quantiles": quantiles}
    svg = spreads({"": [Row("A", record, BLUE), Row("B", record | {"accuracy": 0.5}, RED)]})
    (median,), (other,) = marks(svg, BLUE), marks(svg, RED)
    assert median[0] == other[0]
    first, second = marks(svg, style.PAPER)  # means of A and B
    assert second[0] == pytest.approx(median[0])
    assert first[0] < second[0]


def test_curves_go_through_their_accuracies_whatever_the_order_of_records():
    records = [r for r in distribution((4,))["curve"] if r["failed"] == 1]
    svg = curve(records, clean=0.915)
    assert curve(records[::-1], clean=0.915) == svg
    own = sorted(
        (r for r in records if r["method"] == "robustdice"), key=lambda record: record["memory"]
    )
    # The legend's own marker stands above the axes.
    places = np.array([mark for mark in marks(svg, BLUE) if mark[1] > legend_end(svg)])
    assert len(places) == len(own)
    assert is_linear(places[:, 0], np.array([record["memory"] for record in own])) > 0
    assert is_linear(places[:, 1], np.array([record["accuracy"] for record in own])) < 0


def legend_end(svg: bytes) -> float:
    """The lowest line of the legend, which names the methods."""
    names = {*METHOD_NAMES.values(), "Searched thresholds"}
    return max(
        float(text.get("y", "0"))
        for text in drawn(svg).iter(f"{SVG}text")
        if "".join(text.itertext()) in names
    )


def test_methods_without_thresholds_are_points_and_searched_ones_too():
    result = distribution((4,))
    records = [r for r in result["curve"] if r["failed"] == 1]
    front = result["search"]["front"]
    svg = curve(records, front)
    end = legend_end(svg)
    assert len([mark for mark in marks(svg, RED) if mark[1] > end]) == 1
    assert len([mark for mark in marks(svg, style.INK) if mark[1] > end]) == len(front)
    assert "Searched thresholds" not in texts(curve(records))


def test_a_front_of_one_point_is_a_figure_too():
    point = {"memory": 0.5, "accuracy": 0.8, "accuracy_interval": [0.7, 0.9]}
    assert "searched" in texts(fronts({"front": [point]}))


def test_runs_put_neurons_of_few_copies_first_and_keep_their_number():
    held = [0b111, 0b010, 0b011, 0b001, 0b010, 0b111, 0b100, 0b110]
    found = runs(held)
    assert [run.mask for run in found] == [0b001, 0b010, 0b100, 0b011, 0b110, 0b111]
    assert [run.copies for run in found] == [1, 1, 1, 2, 2, 3]
    sizes = [round(8 * (run.end - run.start)) for run in found]
    assert sizes == [1, 2, 1, 1, 1, 2]
    assert found[0].start == 0
    assert found[-1].end == 1


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_every_device_has_a_lane_as_full_as_its_share_of_the_neurons(devices):
    """Thick where it has the only copy, thin where it has one of several."""
    rng = np.random.default_rng(devices)
    held = rng.integers(1, 2**devices, 64).tolist()
    layer = {"layer": "conv", "neurons": 64, "held": held}
    svg = lanes([layer], devices)
    widths, tops = [], []
    for device in range(devices):
        found = boxes(svg, style.DEVICES[device])
        heights = [low - top for _, top, _, low in found]
        widths.append(sum(right - left for left, _, right, _ in found))
        tops.append(np.mean([(top + low) / 2 for _, top, _, low in found]))
        alone = [right - left for (left, _, right, _), h in zip(found, heights, strict=True)
                 if h > 0.7 * max(heights)]  # fmt: skip
        share = sum(mask == 1 << device for mask in held) / sum(m >> device & 1 for m in held)
        if share:
            assert sum(alone) / widths[-1] == pytest.approx(share, abs=0.01)
    counts = [sum(mask >> device & 1 for mask in held) for device in range(devices)]
    assert np.array(widths) / sum(widths) == pytest.approx(
        np.array(counts) / sum(counts), abs=0.005
    )
    assert tops == sorted(tops)


def test_layers_have_their_names_and_sizes_beside_the_lanes():
    result = distribution((4,), layers=12, neurons=4096)
    said = texts(lanes(result["placement"], 4))
    assert {f"block{index}.conv" for index in range(12)} <= set(said)
    assert said.count("4,096") == 12


@pytest.mark.parametrize(("devices", "layers"), [(2, 13), (8, 53), (4, 150)])
def test_bars_of_copies_fill_each_layer(devices, layers):
    placed = distribution((devices,), layers=layers)["placement"]
    svg = copies(placed, devices)
    said = texts(svg)
    assert "1 copy" in said
    assert f"{devices} copies" in said
    assert sum(text.endswith(".conv") for text in said) == (layers if layers <= 64 else 0)
    wide = {
        colour: [right - left for left, _, right, _ in boxes(svg, colour)][-layers:]
        for colour in style.HEAT
        if len(boxes(svg, colour)) > layers
    }
    assert len(wide) == len({mask.bit_count() for layer in placed for mask in layer["held"]})
    total = np.sum(list(wide.values()), axis=0)
    assert total == pytest.approx(total[0], abs=0.05)


def test_the_fewer_copies_the_more_a_colour_stands_out():
    placed = [{"layer": "a", "neurons": 8, "held": [2**n - 1 for n in range(1, 9)]}]
    svg = copies(placed, 8)
    order = sorted(style.HEAT, key=lambda colour: boxes(svg, colour)[-1][0])
    contrasts = [style.contrast(colour, style.PAPER) for colour in order]
    assert contrasts == sorted(contrasts, reverse=True)
    assert len(set(contrasts)) == 8


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_methods_stand_out_from_the_page(colours):
    """3 is what WCAG 2.1 asks of graphics."""
    names = {value: name for name, value in style.COLOURS.items()}
    for colour in style.METHODS.values():
        assert style.contrast(colours[names[colour]], colours["paper"]) >= 3


def test_methods_of_a_curve_differ_by_more_than_colour():
    drawn_on_curves = ("robustdice", "topk", "random", "randomk", "lop", "replication")
    looks = [method_look(method) for method in drawn_on_curves]
    assert len({marker for _, marker, _ in looks}) == len(looks)
    assert len({line for _, _, line in looks[:3]}) == 3
    assert set(style.METHODS) == set(METHOD_NAMES)
