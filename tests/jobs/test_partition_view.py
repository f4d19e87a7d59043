"""What job `partition` says of its result; the result is a golden run's, changed where needed."""

import re
from dataclasses import replace

import numpy as np
import pytest

from afpjax.jobs.partition import charts
from afpjax.jobs.partition import view as drawing
from afpjax.jobs.partition.result import PartitionResult, Sensitivity
from afpjax.jobs.partition.view import SCENARIOS
from afpjax.jobs.shared.result import LinkResult
from afpjax.report.render import page

from ..conftest import Reader
from ..svg import drawn, is_linear, marks
from .kept import about, kept, once, printed

view = once(drawing.view)
TOOLS = ("cnnparted", "fault-unaware", "afarepart")


@pytest.fixture(scope="module")
def result() -> PartitionResult:
    return kept("partition-searched")


@pytest.fixture(scope="module")
def whole(result) -> Reader:
    """The whole page, which takes seconds to draw."""
    return Reader(page(view(result), "partition", {}).html)


def test_table_holds_every_number_on_the_page_and_in_the_terminal(result, whole):
    rows, text = whole.table("mapping by", "images right"), printed(view(result), 120)
    assert [row[0] for row in rows if len(row) == 1] == list(SCENARIOS.values())
    for row, cells in zip(result.table, [r for r in rows if len(r) > 1], strict=True):
        one = row.accuracy
        words = f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"
        assert cells[1] == words
        assert words in text
        for cell, cost in zip(cells[3:], (row.latency_ms, row.energy_mj), strict=True):
            assert float(cell.split()[0]) == pytest.approx(cost, rel=5e-3)


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ((0.4, 0.5, 0.8), "gets more images right"),
        ((0.6, 0.7, 0.2), "gets fewer images right"),
        ((0.4, 0.5, 0.45), "by chance alone"),
    ],
)
def test_verdict_follows_the_intervals(result, shown, accuracies, words):
    """Every tool has an accuracy and a mapping of its own."""
    rows = [
        replace(row, accuracy=about(accuracies[n], 0.05), mapping=[n] * len(row.mapping))
        for row in result.table
        for n in [TOOLS.index(row.tool)]
    ]
    page = shown(view(replace(result, table=rows)))
    assert words in page.text
    for accuracy in accuracies[1:]:
        assert f"{100 * accuracy:.1f} %" in page.headline


def test_tools_that_chose_the_same_share_a_strip(result, shown):
    same = list(result.selected.mapping)
    alike = replace(result, table=[replace(row, mapping=same) for row in result.table])
    assert "CNNParted, Fault-unaware and AFarePart" in shown(view(alike)).text


def test_mapping_layer_by_layer(result, whole):
    rows = whole.table("layer", "device", "kind")
    assert result.selected.flips is not None
    for layer, where, flips, cells in zip(
        result.model.layers, result.selected.mapping, result.selected.flips, rows, strict=True
    ):
        assert cells[:3] == [layer.name, f"{where + 1}{result.devices[where]}", layer.kind]
        (alone,) = [
            record.alone.value
            for record in result.sensitivity
            if (record.layer, record.device) == (layer.name, result.devices[where])
        ]
        lost = 100 * (result.clean.search_accuracy - alone)
        assert float(cells[4].replace("−", "-")) == pytest.approx(lost, abs=0.051)
        assert float(cells[5].split()[0]) == pytest.approx(flips.weights, rel=5e-3)


def test_front_lists_its_mappings_and_stars_the_chosen(result, whole):
    rows = whole.table("latency, ms", "energy, mJ", "images right")
    assert len(rows) == len(result.front)
    (starred,) = [row for row in rows if row[0].startswith("★")]
    assert float(starred[0][2:]) == pytest.approx(result.selected.latency_ms, rel=5e-3)


def test_deep_networks_have_lanes_so_that_colour_is_not_all(result):
    """29 blocks are too narrow on a phone for the devices' numbers."""
    layers = [replace(result.model.layers[0], name=f"layer{n}") for n in range(29)]
    deep = replace(
        result,
        model=replace(result.model, layers=layers),
        selected=replace(
            result.selected,
            mapping=[n % 4 for n in range(29)],
            flips=[replace(result.selected.flips[0], layer=f"layer{n}") for n in range(29)],  # pyright: ignore
        ),
        sensitivity=[
            Sensitivity(layer.name, device, about(0.8), about(0.5))
            for layer in layers
            for device in result.devices
        ],
    )
    html = page(view(deep), "partition", {}).html
    lanes = re.findall(r'<div class="lanes"[^>]*>(.*?)</div>', html)
    assert len(lanes[-1].split("<span")) - 1 == 29
    margins = re.findall(r"margin-bottom:([\d.]+)rem", lanes[-1])
    assert [float(m) for m in margins[:4]] == [1.5, 1.0, 0.5, 0.0]


def test_links_layerwise_and_effort_are_said(result, whole, shown):
    faults = replace(result.faults, strategy="layerwise", link=LinkResult("zero", 0.01))
    page = shown(view(replace(result, faults=faults)))
    assert "0.01 of the packets" in page.text and "do not add up" in page.text
    assert "of the packets" not in whole.text and "do not add up" not in whole.text
    assert f"{result.search.effort.spent:,} passes" in whole.text  # pyright: ignore


def test_dots_of_the_front_lie_where_their_numbers_are(result):
    """Equal steps of the data are equal steps on the paper, upwards for accuracy."""
    points = [
        replace(
            result.front[0],
            latency_ms=1.0 + n,
            energy_mj=3.0 - n,
            accuracy=about(0.2 + 0.1 * n),
        )
        for n in range(4)
    ]
    dots = marks(drawn(charts.front(points, points[0], [])), "PathCollection_1")
    assert is_linear(dots[:4, 0], np.arange(4.0)) > 1
    assert is_linear(dots[:4, 1], np.arange(4.0)) < -1  # downwards on paper is less
