"""What job `importance` says of its result."""

import math
from typing import Any

import pytest

from afpjax.jobs.importance import charts
from afpjax.jobs.importance import view as drawing
from afpjax.jobs.importance.result import ImportanceResult
from afpjax.jobs.shared.result import read as read_result
from afpjax.report.render import page

from .kept import once

view = once(drawing.view)
SCORES = ("l1", "taylor", "jsd")


def importance(layers: int = 3, neurons: int = 8, exact: bool = True) -> dict[str, Any]:
    """A result of job `importance` that has every key; the last neuron of layer 0 matters most."""
    rows = [
        {"layer": f"block{layer}.conv", "neuron": neuron}
        | {"l1": 2.0 + layer + math.sin(neuron), "taylor": 0.1 * (1 + neuron)}
        | {"jsd": 0.01 * (neuron + 1) / (layer + 1), "drop": 0.005 * neuron}
        for layer in range(layers)
        for neuron in range(neurons)
    ]
    names = [f"block{layer}.conv" for layer in range(layers)]
    found = [_layer(name, [row for row in rows if row["layer"] == name], exact) for name in names]
    ranks = {"l1_taylor": 0.25, "l1_jsd": -0.5, "taylor_jsd": 1.0, "jsd_drop": 0.75}
    about = {"method": "exact", "exact_passes": 1234.5, "limit": 100000, "unit": "nats"}
    if not exact:
        rows = [row if row["neuron"] < 3 else _less(row, "drop") for row in rows]
        about |= {"method": "estimate", "limit": 1000, "classes": 5}
        about |= {"neglected": 0.125, "sample_images": 64}
    return {
        "model": {"name": "toy", "layers": []},
        "data": {"name": "digits"},
        "images": {"count": 1256, "from": "training"},
        "clean": {"accuracy": 0.977},
        "notes": [],
        "target": "winner",
        "divergence": about,
        "layers": found,
        "correlations": {
            "all": ranks,
            "layers": [
                {"layer": name, "l1_taylor": 0.1 * index} for index, name in enumerate(names)
            ],
        },
        "neurons": rows,
    }


def _layer(name: str, rows: list[dict[str, Any]], exact: bool) -> dict[str, Any]:
    layer = {"name": name} | {key: [row[key] for row in rows] for key in SCORES}
    if exact:
        return layer | {"drop": [row["drop"] for row in rows], "jsd_method": "exact"}
    layer |= {"jsd_method": "estimate", "jsd_error": 0.00125, "jsd_sample_mean": 0.0225}
    return layer | {"jsd_sampled": 3, "jsd_rank_correlation": 0.9}


def _less(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


@pytest.fixture
def read(shown):
    return lambda record: shown(view(read_result(ImportanceResult, record)))


def test_headline_names_the_neuron_and_what_the_weights_say(read):
    headline = read(importance()).headline
    assert "number 7 of block0.conv" in headline and "0.0800 of at most 0.693 nats" in headline
    assert "all 24 neurons" in headline and "correlation of −0.50" in headline
    result = importance()
    del result["correlations"]["all"]["l1_jsd"]
    assert read(result).headline.endswith("0.693 nats.")


def test_the_layers_that_hold_the_tenth(read):
    """Divergence falls with the layer: of 24 neurons the highest 2 are both of layer 0."""
    rows = read(importance()).table("layer", "of these")
    assert rows == [["block0.conv", "2", "25.0 %"]]
    wide = importance(layers=2, neurons=20)
    assert read(wide).table("layer", "of these") == [["block0.conv", "4", "20.0 %"]]


def test_the_heaviest_neurons_in_order(read):
    result = importance()
    rows = read(result).table("neuron", "divergence")
    assert len(rows) == 20
    best = sorted(result["neurons"], key=lambda row: -row["jsd"])
    assert rows[0] == ["block0.conv · 7", "0.0800", "0.800", f"{best[0]['l1']:.2f}", "3.5"]
    assert [row[0].split(" · ")[1] for row in rows] == [str(row["neuron"]) for row in best[:20]]
    estimated = read(importance(exact=False)).table("neuron", "divergence")
    assert estimated[0][4] == "–"


def test_correlations_over_all_and_within_layers(read):
    rows = {row[0]: row[1:] for row in read(importance()).table("scores", "all neurons")}
    assert rows["l1 and Taylor"] == ["0.25", "0.10", "0.00", "0.20"]
    assert rows["l1 and divergence"] == ["−0.50", "–", "–", "–"]
    assert "Taylor and accuracy lost" not in rows
    within = read(importance()).table("layer", "l1 and Taylor")
    assert within[1][:3] == ["block1.conv", "0.10", "–"]
    none = importance() | {"correlations": {"all": {}, "layers": [{"layer": "block0.conv"}]}}
    assert "No two scores could be ranked" in read(none).text


def test_exact_and_estimated_divergences_say_how(read):
    assert "the work of 1,234 images" in read(importance()).text
    reader = read(importance(exact=False))
    assert "importance.exact_passes allows 1,000" in reader.text
    assert "5 likeliest classes; the others hold 12.5 % of the probability" in reader.text
    assert reader.table("layer", "left out")[0] == [
        "block0.conv", "3", "0.0225", "0.00125", "0.90"
    ]  # fmt: skip
    result = importance(exact=False)
    del result["layers"][0]["jsd_rank_correlation"]
    assert read(result).table("layer", "left out")[0][-1] == "–"


def test_means_layer_by_layer(read):
    result = importance()
    rows = read(result).table("layer", "neurons")
    for row, layer in zip(rows, result["layers"], strict=True):
        means = [sum(layer[key]) / 8 for key in SCORES]
        assert row[:2] == [layer["name"], "8"]
        assert [float(cell) for cell in row[2:5]] == pytest.approx(means, rel=5e-3)
        assert (float(row[5]), row[6]) == (pytest.approx(max(layer["jsd"]), rel=5e-3), "7")


def test_deep_networks_show_the_layers_with_the_highest_scores(read):
    deep = importance(layers=charts.SHOWN + 5)
    assert f"The {charts.SHOWN} layers with the highest of {charts.SHOWN + 5}." in read(deep).text
    layers = read_result(ImportanceResult, deep).layers
    names = [layer.name for layer in charts.shown(layers, "jsd")]
    assert names == [f"block{index}.conv" for index in range(charts.SHOWN)]
    assert charts.shown(layers, "l1")[0].name == "block5.conv"
    assert "with the highest of" not in read(importance()).text


def test_scores_that_are_all_zero_and_one_neuron_alone_still_have_figures(read):
    """A network whose answer no neuron moves."""
    one = view(read_result(ImportanceResult, importance(layers=1, neurons=1)))
    assert sorted(page(one, "importance", {}).figures) == ["jsd.svg", "l1.svg", "taylor.svg"]
    result = importance()
    for record in (*result["layers"], *result["neurons"]):
        record["jsd"] = [0.0] * 8 if "name" in record else 0.0
    assert "moves by 0 of at most" in read(result).headline
