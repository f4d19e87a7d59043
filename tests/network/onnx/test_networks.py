"""onnx's own networks and trained ones against ONNX Runtime and published figures."""

import os
import time

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from afpjax.network.fixed_point import QFormat
from afpjax.network.onnx import load_onnx
from afpjax.network.quantized import quantize

from .onnx_files import LIGHT, MEAN, STD, assert_agrees, drawn, expected, saved


def randomised(name):
    """One of onnx's `light_*` networks with weights that are drawn, up to its softmax.

    As shipped, each weight is one number many times over, and so is each answer: agreement would
    say nothing.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape" and len(node.output) == 1:
            shape = numpy_helper.to_array(held[node.input[0]]).tolist()
            gain = np.sqrt(2 / max(np.prod(shape[1:]), 1))
            values = rng.normal(size=shape) * gain if len(shape) > 1 else rng.uniform(0.5, 1, shape)
            tensor = numpy_helper.from_array(values.astype(np.float32), node.output[0])
            model.graph.initializer.append(tensor)
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, shape)
            )
            model.graph.node.remove(node)
    if model.graph.node[-1].op_type == "Softmax":
        last = model.graph.node.pop()
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None)
        )
    return model


#: Layers; parameters in them and 10^9 MACs where they are published for the network.
LIGHT_NETWORKS = {
    "squeezenet": (26, 1_235_496, 0.35),
    "shufflenet": (50, None, None),
    "bvlc_alexnet": (8, 60_965_224, None),
    "zfnet512": (8, None, None),
    "inception_v1": (58, 6_998_552, None),
    "inception_v2": (70, None, None),
    "resnet50": (54, None, 4.09),
    "densenet121": (121, None, 2.83),
    "vgg19": (19, 143_667_240, 19.63),
}
QUICK = ("squeezenet", "shufflenet")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LIGHT_NETWORKS]
)
def test_onnx_s_own_networks_agree_with_onnx_runtime(tmp_path, name):
    model = randomised(name)
    path = saved(tmp_path, model)
    network = load_onnx(path)
    images = drawn(1, 224, 224, 3, scale=1)
    assert_agrees(network, images, expected(path, images))
    layers, weights, macs = LIGHT_NETWORKS[name]
    assert len(network.layers) == layers
    if weights:
        assert sum(layer.weights + layer.biases for layer in network.layers) == weights
    if macs:
        assert round(sum(layer.macs for layer in network.layers) / 1e9, 2) == macs


def normalised(images):
    return (images.astype(np.float32) / 255 - MEAN) / STD


TRAINED = {
    "resnet20_cifar10": ("cifar10_test1000", 0.915),
    "resnet20_cifar10_slicepad": ("cifar10_test1000", 0.915),
    "squeezenet11_imagenet": ("nips17_200_227_uint8", 0.64),
    "resnet18trunk_tinyimagenet": ("tiny_imagenet_val2000_uint8", 0.4885),
}


def test_a_trained_resnet_20_has_the_shapes_and_counts_of_the_paper(shared_data):
    network = load_onnx(shared_data / "resnet20_cifar10_slicepad.onnx")
    with np.load(shared_data / "resnet20_cifar10_state.npz") as state:
        kernels = {k.removesuffix(".weight"): v.shape for k, v in state.items() if v.ndim > 1}
    assert {layer.name: layer.kernel_shape for layer in network.layers} == kernels
    stages = [(1024, 16, 6 * 16), (256, 32, 16 + 5 * 32), (64, 64, 32 + 5 * 64)]
    convolutions = sum(pixels * 9 * channels * inputs for pixels, channels, inputs in stages)
    assert sum(layer.macs for layer in network.layers) == 1024 * 27 * 16 + convolutions + 640
    assert all(layer.biases == layer.neurons for layer in network.layers)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_agree_with_onnx_runtime(shared_data, name):
    path = shared_data / f"{name}.onnx"
    with np.load(shared_data / f"{TRAINED[name][0]}.npz") as data:
        images = normalised(data["images"][:4])
    network = load_onnx(path, image_size=images.shape[1])
    assert_agrees(network, images, expected(path, images))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_keep_their_accuracy_in_float_and_int8(shared_data, name):
    """README.md of the data has ONNX Runtime's accuracies; INT8 has a scale per channel."""
    source, known = TRAINED[name]
    with np.load(shared_data / f"{source}.npz") as data:
        images, labels = normalised(data["images"]), data["labels"]
    network = load_onnx(shared_data / f"{name}.onnx", image_size=images.shape[1])
    narrow = quantize(network, QFormat(bits=8, scale="channel"), images[:100])

    def accuracy(run):
        batches = [images[start : start + 50] for start in range(0, len(images), 50)]
        logits = [np.asarray(run(jnp.asarray(batch))) for batch in batches]
        return (np.concatenate(logits).argmax(1) == labels).mean()

    floating = accuracy(network)
    assert abs(floating - known) <= 0.002
    assert abs(accuracy(narrow) - floating) <= 0.02


@pytest.mark.slow
def test_a_file_of_100_megabytes_loads_in_seconds(tmp_path):
    """Reading and tracing ResNet-50, 102 MB, which takes 2 s on two cores."""
    path = saved(tmp_path, randomised("resnet50"))
    assert os.path.getsize(path) > 100e6
    start = time.perf_counter()
    load_onnx(path)
    assert time.perf_counter() - start < 20
