"""Equal runs give equal bytes of result.json but for `seconds` and `throughput`.

Here on a network of three layers, every job: the same again, after a kill, on one core, and with
two devices of JAX. `python -m pytest -m slow` does the same for the default network on digits.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from afpjax.jobs.shared.outcome import result_text
from afpjax.run import main

#: Of job serve, what the contract has where it stands though it is a time, or memory of a process.
MEASURED = ("fps", "latency_ms")
MEASURED_OF_DEVICES = ("memory_mb", "killed_at")
TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
ONE_CORE = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
WAYS: dict[str, tuple[dict[str, str], list[str]]] = {
    "again": ({}, []),
    "one core": ({}, ONE_CORE),
    "two devices": (TWO_DEVICES, []),
    "both": (TWO_DEVICES, ONE_CORE),
}
SEARCH = ["--search.population", "8", "--search.generations", "3", "--search.images", "16"]
SEARCH += ["--search.final_trials", "3", "--faults.trials", "2", "--search.held_out", "16"]
ONLINE = ["--online.trace", "radiation-burst", "--online.seeds", "1", "--online.population", "4"]
ONLINE += ["--online.generations", "2", "--online.passes_per_s", "200"]
JOBS: dict[str, list[str]] = {
    "partition": SEARCH,
    "online": [*SEARCH, *ONLINE],
    "distribute": ["--distribute.devices", "3", "--distribute.thresholds", "0.6"],
    "campaign": ["--campaign.margin", "0.2", "--campaign.images", "16"],
    "importance": ["--importance.images", "24"],
    "profile": [],
    "export": [*SEARCH, "--export.images", "24"],
    "serve": [*SEARCH, "--export.images", "24", "--serve.requests", "24"],
}
FLOATS = ("campaign", "distribute", "export")
INT8 = ["--format.bits", "8", "--format.scale", "channel"]
FORMATS: tuple[list[str], ...] = ([], ["--format.kind", "float32"], INT8)


def needs(job: str) -> None:
    for module in {"serve": ("ray", "onnxruntime"), "export": ("onnxruntime",)}.get(job, ()):
        pytest.importorskip(module)


def command(out: Path, words: list[str], before: list[str]) -> list[str]:
    return [*before, sys.executable, "-m", "afpjax.run", *words, "--out", str(out)]


def ran(out: Path, words: list[str], way: str = "again") -> str:
    """What a run in a process of its own writes into result.json, as it is to be compared."""
    extra, before = WAYS[way]
    done = subprocess.run(
        command(out, words, before), env=os.environ | extra, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return compared(out)


def killed(out: Path, words: list[str], seconds: float, kills: int, seed: int) -> str:
    """The same after so many kills at random instants, resumed after each."""
    draw, given = random.Random(seed), words
    for _ in range(kills):
        process = subprocess.Popen(
            command(out, words, []), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(draw.uniform(0.3, 0.9) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / "result.json").is_file():
            return compared(out)
        if (out.parent / f".{out.name}.partial" / "config.toml").is_file():
            words = [*given, "--resume"]  # a function is a model where it is named again
    return ran(out, words)


def compared(out: Path) -> str:
    result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    del result["seconds"]
    result.pop("throughput", None)
    if result["job"] == "serve":
        for key in MEASURED:
            del result[key]
        for row in result["devices"]:
            for key in MEASURED_OF_DEVICES:
                row.pop(key, None)
    return result_text(result)


@pytest.fixture(scope="module")
def small(module, file, tmp_path_factory) -> list[str]:
    """The experiment of three layers: a file, as no job uses all of it, and the network's name."""
    del module  # importable from the folder that PYTHONPATH has
    path = tmp_path_factory.mktemp("small") / "small.toml"
    path.write_text(
        f"""
model = {{ classes = 4, image_size = 8 }}
data = {{ name = "npz", path = "{file}", mean = 0.5, std = 0.25 }}
format = {{ frac = 5 }}
search = {{ allow_latency = 9, allow_energy = 9 }}
"""
    )
    return ["--config", str(path), "--model.name", "afpjax_tiny_model:tiny"]


@pytest.fixture(autouse=True)
def path(module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(module.__file__).parent))


def test_a_run_on_two_devices_and_one_core_and_a_killed_one_give_the_bytes_of_the_first(
    tmp_path, small
):
    words = ["campaign", *JOBS["campaign"], "--campaign.strata", "network", *small]
    assert main([*words, "--out", str(tmp_path / "first")]) == 0  # here, the others elsewhere
    first, start = compared(tmp_path / "first"), time.monotonic()
    assert ran(tmp_path / "other", words, "both") == first
    assert killed(tmp_path / "killed", words, time.monotonic() - start, 1, 3) == first


@pytest.mark.slow
@pytest.mark.parametrize("way", [*WAYS, "killed"])
@pytest.mark.parametrize("job", JOBS)
def test_every_job_gives_equal_bytes(tmp_path, small, job, way):
    needs(job)
    for kind in FORMATS if job in FLOATS else ([],):
        words = [job, *JOBS[job], *small, *kind]
        begun = time.monotonic()
        first = ran(tmp_path / f"first{len(kind)}", words)
        took, out = time.monotonic() - begun, tmp_path / f"other{len(kind)}"
        other = killed(out, words, took, 3, len(kind)) if way == "killed" else ran(out, words, way)
        assert other == first


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_every_job_gives_equal_bytes_for_the_default_network(tmp_path, job):
    needs(job)
    words = [job, *JOBS[job]]
    begun = time.monotonic()
    first = ran(tmp_path / "first", words)
    took = time.monotonic() - begun
    for way in WAYS:
        assert ran(tmp_path / way, words, way) == first, way
    assert killed(tmp_path / "killed", words, took, 3, 1) == first
