"""onnx's own networks and trained ones against ONNX Runtime and published figures."""

import os
import time
from typing import NamedTuple

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


class Trained(NamedTuple):
    """A trained network on a set of images, with ONNX Runtime's accuracy from the data's README."""

    network: str
    images: str
    calibration: str  # images for INT8's scales; the photographs have none but themselves
    size: int  # of the centre square that the network reads, pixels
    top1: float
    top5: float | None = None  # where the README has it


RESNET20 = "resnet20_cifar10"
CIFAR, CIFAR_TRAIN = "cifar10_test1000", "cifar10_train_calibration"
SQUEEZENET, PHOTOGRAPHS = "squeezenet11_imagenet", "nips17_200_227_uint8"
TRUNK, TINY = "resnet18trunk_tinyimagenet", "tiny_imagenet_val2000_uint8"
TINY_TRAIN = "tiny_imagenet_train_calibration1000_uint8"
TRAINED = {
    "resnet20": Trained(RESNET20, CIFAR, CIFAR_TRAIN, 32, 0.915),
    "resnet20-slicepad": Trained(f"{RESNET20}_slicepad", CIFAR, CIFAR_TRAIN, 32, 0.915),
    "resnet20-train": Trained(RESNET20, CIFAR_TRAIN, CIFAR_TRAIN, 32, 0.9985),
    "squeezenet-227": Trained(SQUEEZENET, PHOTOGRAPHS, PHOTOGRAPHS, 227, 0.64, 0.865),
    "squeezenet-224": Trained(SQUEEZENET, PHOTOGRAPHS, PHOTOGRAPHS, 224, 0.66, 0.875),
    "resnet18trunk": Trained(TRUNK, TINY, TINY_TRAIN, 64, 0.4885, 0.741),
    "resnet18trunk-train": Trained(TRUNK, TINY_TRAIN, TINY_TRAIN, 64, 0.579, 0.828),
}


def pixels(folder, name, size):
    """Images normalised as the README has it, cut to their centre, and labels."""
    with np.load(folder / f"{name}.npz") as data:
        edge = (data["images"].shape[1] - size) // 2
        cut = data["images"][:, edge : edge + size, edge : edge + size]
        return (cut.astype(np.float32) / 255 - MEAN) / STD, data["labels"]


def test_every_onnx_file_of_the_shared_data_is_among_the_trained_networks(shared_data):
    files = {path.stem for path in shared_data.glob("**/*.onnx")}
    assert files == {each.network for each in TRAINED.values()}
    assert {path.stem for path in LIGHT.glob("*.onnx")} == {f"light_{n}" for n in LIGHT_NETWORKS}


def test_a_trained_resnet_20_has_the_shapes_and_counts_of_the_paper(shared_data):
    network = load_onnx(shared_data / "resnet20_cifar10_slicepad.onnx")
    with np.load(shared_data / "resnet20_cifar10_state.npz") as state:
        kernels = {k.removesuffix(".weight"): v.shape for k, v in state.items() if v.ndim > 1}
    assert {layer.name: layer.kernel_shape for layer in network.layers} == kernels
    stages = [(1024, 16, 6 * 16), (256, 32, 16 + 5 * 32), (64, 64, 32 + 5 * 64)]
    convolutions = sum(pixels * 9 * channels * inputs for pixels, channels, inputs in stages)
    assert sum(layer.macs for layer in network.layers) == 1024 * 27 * 16 + convolutions + 640
    assert all(layer.biases == layer.neurons for layer in network.layers)


@pytest.mark.in_ci("resnet20-slicepad", "resnet18trunk")
@pytest.mark.parametrize("trained", TRAINED.values(), ids=TRAINED)
def test_trained_networks_agree_with_onnx_runtime(shared_data, trained):
    path = shared_data / f"{trained.network}.onnx"
    images = pixels(shared_data, trained.images, trained.size)[0][:4]
    network = load_onnx(path, image_size=trained.size)
    assert_agrees(network, images, expected(path, images))


@pytest.mark.slow
@pytest.mark.parametrize("trained", TRAINED.values(), ids=TRAINED)
def test_trained_networks_keep_their_accuracy_in_float_and_int8(shared_data, trained):
    """The README of the data has the accuracies in float; INT8 has a scale per channel."""
    images, labels = pixels(shared_data, trained.images, trained.size)
    calibration, _ = pixels(shared_data, trained.calibration, trained.size)
    network = load_onnx(shared_data / f"{trained.network}.onnx", image_size=trained.size)
    narrow = quantize(network, QFormat(bits=8, scale="channel"), calibration[:256])

    def accuracy(run, count):
        batches = [images[start : start + 100] for start in range(0, len(images), 100)]
        logits = np.concatenate([np.asarray(run(jnp.asarray(batch))) for batch in batches])
        return (np.argsort(logits, 1)[:, -count:] == labels.reshape(-1, 1)).any(1).mean()

    floating = accuracy(network, 1)
    assert abs(floating - trained.top1) <= 0.002
    assert abs(accuracy(narrow, 1) - floating) <= 0.02

    if trained.top5:
        assert abs(accuracy(network, 5) - trained.top5) <= 0.002


@pytest.mark.slow
def test_a_file_of_100_megabytes_loads_in_seconds(tmp_path):
    """Reading and tracing ResNet-50, 102 MB, which takes 2 s on two cores."""
    path = saved(tmp_path, randomised("resnet50"))
    assert os.path.getsize(path) > 100e6
    start = time.perf_counter()
    load_onnx(path)
    assert time.perf_counter() - start < 20
