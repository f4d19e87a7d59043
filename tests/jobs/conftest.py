"""A network of three layers in a module of its own, images in a file, and jobs run on both."""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afpjax.config import config as configuration
from afpjax.config.config import Config
from afpjax.config.work import SILENT, Work
from afpjax.experiment import SCENARIOS
from afpjax.jobs import JOBS
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import plain

# What a user would write: parameters from a fixed seed, and a pure function of them.
MODEL = """
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SIZES = {"stem": (3, 3, 3, 6), "hidden": (6, 6), "head": (6, 4)}

def logits(params, images):
    value = lax.conv_general_dilated(
        images, params["stem"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    value = jax.nn.relu(value).mean(axis=(1, 2))
    value = value + jax.nn.relu(value @ params["hidden"])
    return value @ params["head"]

def tiny():
    rng = np.random.default_rng(1)
    draw = lambda shape: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    return logits, {name: jnp.asarray(draw(s), jnp.float32) for name, s in SIZES.items()}
"""
COUNT = 32
MEAN, STD = 0.5, 0.25


@pytest.fixture(scope="session")
def module(tmp_path_factory) -> Iterator[Any]:
    """The model's module, importable as `afpjax_tiny_model`."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "afpjax_tiny_model.py").write_text(MODEL)
    sys.path.insert(0, str(folder))
    yield __import__("afpjax_tiny_model")
    sys.path.remove(str(folder))
    del sys.modules["afpjax_tiny_model"]


@pytest.fixture(scope="session")
def file(module, tmp_path_factory) -> Path:
    """Patches of colour, labelled by the float network itself, but for an eighth of them."""
    rng = np.random.default_rng(6)
    rough = rng.integers(0, 256, (COUNT, 2, 2, 3)).astype(np.uint8)
    images = rough.repeat(4, axis=1).repeat(4, axis=2)
    apply_fn, params = module.tiny()
    said = apply_fn(params, ((images / 255 - MEAN) / STD).astype(np.float32))
    labels = np.array(said).argmax(axis=1)
    labels[::8] = (labels[::8] + 1) % 4
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def config_of(file) -> Callable[..., Config]:
    """A small experiment; `section__key=value` changes it.

    As many images to search as are held out: both run in one compiled program.
    """
    small: dict[str, Any] = {
        "model.name": "afpjax_tiny_model:tiny",
        "model.classes": 4,
        "model.image_size": 8,
        "data.name": "npz",
        "data.path": str(file),
        "data.mean": [MEAN],
        "data.std": [STD],
        "format.frac": 5,
        "faults.bits": [4, 5],
        "faults.trials": 3,
        "search.population": 8,
        "search.generations": 3,
        "search.images": COUNT // 2,
        "search.final_trials": 3,
    }

    def make(**changes: Any) -> Config:
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        return configuration.load(None, small | changed)

    return make


@pytest.fixture(scope="session")
def outcome_of(config_of) -> Callable[..., Outcome]:
    """What a job finds; `memory` and `progress` as the command would give them."""

    def run(job: str, memory: Any = None, progress: Any = SILENT, **changes: Any) -> Outcome:
        config = config_of(run__job=job, **changes)
        return JOBS[job](config, Work({} if memory is None else memory, progress))

    return run


@pytest.fixture(scope="session")
def found_by(outcome_of) -> Callable[..., Outcome]:
    """A job's outcome; tests that ask for the same experiment share it."""
    known: dict[str, Outcome] = {}

    def run(job: str, **changes: Any) -> Outcome:
        name = repr((job, sorted(changes.items())))
        if name not in known:
            known[name] = outcome_of(job, **changes)
        return known[name]

    return run


@pytest.fixture(scope="session")
def result_of(found_by) -> Callable[..., dict[str, Any]]:
    """result.json's part of a job's outcome, shared likewise."""
    return lambda job, **changes: plain(found_by(job, **changes).result)


class Counted:
    """A display that remembers of every task how much there was to do, and how much was done."""

    def __init__(self) -> None:
        self.tasks: list[list[Any]] = []

    def task(self, description: str, total: int) -> Any:
        row = [description, total, 0]
        self.tasks.append(row)

        class Bar:
            def advance(self, amount: int = 1, /) -> None:
                row[2] += amount

        return nullcontext(Bar())


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture(scope="module")
def counted_once() -> Counted:
    """For a run that the tests of a file share."""
    return Counted()


def _holds_estimate(record, name="accuracy"):
    low, high = record[f"{name}_interval"]
    assert 0 <= low <= record[name] <= high <= 1


def _holds_the_contract(result, devices):
    """DESIGN.md, section `result.json`, of job partition."""
    names = [layer["name"] for layer in result["model"]["layers"]]
    assert names == ["stem", "hidden", "head"]
    for layer in result["model"]["layers"]:
        assert layer["kind"] in ("conv", "dense")
        assert layer["macs"] > 0 < layer["weights"]
    assert len(result["devices"]) == devices
    for point in (*result["front"], result["selected"]):
        assert len(point["mapping"]) == len(names)
        assert set(point["mapping"]) <= set(range(devices))
        assert point["latency_ms"] > 0 < point["energy_mj"]
        assert -1 <= point["accuracy_drop"] <= 1
        _holds_estimate(point)
    mappings = [point["mapping"] for point in result["front"]]
    assert mappings and len({tuple(mapping) for mapping in mappings}) == len(mappings)
    assert result["selected"]["mapping"] in mappings
    for one, other in itertools.permutations(result["front"], 2):
        pairs = [(one[k], other[k]) for k in ("latency_ms", "energy_mj", "accuracy_drop")]
        assert not (all(a <= b for a, b in pairs) and any(a < b for a, b in pairs))
    tools = ["cnnparted", "fault-unaware", "afarepart"]
    tools += ["surrogate"] * ("surrogate" in result)
    rows = [(row["tool"], row["scenario"]) for row in result["table"]]
    assert sorted(rows) == sorted(itertools.product(tools, SCENARIOS))
    for row in result["table"]:
        assert row["latency_ms"] > 0 < row["energy_mj"]
        _holds_estimate(row)
    search = result["search"]
    assert search["generations"] >= 0 < search["evaluations"]
    assert search["hypervolume"] >= 0 and len(search["reference_point"]) == 3


@pytest.fixture
def holds_estimate() -> Callable[..., None]:
    return _holds_estimate


@pytest.fixture
def holds_the_contract() -> Callable[..., None]:
    return _holds_the_contract
