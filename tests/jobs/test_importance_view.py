"""What job `importance` says of its result; the result is a golden run's, changed where needed."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from afpjax.jobs.importance import charts
from afpjax.jobs.importance import view as drawing
from afpjax.jobs.importance.result import Correlations, ImportanceResult, LayerCorrelations
from afpjax.report.render import page
from afpjax.report.wording import number

from .kept import kept, once

view = once(drawing.view)


@pytest.fixture(scope="module")
def exact() -> ImportanceResult:
    return kept("importance")


@pytest.fixture(scope="module")
def estimate(exact) -> ImportanceResult:
    """As where leaving every neuron out would take too long; no neuron of the first layer was."""
    about = replace(exact.divergence, method="estimate", classes=5, neglected=0.125)
    layers = [
        replace(
            layer,
            drop=None,
            jsd_method="estimate",
            jsd_error=0.00125,
            jsd_sample_mean=0.0225,
            jsd_sampled=3,
            jsd_rank_correlation=0.9 if place else None,
        )
        for place, layer in enumerate(exact.layers)
    ]
    neurons = [replace(neuron, drop=None) for neuron in exact.neurons]
    return replace(
        exact, divergence=replace(about, sample_images=64), layers=layers, neurons=neurons
    )


@pytest.fixture
def read(shown):
    return lambda result: shown(view(result))


def test_headline_names_the_neuron_and_what_the_weights_say(exact, read):
    headline, most = read(exact).headline, max(exact.neurons, key=lambda neuron: neuron.jsd)
    assert f"number {most.neuron} of {most.layer}" in headline
    assert f"{number(most.jsd)} of at most 0.693 nats" in headline
    assert f"correlation of {exact.correlations.all['l1_jsd']:.2f}" in headline
    none = replace(exact, correlations=Correlations({}, [LayerCorrelations("stem", {})]))
    assert read(none).headline.endswith("0.693 nats.")
    assert "No two scores could be ranked" in read(none).text


def test_the_heaviest_neurons_in_order_and_the_layers_that_hold_the_tenth(exact, estimate, read):
    best = sorted(exact.neurons, key=lambda neuron: -neuron.jsd)
    tenth = Counter(neuron.layer for neuron in best[: round(len(best) / 10)])
    rows = read(exact).table("layer", "of these")
    assert {row[0]: int(row[1]) for row in rows} == tenth
    listed = read(exact).table("neuron", "divergence")
    assert [row[0] for row in listed] == [f"{one.layer} · {one.neuron}" for one in best[:20]]
    assert listed[0][1:4] == [number(x) for x in (best[0].jsd, best[0].taylor, best[0].l1)]
    assert float(listed[0][4]) == pytest.approx(100 * best[0].drop, abs=0.051)
    assert read(estimate).table("neuron", "divergence")[0][4] == "–"


def test_correlations_over_all_and_within_layers(exact, read):
    found = exact.correlations
    rows = {row[0]: row[1:] for row in read(exact).table("scores", "all neurons")}
    inside = [layer.pairs["l1_taylor"] for layer in found.layers]
    values = [found.all["l1_taylor"], np.median(inside), min(inside), max(inside)]
    assert rows["l1 and Taylor"] == [f"{value:.2f}".replace("-", "−") for value in values]
    fewer = replace(found.layers[0], pairs={"l1_taylor": 0.1})
    lacking = replace(exact, correlations=replace(found, layers=[fewer]))
    assert read(lacking).table("layer", "l1 and Taylor")[0][:3] == ["stem", "0.10", "–"]


def test_estimated_divergences_say_how_good_they_are(estimate, read):
    reader = read(estimate)
    assert "importance.exact_passes allows 100,000" in reader.text
    assert "5 likeliest classes; the others hold 12.5 %" in reader.text
    first, second = reader.table("layer", "left out")[:2]
    assert first == [estimate.layers[0].name, "3", "0.0225", "0.00125", "–"]
    assert second[-1] == "0.90"


def test_means_layer_by_layer(exact, read):
    for row, layer in zip(read(exact).table("layer", "neurons"), exact.layers, strict=True):
        means = [getattr(layer, key).mean() for key in ("l1", "taylor", "jsd")]
        assert row[:2] == [layer.name, str(len(layer.jsd))]
        assert [float(cell) for cell in row[2:5]] == pytest.approx(means, rel=5e-3)
        assert float(row[5]) == pytest.approx(layer.jsd.max(), rel=5e-3)
        assert int(row[6]) == layer.jsd.argmax()


def test_deep_networks_show_the_layers_with_the_highest_scores(exact):
    first = exact.layers[0]
    layers = [
        replace(first, name=f"{n}", jsd=first.jsd / (n + 1), l1=first.l1 + n)
        for n in range(charts.SHOWN + 5)
    ]
    assert [each.name for each in charts.shown(layers, "jsd")] == [*map(str, range(charts.SHOWN))]
    assert charts.shown(layers, "l1")[0].name == "5"


def test_scores_that_are_all_zero_and_one_neuron_alone_still_have_figures(exact, read):
    """A network whose answer no neuron moves."""
    layer, neuron = exact.layers[0], exact.neurons[0]
    one = replace(
        layer, **{key: getattr(layer, key)[:1] for key in ("l1", "taylor", "jsd", "drop")}
    )
    alone = replace(exact, layers=[one], neurons=[neuron])
    assert sorted(page(view(alone), "importance", {}).figures) == [
        "jsd.svg", "l1.svg", "taylor.svg"
    ]  # fmt: skip
    still = replace(layer, jsd=0 * layer.jsd)
    none = replace(exact, layers=[still], neurons=[replace(neuron, jsd=0.0)])
    assert "moves by 0 of at most" in read(none).headline
