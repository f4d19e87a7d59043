"""Job `export`: what it chooses, what it writes, and what it refuses."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.data.dataset import normalise
from afpjax.deploy.local_runner import LocalRunner
from afpjax.deploy.manifest import read_manifest
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.export import run as export
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain

from .kept import printed

TWO = {"platform__devices": ["eyeriss", "simba-ecc"]}
INT8 = {"format__bits": 8, "format__scale": "channel"}
PLACED = {
    "export__kind": "placement",
    "distribute__devices": [3],
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
        return str(folder)

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
    for part in result["parts"]:  # inputs and outputs are those of the files
        session = onnxruntime.InferenceSession(outcome.files[part["file"]])
        assert {each.name for each in session.get_inputs()} == set(part["inputs"])
        assert {each.name for each in session.get_outputs()} == set(part["outputs"])
        onnx.checker.check_model(outcome.files[part["file"]], full_check=True)


def test_a_searched_mapping_is_the_one_that_job_partition_selects(result_of, written):
    """And so is that of a run of the job."""
    found = result_of("partition", **TWO)
    searched = result_of("export", **TWO)
    source = written(found | {"job": "partition"})
    of_a_run = result_of("export", export__source=source, **TWO)
    for result, told in ((searched, "searched"), (of_a_run, "partition run")):
        assert (result["mapping"], result["source"]) == (found["selected"]["mapping"], told)


def test_a_single_device_needs_no_search(result_of):
    result = result_of("export", platform__devices=["simba"])
    assert result["mapping"] == [0, 0, 0] and len(result["parts"]) == 1
    assert result["sends"] == [] and len(result["tasks"]) == 1


def test_a_placement_of_neurons_and_every_device_lost(found_by):
    outcome = found_by("export", **PLACED)
    result = plain(outcome.result)
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
    said = " ".join(printed(outcome.view, 100).split())
    assert "100.00 %" in said and all(f"device{number}.onnx 3" in said for number in range(3))


def test_a_run_of_job_distribute(result_of, written):
    given = {key: value for key, value in PLACED.items() if not key.startswith("export")}
    found = result_of(
        "distribute", **given, distribute__curve=[], distribute__compare=False,
        distribute__methods=["robustdice"],
    )  # fmt: skip
    source = written(found | {"job": "distribute"}, config="[distribute]\ndevices = [3]\n")
    result = result_of("export", export__source=source)
    assert result["source"] == "distribute run"
    own = result_of("export", **PLACED)
    assert result["placement"] == own["placement"] and result["lost"] == own["lost"]
    with pytest.raises(InputError, match=r"lost neurons give zero, and distribute\.substitute is"):
        result_of("export", export__source=source, distribute__substitute="mean")


@pytest.mark.in_ci("cdc")
@pytest.mark.parametrize("method", ["lop", "cdc", "replication"])
def test_other_methods(result_of, method):
    result = result_of("export", export__method=method, **PLACED)
    assert result["method"] == method and result["agreement"]["top1"] == 1.0
    assert all(row["alike"] == 1.0 for row in result["lost"])
    if method == "cdc":  # nothing is lost with one device
        assert len({row["accuracy"] for row in result["lost"]}) == 1


UNREADABLE = "is no readable result of a whole run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job": "profile"}, "is no run of job partition or distribute"),
        ({"selected": {"mapping": [0, 1, 7]}}, UNREADABLE),
        ({"selected": {}}, UNREADABLE),
        ({"model": {"layers": [{}]}}, UNREADABLE),
        (
            {"model": {"name": "m", "layers": []}},
            r"is a mapping of another network .* differ from layer 0 on\); add --config .*toml",
        ),
        (
            {"devices": ["eyeriss", "simba"]},
            "maps to eyeriss, simba, and the devices here are eyeriss, simba-ecc",
        ),
        (None, r"export\.source: .* has no result\.json"),
    ],
)
def test_a_source_that_is_no_choice(result_of, written, tmp_path, changes, message):
    source = str(tmp_path / "nowhere")
    if changes is not None:
        source = written(result_of("partition", **TWO) | {"job": "partition"} | changes)
    with pytest.raises(InputError, match=message) as error:
        result_of("export", export__source=source, **TWO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**TWO, "export__mapping": [0, 1]}, "2 devices for a network of 3 layers"),
        ({**TWO, "export__mapping": [0, 1, 2]}, "no device 2; .* are 0 to 1"),
        (
            {**PLACED, "distribute__devices": [2], "export__method": "cdc"},
            r"distribute\.devices: 2 with method cdc",
        ),
    ],
)
def test_what_does_not_fit_is_refused(result_of, changes, message):
    with pytest.raises(InputError, match=message):
        result_of("export", **changes)


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
