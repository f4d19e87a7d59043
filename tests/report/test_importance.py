"""The story of job `importance`."""

import copy
import math
import re
from typing import Any

import pytest

from afpjax.jobs.importance.view_figures import SHOWN, shown
from afpjax.report.page import render

from .conftest import Reader

SCORES = ("l1", "taylor", "jsd")
PARTS = [
    "The neurons of each layer",
    "Where the most important neurons are",
    "Do the scores agree?",
    "How the divergence was measured",
]


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
        "job": "importance",
        "version": "0.4.0",
        "seed": 0,
        "model": {"name": "toy", "layers": []},
        "data": {"name": "digits"},
        "images": {"count": 1256, "from": "training"},
        "clean": {"accuracy": 0.977},
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
        "seconds": 9.0,
    }


def _layer(name: str, rows: list[dict[str, Any]], exact: bool) -> dict[str, Any]:
    layer = {"name": name} | {key: [row[key] for row in rows] for key in SCORES}
    if exact:
        return layer | {"drop": [row["drop"] for row in rows], "jsd_method": "exact"}
    layer |= {"jsd_method": "estimate", "jsd_error": 0.00125, "jsd_sample_mean": 0.0225}
    return layer | {"jsd_sampled": 3, "jsd_rank_correlation": 0.9}


def _less(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


def test_headline_names_the_neuron_and_what_the_weights_say(read):
    assert read(importance()).headline == (
        "The neuron that matters most is number 7 of block0.conv: without it the network's answer "
        "moves by 0.0800 of at most 0.693 nats; the size of the weights orders all 24 neurons as "
        "this divergence does with a rank correlation of −0.50."
    )
    result = importance()
    del result["correlations"]["all"]["l1_jsd"]
    assert read(result).headline.endswith("0.693 nats.")
    assert read({"job": "importance"}).headline == "How much each neuron matters"


def test_every_part_appears_and_those_without_data_do_not(read):
    assert read(importance()).headings == PARTS
    left = {"layers": PARTS[2:], "neurons": [PARTS[0], *PARTS[2:]]}
    left |= {"correlations": [*PARTS[:2], PARTS[3]], "divergence": PARTS[:3]}
    for key, parts in left.items():
        assert read(_less(importance(), key)).headings == parts


def test_lead_says_which_images_and_which_y(read):
    text = read(importance()).text
    assert "1,256 training images, 97.7 % of which the network has right" in text
    assert "every neuron was left out in turn" in text
    for target, words in (("winner", "winning logit"), ("loss", "cross-entropy loss")):
        assert words in read(importance() | {"target": target}).text
    assert "estimated from the first-order" in read(importance(exact=False)).text


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
    rows = {row[0]: row[1:] for row in read(importance()).table("", "all neurons")}
    assert rows["l1 and Taylor"] == ["0.25", "0.10", "0.00", "0.20"]
    assert rows["l1 and divergence"] == ["−0.50", "–", "–", "–"]
    assert "Taylor and accuracy lost" not in rows
    within = read(importance()).table("layer", "l1 and Taylor")
    assert within[1][:3] == ["block1.conv", "0.10", "–"]


def test_scores_that_cannot_be_ranked_are_said_to_be_so(read):
    result = importance()
    result["correlations"] = {"all": {}, "layers": [{"layer": "block0.conv"}]}
    assert "No two scores could be ranked" in read(result).text


def test_exact_and_estimated_divergences_say_how(read):
    assert "the work of 1,234 images" in read(importance()).text
    reader = read(importance(exact=False))
    assert "the experiment allows 1,000 (importance.exact_passes)" in reader.text
    assert "5 likeliest classes; the others hold 12.5 % of the probability" in reader.text
    assert reader.table("layer", "left out")[0] == [
        "block0.conv", "3", "0.0225", "0.00125", "0.90"
    ]  # fmt: skip
    result = importance(exact=False)
    del result["layers"][0]["jsd_rank_correlation"]
    assert read(result).table("layer", "left out")[0][-1] == "–"


def test_means_layer_by_layer(read):
    result = importance()
    rows = read(result).table("layer", "neurons", "divergence")
    for row, layer in zip(rows, result["layers"], strict=True):
        means = [sum(layer[key]) / 8 for key in ("jsd", "taylor", "l1")]
        assert row[:2] == [layer["name"], "8"]
        assert [float(cell) for cell in row[2:]] == pytest.approx(means, rel=5e-3)


def test_deep_networks_show_the_layers_with_the_highest_scores(read):
    deep = importance(layers=SHOWN + 5)
    assert f"The {SHOWN} layers with the highest of {SHOWN + 5}." in read(deep).text
    names = [layer["name"] for layer in shown(deep["layers"], "jsd")]
    assert names == [f"block{index}.conv" for index in range(SHOWN)]
    assert shown(deep["layers"], "l1")[0]["name"] == "block5.conv"
    assert "with the highest of" not in read(importance()).text


@pytest.mark.parametrize("exact", [True, False])
def test_the_page_reaches_nowhere_and_has_its_figures(exact):
    result = importance(exact=exact)
    page = render(result, {"run": {"seed": 0}})
    assert sorted(page.figures) == ["jsd.svg", "l1.svg", "taylor.svg"]
    assert page.html.count("<svg ") == 3
    for outside in ("<script", "<link", "<img", "http-equiv", 'src="http', 'href="http'):
        assert outside not in page.html
    assert not re.search(r"\b(nan|inf)\b", page.html, re.I)
    assert "None" not in Reader(page.html).text
    body = page.html[page.html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)
    assert render({**result, "seconds": 1e6}, {"run": {"seed": 0}}) == page


def test_names_are_escaped():
    result = copy.deepcopy(importance())
    name = '<b>&"x'
    for row in (*result["neurons"], *result["layers"]):
        for key in ("name", "layer"):
            if row.get(key) == "block0.conv":
                row[key] = name
    result["correlations"]["layers"][0]["layer"] = name
    page = render(result, {}).html
    assert name not in page
    assert name in Reader(page).text


def test_scores_that_are_all_zero_still_have_a_figure(read):
    """A network whose answer no neuron moves."""
    result = importance()
    for record in (*result["layers"], *result["neurons"]):
        record["jsd"] = [0.0] * 8 if "name" in record else 0.0
    reader = read(result)
    assert "moves by 0 of at most" in reader.headline
    assert "jsd.svg" in render(result, {}).figures


def test_one_neuron_alone_is_an_axis_too(read):
    assert read(importance(layers=1, neurons=1)).headings == PARTS
