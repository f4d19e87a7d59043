"""Equations that move elements or reduce axes, as ONNX nodes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from afpjax.deploy.onnx.elementwise import Conversion, Rule
from afpjax.deploy.onnx.graph import Graph, GraphTensor, Operand, cast, reshaped, transposed


def _reshape(to: Conversion, x: Operand) -> Operand:
    """Also squeeze, whose `dimensions` are other ones."""
    if to.params.get("dimensions") is not None and to.eqn.primitive.name == "reshape":
        x = transposed(to.graph, x, to.params["dimensions"])
    return reshaped(to.graph, x, to.shape)


def _broadcast(to: Conversion, x: Operand) -> Operand:
    ones = [1] * len(to.shape)
    for axis, size in zip(to.params["broadcast_dimensions"], x.shape, strict=True):
        ones[axis] = size
    x = reshaped(to.graph, x, ones)
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, to.shape)  # takes no memory
    if tuple(ones) == to.shape:
        return x
    return to.node("Expand", x, np.array(to.shape, np.int64))


def _concatenate(to: Conversion, *operands: Operand) -> Operand:
    axis = to.params["dimension"]
    return to.graph.node("Concat", operands, to.shape, to.dtype, axis=axis)


def _split(to: Conversion, x: Operand) -> list[Operand]:
    axis, parts, start = to.params["axis"], [], 0
    for size in to.params["sizes"]:
        ranges = [range(length) for length in x.shape]
        ranges[axis] = range(start, start + size)
        parts.append(sliced(to.graph, x, ranges))
        start += size
    return parts


def _slice(to: Conversion, x: Operand) -> Operand:
    starts, limits = to.params["start_indices"], to.params["limit_indices"]
    steps = to.params["strides"] or (1,) * len(starts)
    bounds = zip(starts, limits, steps, strict=True)
    return sliced(to.graph, x, [range(*map(int, axis_bounds)) for axis_bounds in bounds])


def _reverse(to: Conversion, x: Operand) -> Operand:
    ranges = [range(size) for size in x.shape]
    for axis in to.params["dimensions"]:
        ranges[axis] = ranges[axis][::-1]
    return sliced(to.graph, x, ranges)


def sliced(graph: Graph, x: Operand, ranges: Sequence[range]) -> Operand:
    """The indices of `ranges` along every axis."""
    if isinstance(x, np.ndarray):
        for axis, indices in enumerate(ranges):
            x = np.take(x, np.array(indices, np.int64), axis=axis)
        return x
    axes = [axis for axis, indices in enumerate(ranges) if indices != range(x.shape[axis])]
    if not axes:
        return x
    starts, ends, steps = (
        np.array([getattr(ranges[axis], name) for axis in axes], np.int64)
        for name in ("start", "stop", "step")
    )
    ends = np.where((steps < 0) & (ends < 0), np.iinfo(np.int64).min, ends)  # -1 means the last
    inputs = [x, starts, ends, np.array(axes, np.int64), steps]
    return graph.node("Slice", inputs, [len(indices) for indices in ranges], x.dtype)


def _pad(to: Conversion, x: Operand, value: Operand) -> Operand:
    if isinstance(value, GraphTensor):
        raise to.refusal("with a value that depends on the image")
    # A network's own sizes may be NumPy's integers.
    config = [tuple(map(int, widths)) for widths in to.params["padding_config"]]
    return padded(to.graph, x, np.asarray(value, x.dtype), config)


def padded(graph: Graph, x: Operand, value: np.ndarray, config: Sequence[Sequence[int]]) -> Operand:
    """`value` around the elements of each axis and between them, as `config` has it for every axis:
    (low, high, interior); negative: cut off."""
    for axis, (_, _, interior) in enumerate(config):
        x = _spread(graph, x, value, axis, interior)
    low, high = ([max(widths[end], 0) for widths in config] for end in (0, 1))
    if any(low) or any(high):
        shape = [a + size + b for a, size, b in zip(low, x.shape, high, strict=True)]
        widths = np.array([*low, *high], np.int64)
        x = graph.node("Pad", [x, widths, value.reshape(())], shape, x.dtype)
    ends = [(max(-a, 0), max(-b, 0)) for a, b, _ in config]
    pairs = zip(ends, x.shape, strict=True)
    return sliced(graph, x, [range(start, size - stop) for (start, stop), size in pairs])


def _spread(graph: Graph, x: Operand, value: np.ndarray, axis: int, interior: int) -> Operand:
    """`interior` copies of `value` between every two elements of an axis."""
    if interior == 0 or x.shape[axis] < 2:
        return x
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    x = reshaped(graph, x, [*before, size, 1, *after])
    config = [(0, 0, 0)] * (axis + 1) + [(0, interior, 0)] + [(0, 0, 0)] * len(after)
    x = padded(graph, x, value, config)
    x = reshaped(graph, x, [*before, size * (interior + 1), *after])
    ranges = [range(length) for length in x.shape]
    ranges[axis] = range(x.shape[axis] - interior)
    return sliced(graph, x, ranges)


def _reduction(op: str, *, computed_in: Any = None) -> Rule:
    """A reduction over axes, in the dtype `computed_in` if that is not its own."""

    def rule(to: Conversion, x: Operand) -> Operand:
        if not to.params["axes"]:
            return x
        dtype = computed_in or to.dtype
        inputs = [cast(to.graph, x, dtype), np.array(to.params["axes"], np.int64)]
        return cast(to.graph, to.graph.node(op, inputs, to.shape, dtype, keepdims=0), to.dtype)

    return rule


def _index_of(op: str) -> Rule:
    """The index of the extreme, the first where there are several."""

    def rule(to: Conversion, x: Operand) -> Operand:
        (axis,) = to.params["axes"]
        index = to.graph.node(op, [x], to.shape, np.int64, axis=axis, keepdims=0)
        return cast(to.graph, index, to.dtype)

    return rule


def _cumsum(to: Conversion, x: Operand) -> Operand:
    axis = np.array(to.params["axis"], np.int64)
    return to.node("CumSum", x, axis, reverse=int(to.params["reverse"]))


def _gather(to: Conversion, x: Operand, indices: Operand) -> Operand:
    if isinstance(indices, np.ndarray):
        return _gather_known(to, x, indices)
    return _gather_rows(to, x, indices)


def _gather_known(to: Conversion, x: Operand, indices: np.ndarray) -> Operand:
    """Which element goes where follows from gathering the elements' own numbers."""
    numbers = np.arange(int(np.prod(x.shape)))
    origins = to.eqn.primitive.bind(
        jax.numpy.asarray(numbers.reshape(x.shape), np.int32),
        jax.numpy.asarray(indices),
        **{**to.params, "fill_value": -1},
    )
    origins = np.asarray(origins, np.int64)
    flat = reshaped(to.graph, x, [numbers.size])
    inputs = [flat, np.maximum(origins, 0)]
    gathered = to.graph.node("Gather", inputs, to.shape, to.dtype, axis=0)
    if (origins >= 0).all():
        return gathered
    fill = to.params.get("fill_value")
    if fill is None:
        fill = np.nan if to.dtype.kind == "f" else np.iinfo(to.dtype).min
    inputs = [origins >= 0, gathered, to.constant(fill)]
    return to.graph.node("Where", inputs, to.shape, to.dtype)


def _gather_rows(to: Conversion, x: Operand, indices: GraphTensor) -> Operand:
    """Whole slices along one axis, as an embedding's rows."""
    numbers, graph = to.params["dimension_numbers"], to.graph
    index = numbers.start_index_map
    whole = len(index) == 1 and [*to.params["slice_sizes"]] == [
        1 if axis in index else size for axis, size in enumerate(x.shape)
    ]
    axis = index[0] if index else 0
    batch = len(indices.shape) - 1
    usual = tuple(a for a in range(len(to.shape)) if not axis <= a < axis + batch)
    if not whole or numbers.collapsed_slice_dims != index or numbers.offset_dims != usual:
        raise to.refusal("at places that depend on the image, but for whole rows")
    rows = cast(graph, reshaped(graph, indices, indices.shape[:-1]), np.int64)
    last = np.array(x.shape[axis] - 1, np.int64)
    rows = graph.node("Max", [rows, np.array(0, np.int64)], rows.shape, np.int64)
    rows = graph.node("Min", [rows, last], rows.shape, np.int64)
    return graph.node("Gather", [x, rows], to.shape, to.dtype, axis=axis)


SHAPING: dict[str, Rule] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "transpose": lambda to, x: transposed(to.graph, x, to.params["permutation"]),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "gather": _gather,
    "cumsum": _cumsum,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_or": _reduction("ReduceMax", computed_in=np.int32),
    "reduce_and": _reduction("ReduceMin", computed_in=np.int32),
    "argmax": _index_of("ArgMax"),
    "argmin": _index_of("ArgMin"),
}
