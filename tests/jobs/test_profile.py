"""Job `profile`: the layers, and what each costs on every device."""

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.hardware.cost import layer_cost
from afpjax.hardware.memory_traffic import Sizes
from afpjax.jobs.profile.result import ProfileResult
from afpjax.jobs.profile.view import view
from afpjax.jobs.shared.result import CostResult, LayerResult, ModelResult
from afpjax.report.charts import costliest

from .kept import printed


@pytest.mark.parametrize("batch", [1, 4])
def test_every_layer_is_priced_on_every_device(config_of, result_of, batch):
    result = result_of("profile", platform__batch=batch)
    assert result["devices"] == ["eyeriss", "simba", "simba-ecc"]
    experiment = prepare(config_of(), Work({}, SILENT))
    layers = experiment.quantized.layers
    assert [layer["name"] for layer in result["model"]["layers"]] == [x.name for x in layers]
    rows = iter(result["costs"])
    for layer in layers:
        for device in experiment.platform.devices:
            row = next(rows)
            assert (row["layer"], row["device"]) == (layer.name, device.name)
            expected = layer_cost(layer, device, Sizes(16, 16, batch))
            np.testing.assert_allclose((row["latency_ms"], row["energy_mj"]), expected, rtol=1e-6)
            held = 2 * (layer.weights + layer.biases + batch * (layer.inputs + layer.outputs))
            assert row["bytes"] == held
    assert next(rows, None) is None


def test_shapes_are_the_networks(result_of):
    layers = {layer["name"]: layer for layer in result_of("profile")["model"]["layers"]}
    assert layers["stem"] == {
        "name": "stem", "kind": "conv", "macs": 4 * 4 * 6 * 27, "weights": 162, "biases": 0,
        "neurons": 6, "inputs": 192, "outputs": 96,
    }  # fmt: skip
    assert (layers["head"]["kind"], layers["head"]["macs"]) == ("dense", 24)


LAYERS = ("first", "second", "third")


def profile_result(latency=((1, 2), (3, 4), (5, 6)), devices=("one", "<two>")) -> ProfileResult:
    layers = [LayerResult(name, "conv", 1000, 100, 0, 4, 8, 8) for name in LAYERS[: len(latency)]]
    costs = [
        CostResult(layer.name, device, float(ms), 10.0 - ms, 1000)
        for layer, row in zip(layers, latency, strict=True)
        for device, ms in zip(devices, row, strict=True)
    ]
    return ProfileResult(ModelResult("net", layers), devices, costs)


def test_page_and_terminal_add_the_layers_up(shown):
    said = view(profile_result())
    page = shown(said)
    assert "quickest on one (9.00 ms)" in page.headline
    assert "least energy on <two> (18.0 mJ)" in page.headline
    assert page.table("device", "latency, ms") == [
        ["1one", "9.00", "21.0"],
        ["2<two>", "12.0", "18.0"],
    ]
    latency, energy, memory = (rows for rows in page.tables if rows[0][:2] == ["layer", "1one"])
    assert latency[1:] == [
        ["first", "1.00", "2.00"], ["second", "3.00", "4.00"], ["third", "5.00", "6.00"],
        ["sum", "9.00", "12.0"],
    ]  # fmt: skip
    assert energy[-1] == ["sum", "21.0", "18.0"]
    assert [row[0] for row in memory[1:]] == [*LAYERS]  # layers take turns in memory
    lines = [line.split() for line in printed(said, 100).splitlines()]
    assert lines[1:] == [["one", "9.00", "21.0"], ["<two>", "12.0", "18.0"]]


def test_deep_networks_show_their_costliest_layers():
    costs = [CostResult(f"layer{n}", "one", float(n % 90), 1.0, 1) for n in range(100)]
    kept = costliest(costs, ["one"], "latency_ms")
    assert len(kept) == 72
    assert {*kept} == {f"layer{n}" for n in range(100) if n % 90 >= 18}
