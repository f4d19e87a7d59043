"""Sums of a layer's neurons, as the spare device of coded distributed computing makes them.

A layer is linear in what it reads, so one filter, the sum of some neurons', gives their sum.
Neurons of different groups read different inputs: their filter spans all groups. Legend: C neurons,
S sums.
"""

from math import prod

import numpy as np
from jaxtyping import Bool, Float, Float32

from afpjax.deploy import formats
from afpjax.deploy.graph import Graph, Operand, cast, reshaped, transposed
from afpjax.deploy.layers import Arrays, image_of_convolution, image_of_product, natural_shape
from afpjax.deploy.windows import convolved
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized


def coded(
    graph: Graph,
    quantized: Quantized,
    call: LayerCall,
    arrays: Arrays,
    x: Operand,
    sums: Bool[np.ndarray, "S C"],
) -> Operand:
    """The natural tensor of S sums of neurons, from the tensor [B, …] that the layer reads.

    The image is read in the network's format; sums of weights are float32, for those of 8-bit codes
    do not fit 8 bits.
    """
    fmt, batch = quantized.format, x.shape[0]
    x = formats.image(graph, fmt, x, arrays.step)
    steps = arrays.steps
    bias = None
    if arrays.bias is not None:
        bias = _summed(sums, formats.on_grid(fmt, arrays.bias, steps * arrays.step))
    name = f"{call.layer.name}/sums"
    if call.layer.kind == "conv":
        kernel = _filters(call, formats.weights(fmt, arrays.kernel, steps, 0), sums)
        x = image_of_convolution(graph, call, x)
        made = convolved(graph, call.params, x, kernel, bias, groups=1, name=name)
        return cast(graph, made, call.dtype)
    products, inputs, _ = arrays.kernel.shape
    kernel = _columns(formats.weights(fmt, arrays.kernel, steps, None), sums)
    x = image_of_product(graph, call, x)
    x = reshaped(graph, x, [products, prod(x.shape) // (products * inputs), inputs])
    x = transposed(graph, x, [1, 0, 2])
    x = reshaped(graph, x, [x.shape[0], products * inputs])
    given = [x, kernel] if bias is None else [x, kernel, bias]
    made = graph.node("Gemm", given, [x.shape[0], len(sums)], np.float32, name=name)
    made = reshaped(graph, made, natural_shape(call, batch, len(sums))[0])
    return cast(graph, made, call.dtype)


def _filters(
    call: LayerCall, weights: Float[np.ndarray, "C channels ..."], sums: Bool[np.ndarray, "S C"]
) -> Float32[np.ndarray, "S inputs ..."]:
    """Of a convolution, over the channels of all groups."""
    groups, shape = call.layer.groups, weights.shape
    by_group = weights.reshape(groups, len(weights) // groups, -1).astype(np.float64)
    members = sums.reshape(len(sums), groups, -1).astype(np.float64)
    made = (members.transpose(1, 0, 2) @ by_group).transpose(1, 0, 2)  # [S, groups, …]
    return made.reshape(len(sums), groups * shape[1], *shape[2:]).astype(np.float32)


def _columns(
    weights: Float[np.ndarray, "products inputs outputs"], sums: Bool[np.ndarray, "S C"]
) -> Float32[np.ndarray, "columns S"]:
    """Of a matrix product, over the inputs of all products."""
    members = sums.reshape(len(sums), len(weights), -1).astype(np.float64)
    made = weights.astype(np.float64) @ members.transpose(1, 2, 0)  # [products, inputs, S]
    return made.reshape(-1, len(sums)).astype(np.float32)


def _summed(
    sums: Bool[np.ndarray, "S C"], values: Float[np.ndarray, "C"]
) -> Float32[np.ndarray, "S"]:
    return (sums.astype(np.float64) @ values.astype(np.float64)).astype(np.float32)
