"""Job `profile`: the layers, and what each costs on every device."""

import io

import numpy as np
import pytest
from rich.console import Console

from afpjax.config.config import load
from afpjax.config.work import SILENT, Work
from afpjax.experiment.prepare import prepare
from afpjax.hardware.cost import layer_cost
from afpjax.hardware.traffic import Sizes
from afpjax.jobs import JOBS


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


def test_one_device_is_enough(result_of):
    assert len(result_of("profile", platform__devices=["simba"])["costs"]) == 3


def test_the_summary_adds_the_layers_up(outcome_of):
    outcome = outcome_of("profile")
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(outcome.summary)
    text = captured.get()
    for device in ("eyeriss", "simba", "simba-ecc"):
        total = sum(
            float(row["latency_ms"]) for row in outcome.result["costs"] if row["device"] == device
        )
        assert f"{total:.4g}" in text


def test_a_zoo_network_is_neither_trained_nor_are_images_or_weights_read(tmp_path, monkeypatch):
    """At 224 pixels a network was once trained for hours, on images that had to be there."""
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    wanted = {
        "run.job": "profile",
        "model.name": "alexnet",
        "model.classes": 1000,
        "model.image_size": 224,
        "model.width": 1.0,
        "model.weights": str(tmp_path / "not-there.npz"),
        "data.name": "folder",
        "data.path": str(tmp_path / "no-images"),
    }
    outcome = JOBS["profile"](load(None, wanted), Work({}, SILENT))
    layers = outcome.result["model"]["layers"]
    # Krizhevsky 2014, as torchvision has it: 61,100,840 parameters, biases included.
    assert sum(layer["weights"] + layer["biases"] for layer in layers) == 61_100_840
    assert not (tmp_path / "cache").exists()
