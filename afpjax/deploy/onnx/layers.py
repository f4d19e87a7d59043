"""One layer, all or some of its neurons or sums of them, as ONNX nodes.

Its natural tensor is [B, neurons, rows, …] of a convolution, [B, neurons] of a dense layer, and
[B, positions, neurons] of one that multiplies several rows of an image. Legend: C neurons, S sums.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from afpjax.deploy.onnx import formats
from afpjax.deploy.onnx.graph import Graph, Operand, cast, reshaped, transposed
from afpjax.deploy.onnx.windows import convolved
from afpjax.network.fixed_point import QFormat
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized, encoded


class LayerArrays(NamedTuple):
    """A layer's arrays as ONNX lays them out; codes in fixed point.

    `kernel` is [C, channels, rows, …] of a convolution; of a dense layer [products, inputs,
    outputs], 1 product unless each of several reads inputs of its own.
    """

    kernel: np.ndarray
    steps: Float[np.ndarray, "C"]
    input_step: np.float32
    bias: Float[np.ndarray, "C"] | None


def layer_arrays(quantized: Quantized) -> dict[str, LayerArrays]:
    """Every layer's arrays, encoded once."""
    parameters, arrays = encoded(quantized).parameters, {}
    for call in quantized.program.calls:
        name, neurons = call.layer.name, call.layer.neurons
        kernel, bias = parameters.layers[name]
        steps = quantized.steps[name]
        arrays[name] = LayerArrays(
            _onnx_kernel(call, np.asarray(kernel, np.float32)),
            np.asarray(steps.weights, np.float32).reshape(neurons),
            np.float32(steps.inputs),
            None if bias is None else np.asarray(bias, np.float32).reshape(neurons),
        )
    return arrays


class _Axes(NamedTuple):
    """Axes of a matrix product's operand: summed over, of separate products, and all others."""

    summed: tuple[int, ...]
    batch: tuple[int, ...]
    free: tuple[int, ...]


def _axes(call: LayerCall) -> tuple[_Axes, _Axes]:
    """Of a dense layer: its image's axes, and its kernel's."""
    contracting, batch = call.params["dimension_numbers"]
    kernel, image = call.kernel_operand, 1 - call.kernel_operand
    operands = []
    for side, shape in ((image, call.layer.input_shape), (kernel, call.layer.kernel_shape)):
        used = (*contracting[side], *batch[side])
        free = tuple(axis for axis in range(len(shape)) if axis not in used)
        operands.append(_Axes(tuple(contracting[side]), tuple(batch[side]), free))
    return operands[0], operands[1]


def _sizes(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    return [shape[axis] for axis in axes]


def _onnx_kernel(call: LayerCall, kernel: np.ndarray) -> np.ndarray:
    if call.layer.kind == "conv":
        return kernel.transpose(call.params["dimension_numbers"].rhs_spec)
    _, axes = _axes(call)
    groups = axes.batch, axes.summed, axes.free
    shape = [prod(_sizes(kernel.shape, group)) for group in groups]
    return kernel.transpose([*axes.batch, *axes.summed, *axes.free]).reshape(shape)


def natural_shape(call: LayerCall, batch: int, neurons: int) -> tuple[tuple[int, ...], int]:
    """Shape of the natural tensor of so many neurons, and which axis theirs is."""
    if call.layer.kind == "conv":
        images = call.layer.output_shape[call.params["dimension_numbers"].out_spec[0]]
        return (batch * images, neurons, *call.layer.output_size), 1
    positions = _positions(call)
    return ((batch, neurons), 1) if positions == 1 else ((batch, positions, neurons), 2)


def _positions(call: LayerCall) -> int:
    """How many rows of an image a dense layer multiplies."""
    return prod(_sizes(call.layer.input_shape, _axes(call)[0].free))


class LayerWriter(NamedTuple):
    """Writes one layer to a graph: from the tensor [B, …] that it reads to its natural tensor."""

    graph: Graph
    fmt: QFormat
    call: LayerCall
    arrays: LayerArrays

    def neurons(self, x: Operand, neurons: Sequence[int] | None = None) -> Operand:
        """The layer, or some of its neurons in this order."""
        every = np.arange(self.call.layer.neurons)
        chosen = every if neurons is None else np.asarray(neurons, np.int64)
        step, bias = self.arrays.input_step, self.arrays.bias
        x = formats.read_copy(self.graph, self.fmt, x, step)
        if bias is not None:
            grid = self.arrays.steps[chosen] * step
            bias = formats.bias(self.graph, self.fmt, bias[chosen], grid)
        write = self._convolution if self.call.layer.kind == "conv" else self._dense
        natural = write(x, chosen, bias, np.array_equal(chosen, every))
        return cast(self.graph, natural, self.call.dtype)

    def _convolution(
        self, x: Operand, chosen: np.ndarray, bias: Operand | None, whole: bool
    ) -> Operand:
        """Some neurons of a grouped convolution are groups of one, each with its own inputs."""
        layer, kernel = self.call.layer, self.arrays.kernel
        x, groups = self._convolution_input(x), layer.groups
        if groups > 1 and not whole:
            channels = kernel.shape[1]
            group = chosen * groups // layer.neurons
            read = (group[:, None] * channels + np.arange(channels)).reshape(-1)
            shape = [x.shape[0], len(read), *x.shape[2:]]
            x = self.graph.node("Gather", [x, read], shape, x.dtype, axis=1)
            groups = len(chosen)
        weights = self._weights(kernel[chosen], chosen, 0)
        params, name = self.call.params, layer.name
        return convolved(self.graph, params, x, weights, bias, groups=groups, name=name)

    def _dense(self, x: Operand, chosen: np.ndarray, bias: Operand | None, whole: bool) -> Operand:
        """One Gemm, or a MatMul of several products; some neurons of those are a product each."""
        graph, kernel, name = self.graph, self.arrays.kernel, self.call.layer.name
        products, inputs, outputs = kernel.shape
        batch, rows = x.shape[0], x.shape[0] * _positions(self.call)
        x = self._dense_input(x)
        if products == 1:
            x = reshaped(graph, x, [rows, inputs])
            weights, shape = self._weights(kernel[0][:, chosen], chosen, 1), [rows, len(chosen)]
            natural = graph.node("Gemm", [x, weights, bias], shape, np.float32, name=name)
        else:
            x = reshaped(graph, x, [products, rows, inputs])
            if not whole:
                product, column = np.divmod(chosen, outputs)
                shape = [len(chosen), *x.shape[1:]]
                x = graph.node("Gather", [x, product], shape, x.dtype, axis=0)
                kernel = kernel[product, :, column][:, :, None]
            shape = [len(kernel), rows, kernel.shape[2]]
            weights = self._weights(kernel, chosen, None)
            natural = graph.node("MatMul", [x, weights], shape, np.float32, name=name)
            natural = transposed(graph, natural, [1, 0, 2])
            natural = reshaped(graph, natural, [rows, len(chosen)])
            if bias is not None:
                natural = graph.node("Add", [natural, bias], natural.shape, np.float32)
        return reshaped(graph, natural, natural_shape(self.call, batch, len(chosen))[0])

    def _weights(self, kernel: np.ndarray, chosen: np.ndarray, axis: int | None) -> Operand:
        return formats.weights(self.graph, self.fmt, kernel, self.arrays.steps[chosen], axis)

    def _convolution_input(self, x: Operand) -> Operand:
        """As [images, channels, rows, …]."""
        batch, spec = x.shape[0], self.call.params["dimension_numbers"].lhs_spec
        x = transposed(self.graph, x, [0, *(1 + axis for axis in spec)])
        return reshaped(self.graph, x, [batch * x.shape[1], *x.shape[2:]])

    def _dense_input(self, x: Operand) -> Operand:
        """As [products…, B, rows…, inputs…]."""
        image, _ = _axes(self.call)
        order = [*(1 + axis for axis in image.batch), 0]
        order += [1 + axis for axis in (*image.free, *image.summed)]
        return transposed(self.graph, x, order)

    def sums(self, x: Operand, sums: Bool[np.ndarray, "S C"]) -> Operand:
        """S sums of neurons.

        A layer is linear in what it reads, so one filter, the sum of some neurons', gives their
        sum, as the spare device of coded distributed computing needs it. Neurons of different
        groups read different inputs: their filter spans all groups. The image is read in the
        network's format; sums of weights are float32, for those of 8-bit codes do not fit 8 bits.
        """
        graph, call, arrays, wide = self.graph, self.call, self.arrays, np.float64
        name, count, batch = f"{call.layer.name}/sums", len(sums), x.shape[0]
        x, bias = formats.read_copy(graph, self.fmt, x, arrays.input_step), None
        if arrays.bias is not None:
            grid = arrays.steps * arrays.input_step
            values = formats.bias_values(self.fmt, arrays.bias, grid)
            bias = (sums.astype(wide) @ values.astype(wide)).astype(np.float32)
        if call.layer.kind == "conv":
            weights = formats.weight_values(self.fmt, arrays.kernel, arrays.steps, 0)
            groups, (_, channels, *window) = call.layer.groups, weights.shape
            by_group = weights.reshape(groups, len(weights) // groups, -1).astype(wide)
            members = sums.reshape(count, groups, -1).astype(wide).transpose(1, 0, 2)
            filters = (members @ by_group).transpose(1, 0, 2)  # [S, groups, …]
            kernel = filters.reshape(count, groups * channels, *window).astype(np.float32)
            x = self._convolution_input(x)
            natural = convolved(graph, call.params, x, kernel, bias, groups=1, name=name)
            return cast(graph, natural, call.dtype)
        weights = formats.weight_values(self.fmt, arrays.kernel, arrays.steps, None)
        products, inputs, _ = weights.shape
        members = sums.reshape(count, products, -1).astype(wide).transpose(1, 2, 0)
        columns = weights.astype(wide) @ members  # [products, inputs, S]
        kernel = columns.reshape(-1, count).astype(np.float32)
        x = self._dense_input(x)
        x = reshaped(graph, x, [products, prod(x.shape) // (products * inputs), inputs])
        x = transposed(graph, x, [1, 0, 2])
        x = reshaped(graph, x, [x.shape[0], products * inputs])
        shape = [x.shape[0], count]
        natural = graph.node("Gemm", [x, kernel, bias], shape, np.float32, name=name)
        natural = reshaped(graph, natural, natural_shape(call, batch, count)[0])
        return cast(graph, natural, call.dtype)

    def as_traced(self, natural: Operand, batch: int) -> Operand:
        """A whole natural tensor as the program has it, [B, …]."""
        graph, layer = self.graph, self.call.layer
        if layer.kind == "conv":
            spec = self.call.params["dimension_numbers"].out_spec
            x = reshaped(graph, natural, [batch, natural.shape[0] // batch, *natural.shape[1:]])
            return transposed(graph, x, [0, *(1 + np.argsort(spec)).tolist()])
        image, kernel = _axes(self.call)
        sizes = _sizes(layer.input_shape, image.free)
        sizes += _sizes(layer.kernel_shape, [*kernel.batch, *kernel.free])
        x = reshaped(graph, natural, [batch, *sizes])
        axes = iter(range(1, 1 + len(sizes)))  # of the image, of the products, of the outputs
        rows, products, outputs = (
            [next(axes) for _ in group] for group in (image.free, kernel.batch, kernel.free)
        )
        ordered = [*rows, *outputs] if self.call.kernel_operand == 1 else [*outputs, *rows]
        return transposed(graph, x, [0, *products, *ordered])
