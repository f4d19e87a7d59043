"""What afpjax knows of a network: its layers, and the tensors that pass between them.

Shape legend, used in every annotation of this project:
L layers, D devices, P mappings, K trials, B images, M objectives, C neurons (output channels).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

INPUT = -1  # the place of the network's input, where a layer's number is asked for


@dataclass(frozen=True)
class Layer:
    """One convolution or dense layer of a traced network; all sizes are for one image."""

    name: str
    kind: str  # "conv" or "dense"
    input_shape: tuple[int, ...]  # as the program sees it, the leading batch axis of 1 included
    kernel_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    neurons: int  # output channels
    fan_in: int  # multiply-accumulates per output element
    macs: int  # multiply-accumulates per image
    weights: int  # elements of the kernel
    biases: int  # elements of the bias, 0 where there is none
    window: tuple[int, ...] = ()  # kernel's spatial extent (rows, columns); () for a dense layer
    output_size: tuple[int, ...] = ()  # output's spatial extent; () for a dense layer
    groups: int = 1
    shares: str = ""  # the first layer that reads the same stored kernel, where another one does

    @property
    def inputs(self) -> int:
        """Elements that the layer reads for one image."""
        return _product(self.input_shape)

    @property
    def outputs(self) -> int:
        """Elements that the layer writes for one image."""
        return _product(self.output_shape)

    @property
    def input_channels(self) -> int:
        """Channels that one neuron reads (one group's)."""
        return self.fan_in // _product(self.window)


@dataclass(frozen=True)
class Tensor:
    """A value that one layer's device makes and other layers' devices need.

    What follows a layer without being one (ReLU, pooling) runs where that layer runs; a join
    (residual sum, concatenation) runs where its last-computed operand was made. So every value
    has one producer, an index into the layers (-1: the network's input), and a set of consumers.
    """

    producer: int
    consumers: tuple[int, ...]
    elements: int  # per image


@dataclass(frozen=True)
class LayerGraph:
    """The layers in the order they run, and the tensors between them."""

    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def stored(self) -> tuple[int, ...]:
        """`stored` of the layers."""
        return stored(self.layers)


def stored(layers: Sequence[Layer]) -> tuple[int, ...]:
    """By layer, the first one that reads the same stored kernel: itself, where none does before."""
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    return tuple(numbers[layer.shares or layer.name] for layer in layers)


@dataclass(frozen=True)
class Coverage:
    """Multiply-accumulates of one image and elements of parameters: in layers, and by kind not."""

    macs: int = 0
    parameters: int = 0  # of kernels, each counted once however often it is used
    other_macs: Mapping[str, int] = field(default_factory=dict)
    other_parameters: Mapping[str, int] = field(default_factory=dict)

    @property
    def macs_share(self) -> float:
        """The layers' share of all multiply-accumulates."""
        return self.macs / max(1, self.macs + sum(self.other_macs.values()))

    @property
    def parameters_share(self) -> float:
        """The kernels' share of all parameters."""
        return self.parameters / max(1, self.parameters + sum(self.other_parameters.values()))

    def record(self) -> dict[str, Any]:
        """As result.json has it: shares, and what is outside by kind."""
        return {
            "macs": self.macs_share,
            "parameters": self.parameters_share,
            "macs_outside": dict(self.other_macs),
            "parameters_outside": dict(self.other_parameters),
        }


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
