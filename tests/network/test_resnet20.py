"""A trained ResNet-20 on CIFAR-10, written in plain jax.numpy: traced, folded, and in Q8.8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
BATCH = 250


def conv(state, name, images, stride=1):
    kernel, layout = state[f"{name}.weight"], ("NHWC", "OIHW", "NHWC")
    pad = ((1, 1), (1, 1))
    return lax.conv_general_dilated(images, kernel, (stride, stride), pad, dimension_numbers=layout)


def norm(state, name, images):
    part = {
        key: state[f"{name}.{key}"].reshape(1, 1, 1, -1)
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    scaled = (images - part["running_mean"]) / jnp.sqrt(part["running_var"] + 1e-5)
    return scaled * part["weight"] + part["bias"]


def shortcut(images, channels):
    """Option A: every second pixel, and channels of zeros on both sides."""
    if images.shape[3] == channels:
        return images
    pad = channels // 4
    return jnp.pad(images[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (pad, pad)))


def resnet20(state, images):
    hidden = jax.nn.relu(norm(state, "bn1", conv(state, "conv1", images)))
    for stage, channels in ((1, 16), (2, 32), (3, 64)):
        for block in range(3):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = norm(state, f"{name}.bn1", conv(state, f"{name}.conv1", hidden, stride))
            inner = conv(state, f"{name}.conv2", jax.nn.relu(inner))
            inner = norm(state, f"{name}.bn2", inner)
            hidden = jax.nn.relu(inner + shortcut(hidden, channels))
    return hidden.mean((1, 2)) @ state["linear.weight"].T + state["linear.bias"].reshape(1, -1)


@pytest.fixture(scope="module")
def images_and_labels(shared_data):
    with np.load(shared_data / "cifar10_test1000.npz") as data:
        return (data["images"].astype(np.float32) / 255 - MEAN) / STD, data["labels"]


@pytest.fixture(scope="module")
def state(shared_data):
    with np.load(shared_data / "resnet20_cifar10_state.npz") as data:
        return {key: jnp.asarray(data[key]) for key in data.files if "num_batches" not in key}


@pytest.fixture(scope="module")
def network(state, images_and_labels):
    return trace(resnet20, state, images_and_labels[0])


def right(run, images, labels):
    """How many images are classified right."""
    batches = [run(jnp.asarray(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    return int((np.concatenate([batch.argmax(1) for batch in batches]) == labels).sum())


def test_a_real_network_is_folded_and_keeps_its_accuracy_in_float_and_q8_8(
    network, images_and_labels
):
    """ONNX Runtime classifies 915 of these 1,000 images right."""
    assert len(network.layers) == 20
    assert network.graph.names[:3] == ("conv1", "layer1.0.conv1", "layer1.0.conv2")
    assert all(layer.biases == layer.neurons for layer in network.layers)
    assert abs(right(network, *images_and_labels) - 915) <= 1
    assert abs(right(quantize(network, QFormat(bits=16, frac=8)), *images_and_labels) - 915) <= 5
