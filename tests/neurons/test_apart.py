"""Distributed networks executed for real, device by device, against the masked evaluation."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace
from afpjax.neurons.distribute import distribute
from afpjax.neurons.methods import names
from afpjax.neurons.placement import memory_share

from ..network.test_resnet20 import MEAN, STD, resnet20
from . import apart
from .apart import neurons_of

DEVICES = 4
FIXED = QFormat()
EVERY = [each for lost in range(DEVICES) for each in combinations(range(DEVICES), lost)]
every_method = pytest.mark.parametrize("method", names())

SHAPES = {
    "first": (3, 3, 2, 8),
    "depth": (3, 3, 1, 8),
    "grouped": (3, 3, 4, 10),
    "thin": (1, 1, 8, 3),  # fewer neurons than devices
    "deep": (3, 3, 13, 9),  # its image has fewer pixels than its window
    "last": (9, 5),
}
BIASED = ("first", "grouped", "deep", "last")


def forward(params, images):
    """Means are over powers of two, so that sums of codes stay exact between layers too."""

    def convolve(x, name, stride=1, groups=1):
        made = jax.lax.conv_general_dilated(
            x, params[name], (stride, stride), "SAME", feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return made + params[f"{name} bias"][None, None, None] if name in BIASED else made

    first = jax.nn.relu(convolve(images, "first", 2))
    joined = jax.nn.relu(convolve(first, "depth", groups=8)) + first
    grouped = jax.nn.relu(convolve(joined, "grouped", 2, groups=2))
    wide = jnp.concatenate([grouped, convolve(joined, "thin", 2)], axis=3)
    deep = jax.nn.relu(convolve(wide, "deep"))
    return deep.mean(axis=(1, 2)) @ params["last"] + params["last bias"][None]


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(17)
    params = {name: rng.normal(size=s) / np.sqrt(np.prod(s[:-1])) for name, s in SHAPES.items()}
    params |= {f"{name} bias": rng.normal(size=SHAPES[name][-1]) / 3 for name in BIASED}
    params = {name: jnp.asarray(1.5 * each, jnp.float32) for name, each in params.items()}
    images = jnp.asarray(rng.normal(size=(6, 8, 8, 2)), jnp.float32)
    return trace(forward, params, images[:1]), images


@pytest.fixture(scope="module")
def resnet(shared_data):
    with np.load(shared_data / "cifar10_test1000.npz") as data:
        images = (data["images"][:8].astype(np.float32) / 255 - MEAN) / STD
    with np.load(shared_data / "resnet20_cifar10_state.npz") as data:
        state = {key: jnp.asarray(data[key]) for key in data.files if "num_batches" not in key}
    return trace(resnet20, state, images[:1]), jnp.asarray(images)


def spread(network, method, **options):
    rng = np.random.default_rng(23)
    scores = {
        layer.name: {name: rng.random(layer.neurons) for name in ("l1", "taylor", "jsd")}
        for layer in network.layers
    }
    return distribute(network, scores, DEVICES, 0.4, method=method, **options)


def masked(network, images, placement, failures):
    """Logits [F, B, classes] that the evaluator gives."""
    answering = [placement.answering(failed) for failed in failures]
    evaluator = Evaluator(network, images, np.zeros(len(images), np.int32), 0, metric=LOGITS)
    return evaluator.evaluate_placements(answering)[:, 0]


def executed(network, images, placement, failures):
    """The same, of devices that run apart, on integers."""
    codes = apart.integers(FIXED)
    return np.stack([apart.run(network, placement, each, images, codes) for each in failures])


@every_method
@pytest.mark.parametrize("whole", [False, True], ids=["", "whole_classifier"])
def test_devices_that_run_their_own_filters_give_the_masked_codes(small, method, whole):
    """On integers, in coded sums as well: nothing is rounded. The answer is another than the
    network's where, and only where, neurons are lost."""
    traced, images = small
    network, placement = quantize(traced, FIXED), spread(traced, method, whole_classifier=whole)
    clean = np.asarray(network(images))
    made = executed(network, images, placement, EVERY)
    np.testing.assert_array_equal(made, masked(network, images, placement, EVERY))
    for failed, logits in zip(EVERY, made, strict=True):
        lost = any((answer < 0).any() for answer in placement.answering(failed))
        assert (logits != clean).any() == lost


@pytest.mark.slow
@pytest.mark.parametrize("method", ["robustdice", "cdc"])
def test_devices_that_run_a_trained_network_give_the_masked_codes(resnet, method):
    traced, images = resnet
    failures = [(), *combinations(range(DEVICES), 1)]
    case = quantize(traced, FIXED), images, spread(traced, method), failures
    found = executed(*case)
    np.testing.assert_array_equal(found, masked(*case))
    np.testing.assert_array_equal(found[0], case[0](images))


@every_method
def test_devices_keep_the_share_of_memory_that_is_said_of_them(small, method):
    """Weights and biases counted on each device, the spare's sums over grouped layers too."""
    traced, _ = small
    placement, kept = spread(traced, method), np.zeros(DEVICES)
    for call in traced.program.calls:
        layer = apart.Split.of(call, traced.parameters.layers[call.layer.name], apart.VALUES)
        for device, held in enumerate(layer.held(neurons_of(placement, call), placement.spare)):
            kept[device] += held.weights + len(held.bias) * (call.layer.biases > 0)
    total = sum(layer.weights + layer.biases for layer in traced.layers)
    np.testing.assert_allclose(kept / total, memory_share(placement, traced.layers))
