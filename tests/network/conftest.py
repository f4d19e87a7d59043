"""Numbers and comparisons that the network tests share."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.network.interpreter import Network
from afpjax.network.trace import trace

#: What runs once need not run fast.
QUICK = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="session")
def normal() -> Callable[..., jax.Array]:
    """Standard normal float32 arrays of a shape: the same whenever the shape is."""

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(np.random.default_rng(shape).normal(size=shape), jnp.float32)

    return draw


@pytest.fixture(scope="session")
def agrees() -> Callable[..., None]:
    """Holds a traced program against the original function, to 1e-5 of the output's range."""

    def check(network: Network, apply_fn: Callable[..., Any], params: Any, images: Any) -> None:
        quick = jax.jit(lambda images: apply_fn(params, images), compiler_options=QUICK)
        expected = np.asarray(quick(images))
        got = np.asarray(network(images))
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.ptp(expected), rtol=0)

    return check


@pytest.fixture(scope="session")
def traces(agrees) -> Callable[..., Network]:
    """Traces a function, and holds the program's layers and logits against it."""

    def check(apply_fn: Any, params: Any, images: Any, *names: str) -> Network:
        network = trace(apply_fn, params, images)
        assert not names or network.graph.names == names
        agrees(network, apply_fn, params, images)
        return network

    return check


@pytest.fixture(scope="session")
def least_power_of_two() -> Callable[..., float]:
    """The least 2^k with largest / 2^k within the largest code, by search over exact fractions."""

    def search(largest: Any, bits: int) -> float:
        step = Fraction(2) ** -60
        while Fraction(float(largest)) / step > 2 ** (bits - 1) - 1:
            step *= 2
        return float(step)

    return search
