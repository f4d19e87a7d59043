"""Figures hold at the edges, and what they show lies where the numbers are."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from afpjax.report import figures

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def drawn(svg: bytes) -> ElementTree.Element:
    """The parsed figure; every number in it is finite and every text within its frame."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == 300
    for element in root.iter():
        marks = {k: v for k, v in element.attrib.items() if k not in ("id", LINK, "clip-path")}
        assert not re.search(r"\b(nan|inf)\b", " ".join(marks.values()), re.I)
    for text in root.iter(f"{SVG}text"):
        x, y = place(text)
        assert -1 <= x <= width + 1 and -1 <= y <= height + 1, text.text
    return root


def place(text: ElementTree.Element) -> tuple[float, float]:
    if moved := re.search(r"translate\((\S+)[ ,]+(\S+?)\)", text.attrib.get("transform", "")):
        return float(moved[1]), float(moved[2])
    return float(text.attrib["x"]), float(text.attrib["y"])


def texts(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in drawn(svg).iter(f"{SVG}text")]


def marks(root: ElementTree.Element, group: str) -> np.ndarray:
    """Where the marks of a group of that id stand, [N, 2]."""
    (found,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == group]
    uses = list(found.iter(f"{SVG}use"))
    return np.array([[float(use.attrib["x"]), float(use.attrib["y"])] for use in uses])


def is_linear(places: np.ndarray, values: np.ndarray) -> float:
    """The slope of places over values, which must lie on a line to a twentieth of a point."""
    slope, start = np.polyfit(values, places, 1)
    assert np.abs(slope * values + start - places).max() < 0.05
    return slope


def rows_of(result, scenario="both"):
    return [row for row in result["table"] if row["scenario"] == scenario]


def test_dots_of_the_front_lie_where_their_numbers_are(make):
    points = make(points=9)["front"]
    for index, point in enumerate(points):
        point["accuracy"] = 0.5 + 0.4 * (index * 7 % 9) / 9
    root = drawn(figures.front(points))
    accuracy = np.array([point["accuracy"] for point in points])
    for group, key in (("PathCollection_1", "latency_ms"), ("PathCollection_2", "energy_mj")):
        dots = marks(root, group)
        assert len(dots) == 9
        assert is_linear(dots[:, 0], np.array([point[key] for point in points])) > 0
        assert is_linear(dots[:, 1], accuracy) < 0  # up is better; SVG's y points down


def test_front_names_the_tools_that_it_marks(make):
    result = make()
    named = texts(figures.front(result["front"], result["selected"], rows_of(result)[:2]))
    assert {"CNNParted", "Fault-unaware", "AFarePart"} <= set(named)
    assert "CNNParted" not in texts(figures.front(result["front"], result["selected"]))


@pytest.mark.parametrize("change", [{"accuracy": 0.5}, {"latency_ms": 0, "energy_mj": 0}, {}])
@pytest.mark.parametrize("points", [1, 2, 40])
def test_front_at_the_edges(make, points, change):
    """One point; all accuracies equal; no latency and no energy at all."""
    result = make(points=points)
    front = [point | change for point in result["front"]]
    assert len(marks(drawn(figures.front(front, front[0])), "PathCollection_1")) == points


def test_curves_go_through_the_measured_accuracies(make):
    records = [r for r in make()["sweep"] if r["scenario"] == "both" and r["tool"] == "afarepart"]
    root = drawn(figures.sweep(records))
    groups = [g.attrib["id"] for g in root.iter(f"{SVG}g") if g.get("id", "").startswith("line2d")]
    curves = [marks(root, group) for group in groups]
    (curve,) = [points for points in curves if len(points) == len(records)]
    assert is_linear(curve[:, 1], np.array([r["accuracy"] for r in records])) < 0
    steps = np.diff(curve[:, 0])  # rates double, the axis is logarithmic
    assert steps[1:] == pytest.approx(steps[1], abs=0.1)


def test_sweep_does_not_depend_on_the_order_of_its_records(make):
    records = [record for record in make()["sweep"] if record["scenario"] == "weights"]
    assert figures.sweep(records[::-1], 0.9, 0.02) == figures.sweep(records, 0.9, 0.02)


@pytest.mark.parametrize(
    "rates", [[0.2], [0, 0.1], [0, 1e-6, 1e-3, 0.5], [0.1, 0.11, 0.12], list(np.linspace(0, 1, 20))]
)
def test_sweep_over_any_rates(rates):
    records = [{"tool": "afarepart", "rate": float(rate), "accuracy": 1 - rate} for rate in rates]
    named = texts(figures.sweep(records, clean=1, rate=0))
    if len(rates) <= 6:
        assert {f"{rate:g}" for rate in rates} <= set(named)


@pytest.mark.parametrize("devices", range(2, 9))
def test_every_device_has_a_series_of_its_own(make, devices):
    result = make(layers=4, devices=devices)
    for view in ("alone", "all_but"):
        svg = figures.sensitivity(result["sensitivity"], result["devices"], view, 0.9)
        assert set(result["devices"]) <= set(texts(svg))
        fills = {style for style in re.findall(r"fill: (#\w{6})", svg.decode())}
        assert len(fills - {"#ffffff", "#1b2128", "#5a6572", "#dde2e8", "#000000"}) == devices
    svg = figures.costs(result["costs"], result["devices"], "latency_ms", "latency (ms)")
    assert set(result["devices"]) <= set(texts(svg))


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("layers", [1, 30, 31, 200])
def test_sensitivity_of_shallow_and_deep_networks(make, layers, devices):
    result = make(layers, devices)
    svg = figures.sensitivity(result["sensitivity"], result["devices"], "alone", 0.9)
    named = {layer["name"] for layer in result["model"]["layers"]} & set(texts(svg))
    # One name is cut to fit; of 30 names each stands below its points; of more, none does.
    assert len(named) == (layers if layers <= 30 else 0)
    assert len(svg) < 250_000


def test_sensitivity_without_one_view_of_some_layers(make):
    result = make()
    for record in result["sensitivity"][:2]:
        del record["alone"], record["alone_interval"]
    drawn(figures.sensitivity(result["sensitivity"], result["devices"], "alone"))


def test_layers_that_differ_inside_their_names_are_told_apart(make):
    """`layer2.0.downsample.0` and `layer3.0.downsample.0` once had one and the same label."""
    result = make(layers=4, devices=2)
    for index, record in enumerate(result["sensitivity"]):
        record["layer"] = f"layer{index // 2}.0.downsample.0"
    svg = figures.sensitivity(result["sensitivity"], result["devices"], "alone")
    labels = [text for text in texts(svg) if text.endswith("ample.0")]
    assert len(labels) == len(set(labels)) == 4


@pytest.mark.parametrize("key", ["latency_ms", "energy_mj"])
@pytest.mark.parametrize(("layers", "devices"), [(1, 2), (24, 3), (200, 8)])
def test_costs_show_the_costliest_layers(make, layers, devices, key):
    result = make(layers, devices)
    shown = figures.costliest(result["costs"], result["devices"], key)
    costs = {name: 0.0 for name in shown} | {r["layer"]: r[key] for r in result["costs"]}
    rest = set(costs) - set(shown)
    assert len(shown) == min(layers, max(72 // devices, 8))
    assert all(costs[name] >= costs[other] for name in shown for other in rest)
    labels = texts(figures.costs(result["costs"], result["devices"], key, "cost"))
    assert set(shown) <= set(labels)


def test_costs_of_nothing(make):
    records = [record | {"latency_ms": 0} for record in make()["costs"]]
    drawn(figures.costs(records, make()["devices"], "latency_ms", "latency (ms)"))


@pytest.mark.parametrize("volumes", [[0.5, 0.7], [0, 0], [0.0, 1, 2.5], [1.0] * 300])
def test_history(volumes):
    drawn(figures.history(volumes))


def test_names_are_text_and_nothing_else(make):
    """Dollars would start formulas, and angle brackets elements."""
    result = make(layers=4, devices=2)
    names = ('<b>&"x', "$x^2$", "a_b", "conv\\n")
    for record in result["sensitivity"]:
        record["layer"] = names[int(record["layer"].split(".")[1])]
    svg = figures.sensitivity(result["sensitivity"], result["devices"], "alone")
    assert set(names) <= set(texts(svg))


def test_drawing_leaves_matplotlib_as_it_was(make):
    def settings():
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    before = settings()
    figures.front(make()["front"])
    assert settings() == before
