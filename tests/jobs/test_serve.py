"""Job `serve`: a hand-made export of a small network, measured beside what is predicted for it."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest

from afpjax.config import config as configuration
from afpjax.config.work import SILENT, Work
from afpjax.deploy.onnx.network import ExportableNetwork
from afpjax.deploy.service.ray_cluster import ray_cluster
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.serve import replanning
from afpjax.jobs.serve import run as serve
from afpjax.jobs.shared.result import plain

from ..deploy import byhand

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[serve]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[serve]'")

MODEL = """
import jax
import numpy as np

def logits(params, images):
    value = images.reshape(images.shape[0], -1)
    for place, name in enumerate(("one", "two", "three")):
        value = value if place == 0 else jax.nn.relu(value)
        value = value @ params[name] + params[name + "_bias"][None]
    return value

def small():
    with np.load({path!r}) as file:
        return logits, dict(file)
"""
COUNT = 160
NETWORK = "afpjax_by_hand:small"  # code, so that each run has to name it
ZEROS = [np.zeros_like(each) for each in byhand.SUBSTITUTES]


@pytest.fixture(scope="module")
def ray():
    before = set(psutil.Process().children(recursive=True))
    with ray_cluster() as ray:
        yield ray
    after = set(psutil.Process().children(recursive=True)) - before
    assert not psutil.wait_procs(after, timeout=10)[1]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Settings of the network of `byhand`, on images of which it gets most right."""
    folder = tmp_path_factory.mktemp("byhand")
    arrays = dict(zip(byhand.LAYERS, byhand.WEIGHTS, strict=True))
    names = [f"{name}_bias" for name in byhand.LAYERS]
    arrays |= dict(zip(names, byhand.BIASES, strict=True))
    np.savez(folder / "weights.npz", allow_pickle=False, **arrays)
    (folder / "afpjax_by_hand.py").write_text(MODEL.format(path=str(folder / "weights.npz")))
    images = byhand.images(COUNT)
    labels = np.array([byhand.answer(image, shared=False).argmax() for image in images])
    labels[::7] = (labels[::7] + 1) % byhand.SIZES[-1]
    np.savez(folder / "images.npz", images=images, labels=labels)
    sys.path.insert(0, str(folder))
    yield {
        "model.name": NETWORK,
        "model.classes": byhand.SIZES[-1],
        "model.image_size": 3,
        "model.channels": 2,
        "data.name": "npz",
        "data.path": str(folder / "images.npz"),
        "data.mean": list(byhand.MEAN),
        "data.std": list(byhand.STD),
        "format.kind": "float32",
        "faults.bits": [20],
        "search.images": 40,
        "distribute.substitute": "zero",
        "faults.weight_rate": [0.1, 0.2, 0.3, 0.4],
        "platform.devices": ["simba", "eyeriss", "simba-ecc", "simba"],
    }
    sys.path.remove(str(folder))


def written(exported, experiment, folder: Path) -> str:
    """A run folder as job `export` leaves it."""
    folder.mkdir()
    config = configuration.load(None, {**experiment, "run.job": "export"})
    quantized = prepare(config, Work({}, SILENT)).quantized
    digest = ExportableNetwork(quantized, exported.manifest.batch).digest
    model = exported.manifest.model.model_copy(update={"digest": digest})
    manifest = exported.manifest.model_copy(update={"model": model})
    (folder / "manifest.json").write_text(manifest.to_json())
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    (folder / "config.toml").write_text(configuration.to_toml(config))
    return str(folder)


@pytest.fixture(scope="module")
def placement(experiment, tmp_path_factory):
    """Lost neurons give zero, as this experiment says."""
    pieces = {
        name: each.model_copy(update={"substitute": (0.0,) * len(each.substitute)})
        for name, each in byhand.placement().manifest.pieces.items()
    }
    folder = tmp_path_factory.mktemp("placement") / "run"
    return written(byhand.placement(2, pieces=pieces), experiment, folder)


@pytest.fixture(scope="module")
def mapping(experiment, tmp_path_factory):
    exported = byhand.mapping(["simba", "eyeriss", "simba-ecc"])
    return written(exported, experiment, tmp_path_factory.mktemp("mapping") / "run")


def run(export, seed=3, **changes):
    given = {f"serve.{name}": value for name, value in changes.items()}
    config = configuration.load(
        None,
        {
            "run.job": "serve",
            "run.seed": seed,
            "serve.export": export,
            "model.name": NETWORK,
            **given,
        },
    )
    return plain(serve.run(config, Work({}, SILENT)).result)


def test_a_placement_loses_two_devices_and_keeps_what_was_predicted(ray, placement, experiment):
    result = run(placement, requests=120, kill=["a@30", "3@70"])
    assert result["requests"] == result["answered"] == 120 and result["refused"] == 0
    assert result["agreement"] == 1.0  # float32: afpjax's own answers, image by image
    assert [each["lost"] for each in result["by_lost"]] == [[], ["a"], ["a", "d"]]
    for each in result["by_lost"]:
        low, high = each["predicted_interval"]
        assert low <= each["accuracy"] <= high and low <= each["predicted"] <= high
    assert sum(each["answered"] for each in result["by_lost"]) == 120
    assert result["predicted_interval"][0] <= result["accuracy"] <= result["predicted_interval"][1]
    killed = {each["device"]: each.get("killed_at") for each in result["devices"]}
    assert killed["b"] is killed["c"] is None and 0 < killed["a"] < killed["d"]
    times = result["throughput"]
    assert [each["device"] for each in times["losses"]] == ["a", "d"]
    assert result["latency_ms"]["p50"] <= result["latency_ms"]["p95"] <= result["latency_ms"]["p99"]
    assert sum(times["timeline"]["answered"]) == 120 and result["fps"] > 0
    for each, before in zip(result["devices"], times["devices"], strict=True):
        assert each["memory_mb"] > before["base_mb"] > 1
    assert result["predicted_cost"]["fps"] > 0
    json.dumps(result, allow_nan=False)
    # Predicted is, in NumPy, what is right of all that are held out, the lost neurons gone.
    with np.load(experiment["data.path"]) as file:
        images, labels = file["images"], file["labels"]
    order = np.random.default_rng(0).permutation(COUNT)[40:]  # as the export split them
    for each, lost in zip(result["by_lost"], ((), (0,), (0, 3)), strict=True):
        said = [byhand.answer(images[n], lost, substitutes=ZEROS).argmax() for n in order]
        assert each["predicted"] == pytest.approx(np.mean(np.array(said) == labels[order]))


@pytest.mark.slow
def test_coded_sums_answer_for_a_lost_device(ray, experiment):
    """ExportedFiles by the job itself; two lost devices are more than sums make up for."""
    given = {
        **experiment,
        "run.job": "serve",
        "export.kind": "placement",
        "export.method": "cdc",
        "distribute.devices": [4],
        "serve.requests": 90,
        "serve.kill": ["device1@30", "device0@60"],
    }
    result = plain(serve.run(configuration.load(None, given), Work({}, SILENT)).result)
    assert result["answered"] == 90 and result["agreement"] == 1.0
    none, one, two = result["by_lost"]
    assert (one["lost"], two["lost"]) == (["device1"], ["device0", "device1"])
    assert none["predicted"] == one["predicted"] > two["predicted"]


@pytest.mark.slow
def test_a_mapping_is_planned_again_for_the_devices_that_are_left(ray, mapping, monkeypatch):
    asked = []
    repartition = replanning.repartition

    def searching(system, state, current, front):
        asked.append((state.present, state.weight_rate, current))
        return repartition(system, state, current, front)

    monkeypatch.setattr(replanning, "repartition", searching)
    result = run(mapping, requests=60, kill=["eyeriss@20"])
    rates = (0.1, 0.2, 0.3, 0.4)
    assert asked == [
        ((True, True, True, True), rates, (0, 1, 2)),  # before the first image, to compile
        ((True, False, True, True), rates, (0, 1, 2)),
    ]
    assert result["answered"] == 60 and result["agreement"] == 1.0
    assert [each["lost"] for each in result["by_lost"]] == [[], ["eyeriss"]]
    assert [each["device"] for each in result["devices"]][-1] == "simba-2"
    assert result["predicted_cost"]["hardware"] == "simba and eyeriss and simba-ecc"


@pytest.mark.slow
def test_where_nothing_is_answered_there_is_no_result(ray, placement):
    with pytest.raises(InputError, match="none of 8 images was answered: all devices dead"):
        run(placement, requests=8, kill=["a@0", "b@0", "c@0", "d@0"])


@pytest.mark.slow
def test_twenty_runs_with_one_to_three_of_four_devices_killed(ray, placement):
    """Every request is answered, as afpjax itself would; accuracies lie where they were predicted.

    Intervals are at 95 %: of 20 runs, and of about 60 sets of lost devices, some may miss theirs.
    """
    inside, of_sets = [], []
    for seed in range(20):
        began = time.monotonic()
        result = run(placement, seed, requests=120, kills=1 + seed % 3)
        assert time.monotonic() - began < 60
        assert result["answered"] == 120 and result["agreement"] == 1.0
        low, high = result["predicted_interval"]
        inside.append(low <= result["accuracy"] <= high)
        for each in result["by_lost"]:
            low, high = each["predicted_interval"]
            of_sets.append(low <= each["accuracy"] <= high)
    assert sum(inside) >= 18, inside
    assert sum(of_sets) >= 0.9 * len(of_sets) and len(of_sets) > 40, of_sets


@pytest.mark.slow
def test_others_ask_over_http_while_devices_die(ray, placement):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    images, found, status = byhand.images(30, seed=8), [], []

    def ask():
        until = time.monotonic() + 60
        while len(found) < len(images) and time.monotonic() < until:
            with contextlib.suppress(OSError):  # nobody listens yet
                body = io.BytesIO()
                np.save(body, images[len(found)])
                at = f"http://127.0.0.1:{port}"
                with urlopen(Request(f"{at}/predict", body.getvalue()), timeout=30) as answer:
                    found.append(json.load(answer))
                with urlopen(f"{at}/status", timeout=30) as answer:
                    status.append(json.load(answer))

    thread = threading.Thread(target=ask)
    thread.start()
    result = run(placement, requests=40, kill=["a@10"], port=port, listen_s=3)
    thread.join()
    for image, answer in zip(images, found, strict=True):
        lost = tuple(answer["lost"])
        expected = byhand.answer(image, lost, substitutes=ZEROS)
        np.testing.assert_allclose(answer["logits"], expected, rtol=1e-4, atol=1e-4)
    assert result["requests"] == 40 and result["http"]["answered"] == 30
    assert [each["alive"] for each in status[-1]["devices"]] == [False, True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGKILL, -9)],
)
def test_whatever_ends_the_command_ends_all_its_processes(
    placement, experiment, tmp_path, number, status
):
    code = "import sys; from afpjax.run import main; sys.exit(main())"
    settings = ["serve", "--serve.export", placement, "--serve.requests", "1000000"]
    settings += ["--model.name", experiment["model.name"]]  # no file may choose code
    paths = [str(Path(experiment["data.path"]).parent), os.environ.get("PYTHONPATH", "")]
    with TemporaryDirectory(prefix="k", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = subprocess.Popen(
            [sys.executable, "-c", code, *settings, "--out", str(tmp_path / "out")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": folder},
            stderr=subprocess.PIPE,
            text=True,
        )
        family = psutil.Process(command.pid)
        until = time.monotonic() + 60
        devices = []
        while len(devices) < 4 and time.monotonic() < until and command.poll() is None:
            time.sleep(0.1)
            devices = [each for each in family.children(recursive=True) if _is_device(each)]
        time.sleep(2)
        assert command.poll() is None, command.communicate()
        every = family.children(recursive=True)
        command.send_signal(number)
        _, said = command.communicate(timeout=30)
        assert command.returncode == status, said
        assert len(devices) == 4 and not psutil.wait_procs(devices, timeout=10)[1]
        assert not psutil.wait_procs(every, timeout=15)[1]
        assert not list(Path(folder).glob("afpjax-*"))
    assert not (tmp_path / "out").exists()


def _is_device(process):
    with contextlib.suppress(psutil.Error):
        return "Device" in " ".join(process.cmdline())
    return False


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kill": ["e@3"]}, r"serve\.kill: e@3: no device e"),
        ({"kills": 5}, r"serve\.kills: 5 random kills"),
        ({"memory_mb": 0.001}, r"serve\.memory_mb: device a has 0\.001 MB and its part needs"),
    ],
)
def test_bad_input_is_refused_before_any_process_begins(placement, monkeypatch, changes, said):
    monkeypatch.setattr(serve, "ray_cluster", None)
    with pytest.raises(InputError, match=said):
        run(placement, **changes)


def test_a_port_in_use_is_refused_before_anything_else(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"serve\.port: cannot listen on port {port}"):
            run("nowhere", port=port)


def test_a_folder_that_is_no_export_of_this_version(placement, tmp_path):
    with pytest.raises(InputError, match=r"serve\.export: .* has no config\.toml"):
        run(str(tmp_path))
    for name in ("config.toml", "b.onnx", "a.onnx", "c.onnx", "d.onnx"):
        (tmp_path / name).write_bytes((Path(placement) / name).read_bytes())
    text = (Path(placement) / "manifest.json").read_text()
    record = json.loads(text)
    (tmp_path / "manifest.json").write_text(json.dumps({**record, "afpjax": "0.1.0"}))
    with pytest.raises(InputError, match=r"was exported by afpjax 0\.1\.0"):
        run(str(tmp_path))
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "manifest.json").write_text(text.replace(record["model"]["digest"], "other"))
    with pytest.raises(InputError, match=r"not of the network that its config\.toml gives"):
        run(str(tmp_path))
    (tmp_path / "b.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match=r"b\.onnx is not the file that was exported"):
        run(str(tmp_path))
