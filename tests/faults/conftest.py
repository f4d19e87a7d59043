"""A small quantised network for tests of faults: dense, dense with a skip, dense."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.trace import trace

SIZES = dict(a=(6, 8), b=(8, 8), c=(8, 4))


def forward(params, images):
    first = jax.nn.relu(images @ params["a"])
    second = jax.nn.relu(first @ params["b"]) + first
    return second @ params["c"]


def make_network(fmt: QFormat) -> Quantized:
    rng = np.random.default_rng(3)
    params = {n: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for n, s in SIZES.items()}
    network = trace(forward, params, jnp.ones((1, 6)))
    return quantize(network, fmt, jnp.asarray(rng.normal(size=(16, 6)), jnp.float32))


@pytest.fixture(scope="session")
def quantized() -> Quantized:
    return make_network(QFormat())


@pytest.fixture(scope="session")
def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(40, 6)), jnp.float32)


@pytest.fixture(scope="session")
def labels(quantized, images) -> np.ndarray:
    """What the network itself says, but for a fifth of the images."""
    said = np.array(quantized(images)).argmax(1)
    said[::5] = (said[::5] + 1) % 4
    return said.astype(np.int32)


@pytest.fixture(scope="session")
def network_of() -> Callable[[QFormat], Quantized]:
    return make_network
