"""What the command wrote before: every job on digits, byte for byte but for the times.

A guard for changes that should change nothing; it proves nothing right. Where an answer is meant to
change, `AFPJAX_GOLDEN=write python -m pytest tests/golden` writes it anew, and the difference is
read before it is committed. On a machine whose floating point rounds otherwise (`rounding.json`
says how it did here) numbers need only be close.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.jobs.shared.outcome import result_text
from afpjax.run import main

HERE = Path(__file__).parent
WRITE = os.environ.get("AFPJAX_GOLDEN") == "write"
COMMON = [
    *("--config", str(HERE / "golden.toml")),
    *("--model.name", "golden_network:network"),
]
RUNS = {
    "partition": "partition",
    "partition-searched": "partition --platform.devices eyeriss simba simba-ecc golden_device.toml",
    "online": "online --online.trace radiation-burst",
    "distribute": "distribute --distribute.flips --distribute.search 2",
    "campaign": "campaign --campaign.margin 0.15",
    "campaign-bernoulli": "campaign --campaign.design bernoulli --campaign.rates 0.001 0.01",
    "campaign-listed": "campaign --campaign.design listed --campaign.sites stem/weights/0/15 "
    "head/weights/3/9+10 block/activations/4/9",
    "importance": "importance",
    "profile": "profile",
    "export": "export",
    "serve": "serve",
}
#: Second runs of a job that take a minute; each job has one in CI.
LONG = ("partition-searched", "campaign-bernoulli")
EVERY = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in RUNS]
)
NEEDS = {"export": ("onnxruntime",), "serve": ("onnxruntime", "ray")}
#: What differs between equal runs of job serve: times, and memory of processes.
MEASURED = ("fps", "latency_ms", "killed_at", "memory_mb")


def rounding() -> str:
    """How this machine rounds what floating-point answers are made of."""
    draws = np.random.default_rng(0).normal(size=(2, 64, 33, 65)).astype(np.float32)
    values = [jnp.exp(draws[0]), jnp.log(abs(draws[0])), jnp.tanh(draws[0])]
    values += [draws[0, :, :, :32] @ draws[1, 0, :32], jnp.sum(draws[1], axis=0)]
    texts = [np.asarray(value).tobytes() for value in jax.block_until_ready(values)]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def compared(folder: Path) -> dict[str, Any]:
    """result.json without times, the version, and what a run measures of processes."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for key in ("seconds", "throughput", "version"):
        result.pop(key, None)
    if result["job"] == "serve":
        for record in (result, *result["devices"]):
            for key in MEASURED:
                record.pop(key, None)
    return result


def assert_close(found: Any, kept: Any, where: str) -> None:
    """Of one form; numbers with a point agree to 1e-4, everything else is equal."""
    if isinstance(kept, dict):
        assert list(found) == list(kept), where
        for key in kept:
            assert_close(found[key], kept[key], f"{where}.{key}")
    elif isinstance(kept, list):
        assert len(found) == len(kept), where
        for place, (one, other) in enumerate(zip(found, kept, strict=True)):
            assert_close(one, other, f"{where}[{place}]")
    elif isinstance(kept, float):
        assert math.isclose(found, kept, rel_tol=1e-4, abs_tol=1e-6), where
    else:
        assert found == kept or where.endswith(("digest", "sha256")), where


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Run folders of what has run, by name."""
    return {}


@pytest.fixture(scope="module")
def ran(folders, tmp_path_factory):
    def run(name: str) -> Path:
        if name not in folders:
            for module in NEEDS.get(name, ()):
                pytest.importorskip(module)
            folder = tmp_path_factory.mktemp("golden") / "run"
            words = [str(HERE / w) if w.endswith(".toml") else w for w in RUNS[name].split()]
            sys.path.insert(0, str(HERE))
            try:
                assert main([*words, *COMMON, "--out", str(folder)]) == 0
            finally:
                sys.path.remove(str(HERE))
            folders[name] = folder
        return folders[name]

    return run


@EVERY
def test_a_run_gives_what_it_gave(ran, name):
    found, kept = compared(ran(name)), HERE / f"{name}.json"
    known = HERE / "rounding.json"
    if WRITE:
        kept.write_text(result_text(found), encoding="utf-8")
        known.write_text(json.dumps(rounding()) + "\n", encoding="utf-8")
        return
    text = kept.read_text(encoding="utf-8")
    if json.loads(known.read_text(encoding="utf-8")) == rounding():
        assert result_text(found) == text
    else:
        assert_close(found, json.loads(text), name)


@EVERY
def test_a_run_holds_the_contract(ran, shared_data, name):
    checker = shared_data.parent / "checks" / "contract.py"
    if not checker.is_file():
        pytest.skip(f"no contract checker at {checker}")
    done = subprocess.run(
        [sys.executable, str(checker), str(ran(name))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@EVERY
def test_a_run_writes_the_files_that_it_wrote(ran, name):
    """Part of the list of features, see `tests/features.py`."""
    known = HERE.parent / "features.json"
    features = json.loads(known.read_text(encoding="utf-8"))
    folder = ran(name)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if WRITE:
        features["files"] = {**features["files"], name: files}
        known.write_text(json.dumps(features, indent=1) + "\n", encoding="utf-8")
    assert features["files"][name] == files
