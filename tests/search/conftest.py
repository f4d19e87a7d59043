"""A network of five dense layers on three devices, small enough to try every mapping of it."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel
from afpjax.hardware.platform import Platform, load_platform
from afpjax.hardware.tables import CostTables
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.trace import trace
from afpjax.search.objectives import RobustnessObjective
from afpjax.search.partition import tables_for

SIZES = dict(a=(6, 24), b=(24, 24), c=(24, 24), d=(24, 8), e=(8, 4))


def forward(params, images):
    first = jax.nn.relu(images @ params["a"])
    second = jax.nn.relu(first @ params["b"])
    third = jax.nn.relu(second @ params["c"]) + first
    return jax.nn.relu(third @ params["d"]) @ params["e"]


@pytest.fixture(scope="session")
def quantized() -> Quantized:
    rng = np.random.default_rng(3)
    params = {n: jnp.asarray(rng.normal(size=s) / 4, jnp.float32) for n, s in SIZES.items()}
    return quantize(trace(forward, params, jnp.ones((1, 6))), QFormat(bits=8, frac=5))


@pytest.fixture(scope="session")
def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(48, 6)), jnp.float32)


@pytest.fixture(scope="session")
def labels(quantized, images) -> np.ndarray:
    """What the network itself says, but for an eighth of the images."""
    said = np.array(quantized(images)).argmax(1)
    said[::8] = (said[::8] + 1) % 4
    return said.astype(np.int32)


@pytest.fixture(scope="session")
def platform() -> Platform:
    return load_platform(["eyeriss", "simba", "simba-ecc"], "ucie")


@pytest.fixture(scope="session")
def tables(quantized, platform) -> CostTables:
    return tables_for(quantized, platform)


@pytest.fixture(scope="session")
def faults() -> FaultModel:
    return FaultModel(weight_rate=(0.02, 0.2, 0.0), activation_rate=(0.05, 0.3, 0.0))


@pytest.fixture
def objective(quantized, images, labels, faults) -> RobustnessObjective:
    """Two draws on an evaluator that has not run anything."""
    return RobustnessObjective(Evaluator(quantized, images, labels, 7), faults, 2)


@pytest.fixture(scope="session")
def every_mapping() -> np.ndarray:
    """All 243 mappings in lexicographic order."""
    return np.array(list(itertools.product(range(3), repeat=5)), np.int32)


@pytest.fixture(scope="session")
def with_memory(platform) -> Callable[..., Platform]:
    """The platform with other memories, in bytes."""

    def changed(*sizes: int) -> Platform:
        pairs = zip(platform.devices, sizes, strict=True)
        devices = tuple(dataclasses.replace(d, memory_bytes=size) for d, size in pairs)
        return dataclasses.replace(platform, devices=devices)

    return changed


@pytest.fixture(scope="session")
def undominated() -> Callable[[np.ndarray], list[int]]:
    """Rows that no other row beats, by comparing every pair."""

    def rows(points: np.ndarray) -> list[int]:
        def beats(one: np.ndarray, other: np.ndarray) -> bool:
            return all(one <= other) and any(one < other)

        return [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]

    return rows
