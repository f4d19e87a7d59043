"""Table II of RobustDiCE, the layers of its three networks, and which loads its rows are read as.

The layers are written out, so that no test needs to trace a network; `test_resources.py` holds them
against the traced ones.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from afpjax.hardware import load_link
from afpjax.hardware.board import load_board
from afpjax.network.layers import Layer, LayerGraph, Tensor
from afpjax.neurons.resources import resources

BOARD, ETHERNET = load_board("jetson-xavier-nx"), load_link("ethernet-1g")


class Measured(NamedTuple):
    """A row, as printed."""

    energy_j: float
    fps: float
    memory_mb: float


class Row(NamedTuple):
    """A network on a system of so many devices: "full", "cdc" (one is the spare), "robust"."""

    network: str
    method: str
    devices: int


TABLE = {
    Row("alexnet", "full", 4): Measured(0.179, 46.255, 150.914),
    Row("alexnet", "cdc", 3): Measured(0.165, 43.670, 94.117),
    Row("alexnet", "cdc", 4): Measured(0.157, 45.587, 78.852),
    Row("alexnet", "robust", 2): Measured(0.159, 48.214, 99.254),
    Row("alexnet", "robust", 3): Measured(0.148, 50.045, 80.777),
    Row("alexnet", "robust", 4): Measured(0.142, 51.219, 72.801),
    Row("vgg16_bn", "full", 4): Measured(0.850, 10.744, 429.215),
    Row("vgg16_bn", "cdc", 3): Measured(0.809, 10.634, 313.688),
    Row("vgg16_bn", "cdc", 4): Measured(0.799, 10.485, 272.293),
    Row("vgg16_bn", "robust", 2): Measured(0.826, 10.761, 328.426),
    Row("vgg16_bn", "robust", 3): Measured(0.799, 10.993, 295.086),
    Row("vgg16_bn", "robust", 4): Measured(0.779, 11.078, 267.395),
    Row("convnext_tiny", "full", 4): Measured(0.308, 28.223, 88.895),
    Row("convnext_tiny", "cdc", 3): Measured(0.307, 27.107, 69.129),
    Row("convnext_tiny", "cdc", 4): Measured(0.297, 28.248, 59.961),
    Row("convnext_tiny", "robust", 2): Measured(0.301, 28.044, 76.465),
    Row("convnext_tiny", "robust", 3): Measured(0.296, 28.415, 65.203),
    Row("convnext_tiny", "robust", 4): Measured(0.288, 29.034, 58.090),
}


def conv(name: str, inputs: int, size: int, window: int, neurons: int, out: int, groups=1) -> Layer:
    fan_in = window * window * inputs // groups
    return Layer(
        name, "conv", (1, size, size, inputs), (window, window, inputs // groups, neurons),
        (1, out, out, neurons), neurons, fan_in, fan_in * neurons * out * out, fan_in * neurons,
        neurons, (window, window), (out, out), groups,
    )  # fmt: skip


def dense(name: str, inputs: int, neurons: int, *size: int) -> Layer:
    """A dense layer, of every position where there is a size."""
    places = int(np.prod(size, dtype=int))
    return Layer(
        name, "dense", (1, *size, inputs), (inputs, neurons), (1, *size, neurons), neurons, inputs,
        inputs * neurons * places, inputs * neurons, neurons,
    )  # fmt: skip


def chain(*layers: Layer) -> LayerGraph:
    """What a layer sends is what the next one reads: pooled, where a pooling lies between."""
    sent = [Tensor(i, (i + 1,), after.inputs) for i, (_, after) in enumerate(pairwise(layers))]
    return LayerGraph(layers, (Tensor(-1, (0,), layers[0].inputs), *sent))


def alexnet() -> LayerGraph:
    return chain(
        conv("features.0", 3, 224, 11, 64, 55),
        conv("features.3", 64, 27, 5, 192, 27),
        conv("features.6", 192, 13, 3, 384, 13),
        conv("features.8", 384, 13, 3, 256, 13),
        conv("features.10", 256, 13, 3, 256, 13),
        dense("classifier.1", 9216, 4096),
        dense("classifier.4", 4096, 4096),
        dense("classifier.6", 4096, 1000),
    )


def vgg16_bn() -> LayerGraph:
    def convolutions() -> Iterator[Layer]:
        place, inputs, size = 0, 3, 224
        for neurons, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                yield conv(f"features.{place}", inputs, size, 3, neurons, size)
                place, inputs = place + 3, neurons  # convolution, batch norm, ReLU
            place, size = place + 1, size // 2

    return chain(
        *convolutions(),
        dense("classifier.0", 25088, 4096),
        dense("classifier.3", 4096, 4096),
        dense("classifier.6", 4096, 1000),
    )


def convnext_tiny() -> LayerGraph:
    def stages() -> Iterator[Layer]:
        size, before = 56, 3
        for stage, (width, blocks) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
            scale, name = (2, f"features.{2 * stage}.1") if stage else (4, "features.0.0")
            yield conv(name, before, size * scale, scale, width, size)
            for block in range(blocks):
                name = f"features.{2 * stage + 1}.{block}.block"
                yield conv(f"{name}.0", width, size, 7, width, size, groups=width)
                yield dense(f"{name}.3", width, 4 * width, size, size)
                yield dense(f"{name}.5", 4 * width, width, size, size)
            size, before = size // 2, width

    return chain(*stages(), dense("classifier.2", 768, 1000))


GRAPHS = {"alexnet": alexnet(), "vgg16_bn": vgg16_bn(), "convnext_tiny": convnext_tiny()}


def neurons(network: str) -> np.ndarray:
    return np.array([layer.neurons for layer in GRAPHS[network].layers])


def even(network: str, share: float, devices: int) -> np.ndarray:
    """The same share of every layer's neurons on each device."""
    own = np.rint(share * neurons(network)).astype(int).clip(1)
    return np.repeat(own[:, None], devices, axis=1)


def coded(network: str, devices: int) -> np.ndarray:
    """CDC: contiguous slices on the workers, and on the spare as many sums as the largest has."""
    slices = [
        [len(each) for each in np.array_split(np.arange(n), devices - 1)] for n in neurons(network)
    ]
    return np.array([[*each, max(each)] for each in slices])


@cache
def share_of_memory(row: Row) -> float:
    """The share of every layer that makes a device's memory what the row says."""
    low, high = 1 / row.devices, 1.0
    for _ in range(25):
        share = (low + high) / 2
        loads = even(row.network, share, row.devices)
        found = resources(GRAPHS[row.network], loads, BOARD, ETHERNET).peak_memory_mb
        low, high = (share, high) if found < TABLE[row].memory_mb else (low, share)
    return low


def loads_of(row: Row) -> np.ndarray:
    """The loads that a row is read as; RobustDiCE's are not printed, but for what they occupy."""
    if row.method == "full":
        return even(row.network, 1.0, row.devices)
    if row.method == "cdc":
        return coded(row.network, row.devices)
    return even(row.network, share_of_memory(row), row.devices)
