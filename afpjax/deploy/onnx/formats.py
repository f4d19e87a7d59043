"""What layers read, in the number format that the network was evaluated in, as ONNX nodes.

8-bit fixed point: QuantizeLinear and DequantizeLinear around the image, int8 weights and int32
biases with DequantizeLinear, which integer kernels fuse. Other widths: float32 values on the grid,
whose products and sums are those of the codes. bfloat16: values cast there and back. Legend: C
neurons.
"""

import ml_dtypes
import numpy as np
import onnx
from jaxtyping import Float

from afpjax.deploy.onnx.graph import Graph, Operand, cast
from afpjax.network.fixed_point import QFormat

INTEGER_BITS = 8  # width of the fixed-point numbers that ONNX has integers for


def read_copy(graph: Graph, fmt: QFormat, x: Operand, step: np.float32) -> Operand:
    """A layer's input in the network's format: rounded half to even, saturating."""
    x = cast(graph, x, np.float32)
    if fmt.kind == "float32":
        return x
    if fmt.kind == "bfloat16":
        return cast(graph, cast(graph, x, ml_dtypes.bfloat16), np.float32)
    scale = np.asarray(step, np.float32)
    if fmt.bits == INTEGER_BITS:
        grid = [scale, np.zeros((), np.int8)]
        codes = graph.node("QuantizeLinear", [x, *grid], x.shape, np.int8)
        return graph.node("DequantizeLinear", [codes, *grid], x.shape, np.float32)
    codes = graph.node("Mul", [x, np.asarray(np.float32(1) / scale)], x.shape, np.float32)
    codes = graph.node("Round", [codes], x.shape, np.float32)
    limits = [np.array(limit, np.float32) for limit in (-fmt.largest - 1, fmt.largest)]
    codes = graph.node("Clip", [codes, *limits], x.shape, np.float32)
    return graph.node("Mul", [codes, scale], x.shape, np.float32)


def weights(
    graph: Graph,
    fmt: QFormat,
    codes: Float[np.ndarray, "..."],
    steps: Float[np.ndarray, "C"],
    axis: int | None,
) -> Operand:
    """Weights from their codes (the values, in float formats) and a step for every neuron.

    `axis` is the neurons' in `codes`; None: they lie along the first and the last together.
    """
    if fmt.kind == "bfloat16":
        narrow, to = codes.astype(ml_dtypes.bfloat16), onnx.TensorProto.FLOAT
        narrow = graph.parameter(narrow, "weight")
        return graph.node("Cast", [narrow], codes.shape, np.float32, to=to)
    if fmt.kind == "fixed" and fmt.bits == INTEGER_BITS and axis is not None:
        codes = graph.parameter(codes.astype(np.int8), "weight")
        return _dequantized(graph, codes, steps, axis)
    # A copy: the same array may be another device's, or another layer's.
    return graph.parameter(np.array(weight_values(fmt, codes, steps, axis)), "weight")


def weight_values(
    fmt: QFormat,
    codes: Float[np.ndarray, "..."],
    steps: Float[np.ndarray, "C"],
    axis: int | None,
) -> Float[np.ndarray, "..."]:
    """The numbers that the nodes of `weights` give."""
    if fmt.kind != "fixed":
        return codes
    if axis is None:
        return codes * steps.reshape(codes.shape[0], 1, codes.shape[-1])
    shape = [1] * codes.ndim
    shape[axis] = -1
    return codes * steps.reshape(shape)


def bias(
    graph: Graph, fmt: QFormat, values: Float[np.ndarray, "C"], grid: Float[np.ndarray, "C"]
) -> Operand:
    """A bias on the accumulator's grid, `grid` for every neuron."""
    if fmt.kind == "fixed" and fmt.bits == INTEGER_BITS:
        codes = _bias_codes(values, grid)
        if np.abs(codes).max(initial=0) < 2**31:
            codes = graph.parameter(codes.astype(np.int32), "bias")
            return _dequantized(graph, codes, grid, 0)
    return graph.parameter(np.array(bias_values(fmt, values, grid)), "bias")


def bias_values(
    fmt: QFormat, values: Float[np.ndarray, "C"], grid: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "C"]:
    """The numbers that the nodes of `bias` give."""
    return _bias_codes(values, grid) * grid if fmt.kind == "fixed" else values


def _bias_codes(
    values: Float[np.ndarray, "C"], grid: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "C"]:
    return np.round(values * (np.float32(1) / grid))


def _dequantized(graph: Graph, codes: np.ndarray, steps: np.ndarray, axis: int) -> Operand:
    if len(steps) and (steps == steps[0]).all():
        step = steps[:1].reshape(())
        return graph.node("DequantizeLinear", [codes, step], codes.shape, np.float32)
    return graph.node("DequantizeLinear", [codes, steps], codes.shape, np.float32, axis=axis)
