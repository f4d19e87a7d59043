"""What job `partition` says of its result; the result is a golden run's, changed where needed."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from afpjax.jobs.partition import charts
from afpjax.jobs.partition.result import PartitionResult, Sensitivity
from afpjax.jobs.partition.view import SCENARIOS, view
from afpjax.jobs.shared.result import Estimate, LinkResult, plain, read
from afpjax.report.render import page, terminal

from ..svg import drawn, is_linear, marks

GOLDEN = Path(__file__).parents[1] / "golden" / "partition-searched.json"
TOOLS = {"cnnparted": 0.4, "fault-unaware": 0.5, "afarepart": 0.8}


@pytest.fixture
def result() -> PartitionResult:
    return read(PartitionResult, json.loads(GOLDEN.read_text()))


def about(value: float, width: float = 0.05) -> Estimate:
    return Estimate(value, value - width, value + width)


def with_rows(result: PartitionResult, accuracies: dict[str, float]) -> PartitionResult:
    """Every tool with an accuracy and a mapping of its own."""
    rows = [
        replace(row, accuracy=about(accuracies[row.tool]), mapping=[n] * len(row.mapping))
        for row in result.table
        for n in [list(TOOLS).index(row.tool)]
    ]
    return replace(result, table=rows)


def test_a_result_is_read_back_as_it_was_written(result):
    record = json.loads(GOLDEN.read_text())
    own = {key: value for key, value in record.items() if key not in ("job", "seed")}
    assert plain(result) == own


def test_table_holds_every_number_on_the_page_and_in_the_terminal(result, shown):
    said = view(result)
    rows = shown(said).table("mapping by", "images right")
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(terminal(said))
    text = console.export_text().replace("\u00a0", " ")
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
        ({"cnnparted": 0.4, "fault-unaware": 0.5, "afarepart": 0.8}, "gets more images right"),
        ({"cnnparted": 0.6, "fault-unaware": 0.7, "afarepart": 0.2}, "gets fewer images right"),
        ({"cnnparted": 0.4, "fault-unaware": 0.5, "afarepart": 0.45}, "by chance alone"),
    ],
)
def test_verdict_follows_the_intervals(result, shown, accuracies, words):
    page = shown(view(with_rows(result, accuracies)))
    assert words in page.text
    assert f"{100 * accuracies['afarepart']:.1f} %" in page.headline
    assert f"{100 * accuracies['fault-unaware']:.1f} %" in page.headline


def test_tools_that_chose_the_same_share_a_strip(result, shown):
    same = [list(result.selected.mapping)] * len(result.table)
    alike = replace(
        result, table=[replace(r, mapping=m) for r, m in zip(result.table, same, strict=True)]
    )
    page = shown(view(alike))
    assert "CNNParted, Fault-unaware and AFarePart" in page.text
    assert "is the same as the fault-unaware mapping and CNNParted's" in page.text


def test_mapping_layer_by_layer(result, shown):
    rows = shown(view(result)).table("layer", "device", "kind")
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


def test_front_lists_its_mappings_and_stars_the_chosen(result, shown):
    rows = shown(view(result)).table("latency, ms", "energy, mJ", "images right")
    assert len(rows) == len(result.front)
    (starred,) = [row for row in rows if row[0].startswith("★")]
    assert float(starred[0][2:]) == pytest.approx(result.selected.latency_ms, rel=5e-3)


def test_deep_networks_have_lanes_so_that_colour_is_not_all(result, shown):
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


def test_links_layerwise_and_effort_are_said(result, shown):
    faults = replace(result.faults, strategy="layerwise", link=LinkResult("zero", 0.01))
    page = shown(view(replace(result, faults=faults)))
    assert "0.01 of the packets are lost, and read as zeros" in page.text
    assert "do not add up" in page.text
    assert f"{result.search.effort.spent:,} passes" in page.text  # pyright: ignore
    assert "lost, and read" not in shown(view(result)).text


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


def test_names_are_escaped(result):
    first = result.devices[0]

    def named(records):
        return [replace(r, device="<b>one") if r.device == first else r for r in records]

    renamed = replace(
        result,
        devices=["<b>one", *result.devices[1:]],
        costs=named(result.costs),
        sensitivity=named(result.sensitivity),
    )
    html = page(view(renamed), "partition", {}).html
    assert "<b>one" not in html and "&lt;b&gt;one" in html
