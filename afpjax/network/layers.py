"""What afpjax knows of a network: its layers, and the tensors that pass between them.

Shape legend, used in every annotation of this project:
L layers, D devices, P mappings, K trials, B images, M objectives, C neurons (output channels).
"""

from dataclasses import dataclass


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


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
