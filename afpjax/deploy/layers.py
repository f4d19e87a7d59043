"""One layer, whole or some of its neurons, as ONNX nodes.

Its natural tensor is [B, neurons, rows, …] of a convolution, [B, neurons] of a dense layer, and
[B, places, neurons] of one that multiplies several rows of an image. Legend: C neurons.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from afpjax.deploy import formats
from afpjax.deploy.graph import Graph, Operand, Ref, cast, reshaped, transposed
from afpjax.deploy.windows import convolved
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized, encoded


class Arrays(NamedTuple):
    """A layer's arrays as ONNX lays them out, codes in fixed point, every neuron in its place.

    `kernel` is [C, channels, rows, …] of a convolution; of a dense layer [products, inputs,
    outputs], 1 product unless each of several reads inputs of its own.
    """

    kernel: np.ndarray
    steps: Float[np.ndarray, "C"]
    step: np.float32  # of what the layer reads
    bias: Float[np.ndarray, "C"] | None


def arrays_of(quantized: Quantized) -> dict[str, Arrays]:
    """Every layer's arrays, encoded once."""
    parameters, found = encoded(quantized).parameters, {}
    for call in quantized.program.calls:
        name, neurons = call.layer.name, call.layer.neurons
        kernel, bias = parameters.layers[name]
        steps = quantized.steps[name]
        found[name] = Arrays(
            _laid_out(call, np.asarray(kernel, np.float32)),
            np.asarray(steps.weights, np.float32).reshape(neurons),
            np.float32(steps.inputs),
            None if bias is None else np.asarray(bias, np.float32).reshape(neurons),
        )
    return found


def natural_shape(call: LayerCall, batch: int, neurons: int) -> tuple[tuple[int, ...], int]:
    """Shape of the natural tensor of so many neurons, and which axis theirs is."""
    if call.layer.kind == "conv":
        images = call.layer.output_shape[call.params["dimension_numbers"].out_spec[0]]
        return (batch * images, neurons, *call.layer.output_size), 1
    places = prod(_sizes(call.layer.input_shape, _axes(call).free_x))
    return ((batch, neurons), 1) if places == 1 else ((batch, places, neurons), 2)


def layer(
    graph: Graph,
    quantized: Quantized,
    call: LayerCall,
    arrays: Arrays,
    x: Operand,
    neurons: Sequence[int] | None = None,
) -> Operand:
    """The natural tensor of a layer, or of some of its neurons in this order, from the tensor
    [B, …] that it reads."""
    fmt = quantized.format
    if neurons is not None and list(neurons) == list(range(call.layer.neurons)):
        neurons = None
    x = formats.image(graph, fmt, x, arrays.step)
    chosen = np.arange(call.layer.neurons) if neurons is None else np.asarray(neurons, np.int64)
    steps = arrays.steps[chosen]
    bias = arrays.bias
    if bias is not None:
        bias = formats.bias(graph, fmt, bias[chosen], steps * arrays.step)
    if call.layer.kind == "conv":
        made = _convolution(graph, quantized, call, arrays, x, chosen, bias, neurons is None)
    else:
        made = _dense(graph, quantized, call, arrays, x, chosen, bias, neurons is None)
    return cast(graph, made, call.dtype)


def as_traced(graph: Graph, call: LayerCall, made: Operand, batch: int) -> Operand:
    """A whole natural tensor as the program has it, [B, …]."""
    if call.layer.kind == "conv":
        spec = call.params["dimension_numbers"].out_spec
        made = reshaped(graph, made, [batch, made.shape[0] // batch, *made.shape[1:]])
        return transposed(graph, made, [0, *(1 + np.argsort(spec)).tolist()])
    axes, shape = _axes(call), call.layer.kernel_shape
    free, kernel = _sizes(call.layer.input_shape, axes.free_x), [*axes.batch, *axes.free]
    made = reshaped(graph, made, [batch, *free, *_sizes(shape, kernel)])
    x, many, out = (range(len(each)) for each in (free, axes.batch, axes.free))
    x, many, out = (
        [1 + each for each in x],
        [1 + len(free) + each for each in many],
        [1 + len(free) + len(axes.batch) + each for each in out],
    )
    order = [*many, *x, *out] if call.kernel_operand == 1 else [*many, *out, *x]
    return transposed(graph, made, [0, *order])


def image_of_convolution(graph: Graph, call: LayerCall, x: Operand) -> Operand:
    """What a convolution reads, [B, …], as [images, channels, rows, …]."""
    batch = x.shape[0]
    spec = call.params["dimension_numbers"].lhs_spec
    x = transposed(graph, x, [0, *(1 + axis for axis in spec)])
    return reshaped(graph, x, [batch * x.shape[1], *x.shape[2:]])


def image_of_product(graph: Graph, call: LayerCall, x: Operand) -> Operand:
    """What a dense layer reads, [B, …]: the axes of its products, the places', the inputs'."""
    axes = _axes(call)
    order = [*(1 + axis for axis in axes.batch_x), 0, *(1 + axis for axis in axes.free_x)]
    return transposed(graph, x, [*order, *(1 + axis for axis in axes.of_x)])


def _convolution(
    graph: Graph,
    quantized: Quantized,
    call: LayerCall,
    arrays: Arrays,
    x: Operand,
    chosen: np.ndarray,
    bias: Operand | None,
    whole: bool,
) -> Ref:
    """Some neurons of a grouped convolution are groups of one, each with its own inputs."""
    groups = call.layer.groups
    x = image_of_convolution(graph, call, x)
    if groups > 1 and not whole:
        channels = arrays.kernel.shape[1]
        group = chosen * groups // call.layer.neurons
        read = (group[:, None] * channels + np.arange(channels)).reshape(-1)
        shape = [x.shape[0], len(read), *x.shape[2:]]
        x = graph.node("Gather", [x, read], shape, x.dtype, axis=1)
        groups = len(chosen)
    kernel = formats.kernel(graph, quantized.format, arrays.kernel[chosen], arrays.steps[chosen], 0)
    return convolved(graph, call.params, x, kernel, bias, groups=groups, name=call.layer.name)


def _dense(
    graph: Graph,
    quantized: Quantized,
    call: LayerCall,
    arrays: Arrays,
    x: Operand,
    chosen: np.ndarray,
    bias: Operand | None,
    whole: bool,
) -> Ref:
    axes, fmt, name = _axes(call), quantized.format, call.layer.name
    products, inputs, outputs = arrays.kernel.shape
    batch, places = x.shape[0], prod(_sizes(call.layer.input_shape, axes.free_x))
    x = image_of_product(graph, call, x)
    steps = arrays.steps[chosen]
    if products == 1:
        x = reshaped(graph, x, [batch * places, inputs])
        kernel = formats.kernel(graph, fmt, arrays.kernel[0][:, chosen], steps, 1)
        given = [x, kernel] if bias is None else [x, kernel, bias]
        made = graph.node("Gemm", given, [batch * places, len(chosen)], np.float32, name=name)
    else:
        x = reshaped(graph, x, [products, batch * places, inputs])
        own = arrays.kernel
        if not whole:  # each neuron is a product of its own
            which, column = np.divmod(chosen, outputs)
            shape = [len(chosen), *x.shape[1:]]
            x = graph.node("Gather", [x, which], shape, x.dtype, axis=0)
            own = own[which, :, column][:, :, None]
        kernel = formats.kernel(graph, fmt, own, steps, None)
        shape = [len(own), batch * places, own.shape[2]]
        made = graph.node("MatMul", [x, kernel], shape, np.float32, name=name)
        made = transposed(graph, made, [1, 0, 2])
        made = reshaped(graph, made, [batch * places, len(chosen)])
        if bias is not None:
            made = graph.node("Add", [made, bias], made.shape, np.float32)
    found = reshaped(graph, made, natural_shape(call, batch, len(chosen))[0])
    assert isinstance(found, Ref)
    return found


class _Axes(NamedTuple):
    """Of a matrix product: which axes of its image (x) and of its kernel play which part."""

    of_x: tuple[int, ...]
    batch_x: tuple[int, ...]
    free_x: tuple[int, ...]
    of: tuple[int, ...]
    batch: tuple[int, ...]
    free: tuple[int, ...]


def _axes(call: LayerCall) -> _Axes:
    contracting, batch = call.params["dimension_numbers"]
    kernel, image = call.kernel_operand, 1 - call.kernel_operand
    parts = []
    for side, shape in ((image, call.layer.input_shape), (kernel, call.layer.kernel_shape)):
        taken = (*contracting[side], *batch[side])
        free = tuple(axis for axis in range(len(shape)) if axis not in taken)
        parts += [tuple(contracting[side]), tuple(batch[side]), free]
    return _Axes(*parts)


def _laid_out(call: LayerCall, kernel: np.ndarray) -> np.ndarray:
    if call.layer.kind == "conv":
        return kernel.transpose(call.params["dimension_numbers"].rhs_spec)
    axes, shape = _axes(call), kernel.shape
    laid = kernel.transpose([*axes.batch, *axes.of, *axes.free])
    return laid.reshape([prod(_sizes(shape, each)) for each in (axes.batch, axes.of, axes.free)])


def _sizes(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    return [shape[axis] for axis in axes]
