"""Job `export`: what it chooses, what it writes, and what it refuses."""

import io
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from rich.console import Console

from afpjax.config.work import SILENT, Work
from afpjax.data.dataset import normalise
from afpjax.deploy.local_runner import LocalRunner
from afpjax.deploy.manifest import read_manifest
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.export import run as export
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain
from afpjax.report.render import terminal
from afpjax.run import main

TWO = {"platform__devices": ["eyeriss", "simba-ecc"]}
INT8 = {"format__bits": 8, "format__scale": "channel"}
PLACED = {
    "export__kind": "placement",
    "distribute__devices": [3, 2],
    "distribute__thresholds": [0.6],
}


@pytest.fixture
def written(tmp_path):
    """A run folder as the command leaves it, as far as job `export` looks."""

    def write(result, name="run", config=""):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "config.toml").write_text(config)
        return folder

    return write


def test_a_given_mapping(outcome_of, config_of, tmp_path):
    outcome = outcome_of("export", export__mapping=[0, 1, 0], export__batch=2, **TWO, **INT8)
    result = plain(outcome.result)
    assert [(part["device"], part["file"], part["layers"]) for part in result["parts"]] == [
        ("eyeriss", "eyeriss.onnx", 2),
        ("simba-ecc", "simba-ecc.onnx", 1),
    ]
    assert (result["mapping"], result["source"], result["kind"]) == ([0, 1, 0], "given", "mapping")
    assert set(outcome.files) == {"eyeriss.onnx", "simba-ecc.onnx", "manifest.json", "mapping.json"}
    agreed = result["agreement"]
    assert (agreed["images"], agreed["top1"]) == (32, 1.0)
    assert agreed["largest_difference"] < 1e-6
    assert agreed["accuracy"] == agreed["afpjax_accuracy"]
    assert "NaN" not in result_text(result)
    for name, content in outcome.files.items():
        (tmp_path / name).write_bytes(content)
    experiment = prepare(config_of(**TWO, **INT8), Work({}, SILENT))
    images = np.asarray(normalise(experiment.held.images, experiment.mean, experiment.std))
    logits = LocalRunner(read_manifest(tmp_path), tmp_path)(images)
    np.testing.assert_allclose(logits, experiment.quantized(images), atol=1e-5)


def test_inputs_and_outputs_are_those_of_the_files(outcome_of):
    outcome = outcome_of("export", export__mapping=[0, 1, 0], **TWO)
    for part in plain(outcome.result)["parts"]:
        session = onnxruntime.InferenceSession(outcome.files[part["file"]])
        assert {each.name for each in session.get_inputs()} == set(part["inputs"])
        assert {each.name for each in session.get_outputs()} == set(part["outputs"])
        onnx.checker.check_model(outcome.files[part["file"]], full_check=True)


def test_a_searched_mapping_is_the_one_that_job_partition_selects(result_of):
    expected = result_of("partition", **TWO)["selected"]["mapping"]
    result = result_of("export", **TWO)
    assert (result["mapping"], result["source"]) == (expected, "searched")


def test_a_run_of_job_partition(result_of, written):
    found = result_of("partition", **TWO)
    folder = written(found | {"job": "partition"})
    result = result_of("export", export__source=str(folder), **TWO)
    assert result["mapping"] == found["selected"]["mapping"]
    assert result["source"] == "partition run"


def test_a_single_device_needs_no_search(result_of):
    result = result_of("export", platform__devices=["simba"])
    assert result["mapping"] == [0, 0, 0] and len(result["parts"]) == 1
    assert result["sends"] == [] and len(result["tasks"]) == 1


@pytest.fixture(scope="module")
def placed(outcome_of):
    return outcome_of("export", **PLACED)


def test_a_placement_of_neurons_and_every_device_lost(placed, config_of):
    result = plain(placed.result)
    assert result["kind"] == "placement" and result["method"] == "robustdice"
    assert result["devices"] == ["device0", "device1", "device2"]
    assert result["agreement"]["top1"] == 1.0
    assert [row["device"] for row in result["lost"]] == result["devices"]
    for row in result["lost"]:
        assert row["alike"] == 1.0 and row["images"] == 16
        assert row["accuracy"] == row["afpjax_accuracy"]
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high
    for row in result["placement"]:
        assert sum(row["held"]) >= row["neurons"]


def test_a_run_of_job_distribute(placed, result_of, written):
    given = {key: value for key, value in PLACED.items() if not key.startswith("export")}
    given |= {"distribute__curve": [0.3]}
    found = result_of("distribute", **given)
    config = "[distribute]\ndevices = [3, 2]\n"
    folder = written(found | {"job": "distribute"}, config=config)
    result = result_of("export", export__source=str(folder))
    assert result["source"] == "distribute run"
    own = plain(placed.result)
    assert result["placement"] == own["placement"] and result["lost"] == own["lost"]
    with pytest.raises(InputError, match=r"lost neurons give zero, and distribute\.substitute is"):
        result_of("export", export__source=str(folder), distribute__substitute="mean")


@pytest.mark.in_ci("cdc")
@pytest.mark.parametrize("method", ["lop", "cdc", "replication"])
def test_other_methods(result_of, method):
    result = result_of("export", export__method=method, **PLACED)
    assert result["method"] == method and result["agreement"]["top1"] == 1.0
    assert all(row["alike"] == 1.0 for row in result["lost"])
    if method == "cdc":  # nothing is lost with one device
        assert len({row["accuracy"] for row in result["lost"]}) == 1


def test_two_devices_are_enough_but_for_coded_sums(result_of):
    two = {**PLACED, "distribute__devices": [2]}
    assert result_of("export", **two)["devices"] == ["device0", "device1"]
    with pytest.raises(InputError, match=r"distribute\.devices: 2 with method cdc"):
        result_of("export", export__method="cdc", **two)


def test_a_mapping_of_another_network(result_of, written):
    found = result_of("partition", **TWO) | {"job": "partition"}
    other = json.loads(json.dumps(found))
    other["model"]["layers"][1]["neurons"] += 1
    folder = written(other)
    message = r"is a mapping of another network .* differ from layer 1 on\); add --config .*toml"
    with pytest.raises(InputError, match=message):
        result_of("export", export__source=str(folder), **TWO)
    folder = written(found, "devices")
    with pytest.raises(InputError, match="maps to eyeriss, simba-ecc, and the devices here"):
        result_of("export", export__source=str(folder), platform__devices=["eyeriss", "simba"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job": "profile"}, "is no run of job partition or distribute"),
        ({"selected": {"mapping": [0, 1, 7]}}, "is no readable result of a whole run"),
        ({"selected": {}}, "is no readable result of a whole run"),
        ({"model": {"layers": [{}]}}, "is no readable result of a whole run"),
    ],
)
def test_a_source_that_is_no_choice(result_of, written, changes, message):
    folder = written(result_of("partition", **TWO) | {"job": "partition"} | changes)
    with pytest.raises(InputError, match=message) as error:
        result_of("export", export__source=str(folder), **TWO)
    assert "\n" not in str(error.value)


def test_a_source_that_is_not_there(result_of, tmp_path):
    with pytest.raises(InputError, match=r"export\.source: .* has no result\.json"):
        result_of("export", export__source=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [([0, 1], "2 devices for a network of 3 layers"), ([0, 1, 2], "no device 2; .* are 0 to 1")],
)
def test_a_mapping_that_does_not_fit(result_of, mapping, message):
    with pytest.raises(InputError, match=message):
        result_of("export", export__mapping=mapping, **TWO)


def test_without_onnxruntime_files_are_written_and_a_note_says_that_nothing_checked_them(
    outcome_of, monkeypatch
):
    """The whole export once stopped where only its check could not run."""
    monkeypatch.setattr(export, "onnxruntime_installed", lambda: False)
    outcome = outcome_of("export", export__mapping=[0, 0, 0])
    assert outcome.result.agreement is None and outcome.result.parts
    note = outcome.result.notes[-1]
    assert note.kind == "unchecked" and "pip install 'afpjax[serve]'" in note.text
    assert any(name.endswith(".onnx") for name in outcome.files)


def test_the_command_writes_the_files_beside_the_result(
    file, module, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = ["--model.name", "afpjax_tiny_model:tiny", "--model.classes", "4"]
    given += ["--model.image-size", "8", "--data.name", "npz", "--data.path", str(file)]
    given += ["--search.images", "16", "--export.mapping", "0", "1", "0", "--out", "done"]
    given += ["--platform.devices", "eyeriss", "simba"]
    assert main(["export", *given]) == 0
    manifest = read_manifest(tmp_path / "done")
    assert manifest.names == ("eyeriss", "simba")
    page = (tmp_path / "done" / "report.html").read_text(encoding="utf-8")
    assert "2</b> ONNX files" in page
    assert {"parts.csv", "tasks.csv", "sends.csv"} <= {
        p.name for p in (tmp_path / "done").iterdir()
    }
    assert "onnxruntime on 32 test images" in capsys.readouterr().out


def test_the_summary_says_what_was_found(placed):
    console = Console(width=100, file=io.StringIO())
    with console.capture() as text:
        console.print(terminal(placed.view))
    said = " ".join(text.get().split())
    assert "the same class as afpjax for 100.00 %" in said
    assert "right or wrong where afpjax is for at least 100.00 % of the images" in said
    assert all(f"device{number}.onnx 3" in said for number in range(3))
