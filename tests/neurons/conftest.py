"""A small network with every kind of join, its twin in NumPy, and images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.network.interpreter import Network
from afpjax.network.trace import trace
from afpjax.neurons.importance import importance

from ..search.conftest import undominated as undominated

SIZE, CLASSES, IMAGES = 5, 4, 7
SHAPES = {
    "stem": (3, 3, 2, 4),
    "main": (3, 3, 4, 4),
    "depthwise": (3, 3, 1, 4),
    "left": (1, 1, 4, 3),
    "right": (3, 3, 2, 2),  # two groups
    "fc": (5, 6),
    "head": (6, CLASSES),
}
GROUPS = {"depthwise": 4, "right": 2}
BIASED = ("stem", "main", "depthwise", "fc", "head")


def logits(params, images, bent=jax.nn.relu):
    """Residual sum, depthwise and grouped convolutions, concatenation, dense; batch norm on one."""

    def conv(x, name):
        kernel = params[name]["kernel"]
        made = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=GROUPS.get(name, 1),
        )
        bias = params[name].get("bias")
        return made if bias is None else made + bias[None, None, None]

    stem = conv(images, "stem") * params["scale"][None, None, None]
    stem = bent(stem)
    joined = bent(conv(stem, "main") + stem)
    thin = bent(conv(joined, "depthwise"))
    wide = jnp.concatenate([conv(thin, "left"), conv(thin, "right")], axis=3)
    pooled = jnp.tanh(wide).mean(axis=(1, 2))
    hidden = jnp.tanh(pooled @ params["fc"]["kernel"] + params["fc"]["bias"][None])
    return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]


class Case(NamedTuple):
    network: Network
    params: Any
    images: np.ndarray
    labels: np.ndarray


def parameters(seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    params: dict[str, Any] = {"scale": jnp.asarray(rng.uniform(0.5, 1.5, 4), jnp.float32)}
    for name, shape in SHAPES.items():
        kernel = 1.5 * rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        params[name] = {"kernel": jnp.asarray(kernel, jnp.float32)}
        if name in BIASED:
            params[name]["bias"] = jnp.asarray(0.2 * rng.normal(size=shape[-1]), jnp.float32)
    return params


@pytest.fixture(scope="session")
def case() -> Case:
    params, rng = parameters(), np.random.default_rng(8)
    network = trace(logits, params, jnp.zeros((1, SIZE, SIZE, 2)))
    images = rng.normal(size=(IMAGES, SIZE, SIZE, 2)).astype(np.float32)
    labels = rng.integers(0, CLASSES, IMAGES).astype(np.int32)
    return Case(network, params, images, labels)


@pytest.fixture(scope="session")
def scores(case) -> dict[str, Any]:
    """As `importance` has them: JAX arrays, float32."""
    return importance(case.network, case.images)


def folded(case: Case) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Filters [neurons, weights] and biases [neurons] after folding, worked out by hand."""
    found = {}
    for name, shape in SHAPES.items():
        kernel = np.asarray(case.params[name]["kernel"], np.float64)
        bias = case.params[name].get("bias")
        bias = None if bias is None else np.asarray(bias, np.float64)
        if name == "stem":
            scale = np.asarray(case.params["scale"], np.float64)
            assert bias is not None
            kernel, bias = kernel * scale, bias * scale
        found[name] = (kernel.reshape(-1, shape[-1]).T, bias)
    return found


def name_of(network: Network, layer: str) -> str:
    """A layer's name in the program, from the key of its parameters."""
    (found,) = [each for each in network.graph.names if layer in each]
    return found


class Absent(NamedTuple):
    """Logits of the network itself, and of each neuron's absence: [neurons, B, classes]."""

    whole: np.ndarray
    without: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def absent(case) -> Absent:
    """By whole runs of the original, with a neuron's filter, bias and all, set to zero."""
    run = jax.jit(logits)
    without = {}
    for layer, shape in SHAPES.items():
        rows = []
        for neuron in range(shape[-1]):
            own = {key: np.array(value) for key, value in case.params[layer].items()}
            for value in own.values():
                value[..., neuron] = 0
            rows.append(run(case.params | {layer: own}, case.images))
        without[layer] = np.asarray(rows, np.float64)
    return Absent(np.asarray(run(case.params, case.images), np.float64), without)


def divergence(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Jensen-Shannon in nats over the last axis, as textbooks write it, in float64."""

    def softmax(z):
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    p, q = softmax(np.asarray(ours, np.float64)), softmax(np.asarray(theirs, np.float64))
    m = (p + q) / 2
    return ((p * np.log(p / m)).sum(axis=-1) + (q * np.log(q / m)).sum(axis=-1)) / 2
