"""Jobs as functions of a network and images in memory, held against the command's own runs."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import afpjax
from afpjax.command import functions, main
from afpjax.inputs.errors import InputError
from afpjax.jobs.campaign.result import CampaignResult
from afpjax.jobs.shared.result import plain

MODULE = """
import jax
import jax.numpy as jnp
import numpy as np

def logits(params, images):
    hidden = jax.nn.relu(images.reshape(len(images), -1) @ params["hidden"])
    return hidden @ params["head"]

def tiny():
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)
    return logits, {"hidden": draw(48, 8), "head": draw(8, 3)}
"""
SHARED = {
    "campaign": {"strata": "layer", "margin": 0.2, "images": 20},
    "partition": {
        "search": {"population": 4, "generations": 1, "images": 20, "held_out": 20}
        | {"formats": "false", "final_trials": 2}
    },
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The module's name, its function traced, and images with labels of its own."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "afpjax_functions_model.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    apply_fn, params = __import__("afpjax_functions_model").tiny()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
    values = ((images / 255 - 0.5) / 0.25).astype(np.float32)
    labels = np.asarray(apply_fn(params, values)).argmax(axis=1).astype(np.int32)
    np.savez(folder / "images.npz", images=images, labels=labels)
    yield folder, afpjax.trace(apply_fn, params, values[:1]), images, labels
    sys.path.remove(str(folder))
    del sys.modules["afpjax_functions_model"]


def by_command(network, job, out, **settings):
    """What the command writes for the same experiment."""
    folder, *_ = network
    words = [job, "--out", str(out), "--model.name", "afpjax_functions_model:tiny"]
    words += ["--model.classes", "3", "--model.image_size", "4", "--data.name", "npz"]
    words += ["--data.path", str(folder / "images.npz"), "--data.mean", "0.5"]
    words += ["--data.std", "0.25"]
    for name, value in settings.items():
        pairs = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else None
        for key, one in (pairs or {f"{job}.{name}": value}).items():
            words += [f"--{key}", str(one)]
    assert main.main(words) == 0
    return json.loads((out / "result.json").read_text())


def as_python(settings):
    """The same as a caller would write it, where the command line has words."""
    if not isinstance(settings, dict):
        return False if settings == "false" else settings
    return {name: as_python(value) for name, value in settings.items()}


@pytest.mark.parametrize("job", SHARED)
def test_a_function_finds_what_the_command_finds(network, job, tmp_path, capsys):
    _, net, images, labels = network
    settings = SHARED[job]
    wanted = by_command(network, job, tmp_path / "run", **settings)
    found = plain(
        afpjax.run_job(
            job, net, images, labels, mean=[0.5], std=[0.25], title="mine", **as_python(settings)
        )
    )
    assert found["model"]["name"] == "mine" and found["data"]["name"] == "given"
    for own in ("model", "data", "throughput"):
        found.pop(own, None)
        wanted.pop(own, None)
    for own in ("job", "version", "seed", "seconds"):
        wanted.pop(own)
    assert json.loads(json.dumps(found)) == wanted


def test_a_number_format_of_the_callers_and_inputs_that_are_no_images(tmp_path):
    rng = np.random.default_rng(1)
    weights = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    inputs = rng.normal(size=(30, 6)).astype(np.float32)
    labels = (inputs @ np.asarray(weights)).argmax(axis=1)
    net = afpjax.trace(lambda w, x: jax.nn.relu(x) @ w, weights, inputs[:1])
    quantized = afpjax.quantize(net, afpjax.QFormat(8, 4))
    told = []
    result = afpjax.campaign(
        quantized,
        inputs,
        labels,
        design="exhaustive",
        bits=[7],
        images=0,
        data={"order": "file"},
        search={"images": 2},
        progress=lambda what, done, total: told.append((done, total)),
        out=str(tmp_path / "run"),
    )
    assert isinstance(result, CampaignResult) and result.format.bits == 8
    # Every sign bit of 18 weights once; what changes is counted by running the integers.
    codes = np.rint(np.clip(np.asarray(weights) * 16, -128, 127)).astype(int)
    measured = inputs[:-2]  # the search's are the last two
    reads = np.rint(np.clip(np.maximum(measured, 0) * 16, -128, 127)).astype(int)
    clean, changed = (reads @ codes).argmax(axis=1), []
    for element in range(18):
        faulty = codes.copy().ravel()
        faulty[element] ^= -128
        changed.append(((reads @ faulty.reshape(6, 3)).argmax(axis=1) != clean).mean())
    (cell,) = {(cell.trials, cell.sdc_rate.value) for cell in result.cells}
    assert cell == (18, pytest.approx(np.mean(changed)))
    assert told[-1][0] == told[-1][1]
    assert {"result.json", "report.html", "config.toml"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_a_second_call_goes_on_where_the_first_was_stopped(network):
    _, net, images, labels = network
    memory: dict[bytes, bytes] = {}
    kept = afpjax.campaign(net, images, labels, memory=memory, **SHARED["campaign"])
    count = len(memory)
    again = afpjax.campaign(net, images, labels, memory=memory, **SHARED["campaign"])
    assert count == len(memory) > 0 and again.cells == kept.cells


def test_costs_need_no_images(network):
    profile = afpjax.profile(network[1], platform={"devices": ["eyeriss"]})
    assert profile.devices == ["eyeriss"] and [cost.layer for cost in profile.costs]
    with pytest.raises(InputError, match="labelled images"):
        afpjax.run_job("importance", network[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margn": 0.1}, r"^campaign\.margn: .*did you mean `campaign\.margin`"),
        ({"margin": 2}, r"^campaign\.margin: "),
        ({"fault": {"bits": [1]}}, r"^fault: .*did you mean `faults`"),
        ({"online": {"theta": 0.1}}, r"^online\.theta: job campaign does not use it"),
        ({"model": {"classes": 7}}, r"^model\.classes: follows from what is handed over"),
        ({"mean": [0.1, 0.2]}, r"^mean: 2 values for images of 3 channels"),
        ({"out": "."}, r"is there already"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(network, change, message, monkeypatch):
    monkeypatch.setattr(functions, "JOBS", {})
    _, net, images, labels = network
    with pytest.raises(InputError, match=message):
        afpjax.campaign(net, images, labels, **change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda net, x, y: (None, x, y), "^network: needs one from"),
        (lambda net, x, y: (net, x[:, :2], y), "^images: "),
        (lambda net, x, y: (net, x, y[:3]), "labels"),
        (lambda net, x, y: (net, x * np.float32("nan"), y), "NaN"),
        (lambda net, x, y: (net, x, y + 9), "^labels: "),
    ],
)
def test_arguments_that_do_not_fit_are_refused(network, arguments, message):
    _, net, images, labels = network
    with pytest.raises(InputError, match=message):
        afpjax.campaign(*arguments(net, images, labels))


def test_a_job_that_there_is_not_is_refused(network):
    with pytest.raises(InputError, match="did you mean `partition`"):
        afpjax.run_job("partitoin", network[1])
