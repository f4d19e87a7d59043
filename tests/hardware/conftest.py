"""Layer shapes of published networks, written out, and a graph made of them."""

from collections.abc import Callable, Sequence

import pytest

from afpjax.network.layers import Layer, LayerGraph, Tensor

# name, input channels, input size, filter size, neurons, output size, groups
Shape = tuple[str, int, int, int, int, int, int]

# torchvision's AlexNet at 227x227, with the names of its parameters.
ALEXNET: tuple[Shape, ...] = (
    ("features.0", 3, 227, 11, 64, 56, 1),
    ("features.3", 64, 27, 5, 192, 27, 1),
    ("features.6", 192, 13, 3, 384, 13, 1),
    ("features.8", 384, 13, 3, 256, 13, 1),
    ("features.10", 256, 13, 3, 256, 13, 1),
    ("classifier.1", 9216, 0, 0, 4096, 0, 1),
    ("classifier.4", 4096, 0, 0, 4096, 0, 1),
    ("classifier.6", 4096, 0, 0, 1000, 0, 1),
)

# SqueezeNet 1.1 at 227x227.
SQUEEZENET: tuple[Shape, ...] = (
    ("features.0", 3, 227, 3, 64, 113, 1),
    ("features.3.squeeze", 64, 56, 1, 16, 56, 1),
    ("features.3.expand1x1", 16, 56, 1, 64, 56, 1),
    ("features.3.expand3x3", 16, 56, 3, 64, 56, 1),
    ("features.4.squeeze", 128, 56, 1, 16, 56, 1),
    ("features.4.expand1x1", 16, 56, 1, 64, 56, 1),
    ("features.4.expand3x3", 16, 56, 3, 64, 56, 1),
    ("features.6.squeeze", 128, 28, 1, 32, 28, 1),
    ("features.6.expand1x1", 32, 28, 1, 128, 28, 1),
    ("features.6.expand3x3", 32, 28, 3, 128, 28, 1),
    ("features.7.squeeze", 256, 28, 1, 32, 28, 1),
    ("features.7.expand1x1", 32, 28, 1, 128, 28, 1),
    ("features.7.expand3x3", 32, 28, 3, 128, 28, 1),
    ("features.9.squeeze", 256, 14, 1, 48, 14, 1),
    ("features.9.expand1x1", 48, 14, 1, 192, 14, 1),
    ("features.9.expand3x3", 48, 14, 3, 192, 14, 1),
    ("features.10.squeeze", 384, 14, 1, 48, 14, 1),
    ("features.10.expand1x1", 48, 14, 1, 192, 14, 1),
    ("features.10.expand3x3", 48, 14, 3, 192, 14, 1),
    ("features.11.squeeze", 384, 14, 1, 64, 14, 1),
    ("features.11.expand1x1", 64, 14, 1, 256, 14, 1),
    ("features.11.expand3x3", 64, 14, 3, 256, 14, 1),
    ("features.12.squeeze", 512, 14, 1, 64, 14, 1),
    ("features.12.expand1x1", 64, 14, 1, 256, 14, 1),
    ("features.12.expand3x3", 64, 14, 3, 256, 14, 1),
    ("classifier.1", 512, 14, 1, 1000, 14, 1),
)

# The convolutions of the original, grouped AlexNet, as the Eyeriss chip ran them.
GROUPED_ALEXNET: tuple[Shape, ...] = (
    ("CONV1", 3, 227, 11, 96, 55, 1),
    ("CONV2", 96, 31, 5, 256, 27, 2),
    ("CONV3", 256, 15, 3, 384, 13, 1),
    ("CONV4", 384, 15, 3, 384, 13, 2),
    ("CONV5", 384, 15, 3, 256, 13, 2),
)

# VGG-11: no figure of it went into a device file. CNNParted's tables of it are for 227x227 as well:
# the first two layers have whole numbers of lanes with 227 and 113 rows, not with 224 and 112.
VGG11: tuple[Shape, ...] = (
    ("features.0", 3, 227, 3, 64, 227, 1),
    ("features.3", 64, 113, 3, 128, 113, 1),
    ("features.6", 128, 56, 3, 256, 56, 1),
    ("features.8", 256, 56, 3, 256, 56, 1),
    ("features.11", 256, 28, 3, 512, 28, 1),
    ("features.13", 512, 28, 3, 512, 28, 1),
    ("features.16", 512, 14, 3, 512, 14, 1),
    ("features.18", 512, 14, 3, 512, 14, 1),
    ("classifier.0", 25088, 0, 0, 4096, 0, 1),
    ("classifier.3", 4096, 0, 0, 4096, 0, 1),
    ("classifier.6", 4096, 0, 0, 1000, 0, 1),
)


def make_layer(shape: Shape) -> Layer:
    """A convolution (NHWC), or a dense layer where the filter size is 0."""
    name, channels, size, window, neurons, out, groups = shape
    if window == 0:
        return Layer(
            name, "dense", (1, channels), (channels, neurons), (1, neurons),
            neurons, channels, channels * neurons, channels * neurons, 0,
        )  # fmt: skip
    fan_in = window * window * channels // groups
    return Layer(
        name, "conv", (1, size, size, channels), (window, window, channels // groups, neurons),
        (1, out, out, neurons), neurons, fan_in, fan_in * neurons * out * out, fan_in * neurons, 0,
        (window, window), (out, out), groups,
    )  # fmt: skip


def chain(shapes: Sequence[Shape]) -> LayerGraph:
    """Layers one after the other: each reads what the one before it made."""
    layers = tuple(make_layer(shape) for shape in shapes)
    tensors = tuple(Tensor(index - 1, (index,), layer.inputs) for index, layer in enumerate(layers))
    return LayerGraph(layers, tensors)


@pytest.fixture(scope="session")
def layer_of() -> Callable[[Shape], Layer]:
    return make_layer


@pytest.fixture(scope="session")
def chain_of() -> Callable[[Sequence[Shape]], LayerGraph]:
    return chain


@pytest.fixture(scope="session")
def networks() -> dict[str, LayerGraph]:
    """The networks above by name, as chains."""
    return {
        "alexnet": chain(ALEXNET),
        "squeezenet": chain(SQUEEZENET),
        "grouped-alexnet": chain(GROUPED_ALEXNET),
        "vgg11": chain(VGG11),
    }
