"""Equations that move elements or reduce axes, as ONNX nodes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from afpjax.deploy.elementwise import Rule, output
from afpjax.deploy.graph import Graph, Operand, Ref, cast, reshaped, transposed
from afpjax.inputs.errors import InputError


def reshape(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    """Also squeeze."""
    if eqn.params.get("dimensions") is not None and eqn.primitive.name == "reshape":
        operands = [transposed(graph, operands[0], eqn.params["dimensions"])]
    return reshaped(graph, operands[0], output(eqn)[0])


def transpose(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return transposed(graph, operands[0], eqn.params["permutation"])


def broadcast(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    (shape, dtype), x = output(eqn), operands[0]
    ones = [1] * len(shape)
    for axis, size in zip(eqn.params["broadcast_dimensions"], x.shape, strict=True):
        ones[axis] = size
    x = reshaped(graph, x, ones)
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, shape)  # takes no memory
    if tuple(ones) == shape:
        return x
    return graph.node("Expand", [x, np.array(shape, np.int64)], shape, dtype)


def concatenate(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return graph.node("Concat", operands, *output(eqn), axis=eqn.params["dimension"])


def split(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
    x, axis, parts, start = operands[0], eqn.params["axis"], [], 0
    for size in eqn.params["sizes"]:
        ranges = [range(each) for each in x.shape]
        ranges[axis] = range(start, start + size)
        parts.append(sliced(graph, x, ranges))
        start += size
    return parts


def slice_(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    given = eqn.params
    steps = given["strides"] or (1,) * len(given["start_indices"])
    bounds = zip(given["start_indices"], given["limit_indices"], steps, strict=True)
    return sliced(graph, operands[0], [range(*map(int, each)) for each in bounds])


def rev(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    turned = [range(size) for size in operands[0].shape]
    for axis in eqn.params["dimensions"]:
        turned[axis] = turned[axis][::-1]
    return sliced(graph, operands[0], turned)


def sliced(graph: Graph, x: Operand, ranges: Sequence[range]) -> Operand:
    """The places of `ranges` along every axis."""
    if isinstance(x, np.ndarray):
        for axis, each in enumerate(ranges):
            x = np.take(x, np.array(each, np.int64), axis=axis)
        return x
    axes = [axis for axis, each in enumerate(ranges) if each != range(x.shape[axis])]
    if not axes:
        return x
    starts, ends, steps = (
        np.array([getattr(ranges[axis], name) for axis in axes], np.int64)
        for name in ("start", "stop", "step")
    )
    ends = np.where((steps < 0) & (ends < 0), np.iinfo(np.int64).min, ends)  # -1 means the last
    shape = [len(each) for each in ranges]
    inputs = [x, starts, ends, np.array(axes, np.int64), steps]
    return graph.node("Slice", inputs, shape, x.dtype)


def pad(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    x, value = operands
    if isinstance(value, Ref):
        raise refusal(graph, eqn, "with a value that depends on the image")
    # A network's own sizes may be NumPy's integers.
    config = [
        (int(low), int(high), int(inside)) for low, high, inside in eqn.params["padding_config"]
    ]
    return padded(graph, x, np.asarray(value, x.dtype), config)


def padded(
    graph: Graph, x: Operand, value: np.ndarray, config: Sequence[tuple[int, int, int]]
) -> Operand:
    """`value` between the elements of each axis (interior) and around them; negative: cut off."""
    for axis, (_, _, inside) in enumerate(config):
        x = _apart(graph, x, value, axis, inside)
    low, high = ([max(each[end], 0) for each in config] for end in (0, 1))
    if any(low) or any(high):
        shape = [a + size + b for a, size, b in zip(low, x.shape, high, strict=True)]
        widths = np.array([*low, *high], np.int64)
        x = graph.node("Pad", [x, widths, value.reshape(())], shape, x.dtype)
    ends = [(max(-a, 0), max(-b, 0)) for a, b, _ in config]
    pairs = zip(ends, x.shape, strict=True)
    return sliced(graph, x, [range(start, size - stop) for (start, stop), size in pairs])


def _apart(graph: Graph, x: Operand, value: np.ndarray, axis: int, inside: int) -> Operand:
    """`inside` copies of `value` between every two elements of an axis."""
    if inside == 0 or x.shape[axis] < 2:
        return x
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    x = reshaped(graph, x, [*before, size, 1, *after])
    config = [(0, 0, 0)] * (axis + 1) + [(0, inside, 0)] + [(0, 0, 0)] * len(after)
    x = padded(graph, x, value, config)
    x = reshaped(graph, x, [*before, size * (inside + 1), *after])
    ranges = [range(each) for each in x.shape]
    ranges[axis] = range(x.shape[axis] - inside)
    return sliced(graph, x, ranges)


def reduced(op: str, *, by: Any = None) -> Rule:
    """A reduction over axes; `by` is the dtype that it is worked out in, if not its own."""

    def rule(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
        (shape, dtype), axes = output(eqn), eqn.params["axes"]
        if not axes:
            return operands[0]
        x = cast(graph, operands[0], by or dtype)
        axes = np.array(axes, np.int64)
        return cast(graph, graph.node(op, [x, axes], shape, by or dtype, keepdims=0), dtype)

    return rule


def arg(op: str) -> Rule:
    """The place of the extreme, the first where there are several."""

    def rule(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
        (shape, dtype), (axis,) = output(eqn), eqn.params["axes"]
        made = graph.node(op, [operands[0]], shape, np.int64, axis=axis, keepdims=0)
        return cast(graph, made, dtype)

    return rule


def cumsum(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    axis, reverse = np.array(eqn.params["axis"], np.int64), int(eqn.params["reverse"])
    return graph.node("CumSum", [operands[0], axis], *output(eqn), reverse=reverse)


def gather(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    x, places = operands
    if isinstance(places, np.ndarray):
        return _known_places(graph, eqn, x, places)
    return _rows(graph, eqn, x, places)


def _known_places(graph: Graph, eqn: core.JaxprEqn, x: Operand, places: np.ndarray) -> Operand:
    """Which element goes where follows from gathering the elements' own numbers."""
    shape, dtype = output(eqn)
    numbers = np.arange(x.size if isinstance(x, np.ndarray) else int(np.prod(x.shape)))
    params = {**eqn.params, "fill_value": -1}
    given = jax.numpy.asarray(numbers.reshape(x.shape), np.int32)
    whence = np.asarray(eqn.primitive.bind(given, jax.numpy.asarray(places), **params), np.int64)
    flat = reshaped(graph, x, [numbers.size])
    made = graph.node("Gather", [flat, np.maximum(whence, 0)], shape, dtype, axis=0)
    if (whence >= 0).all():
        return made
    fill = eqn.params.get("fill_value")
    fill = (np.nan if dtype.kind == "f" else np.iinfo(dtype).min) if fill is None else fill
    return graph.node("Where", [whence >= 0, made, np.array(fill, dtype)], shape, dtype)


def _rows(graph: Graph, eqn: core.JaxprEqn, x: Operand, places: Ref) -> Operand:
    """Whole slices along one axis, as an embedding's rows."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    (shape, dtype), index = output(eqn), numbers.start_index_map
    whole = len(index) == 1 and [*sizes] == [
        1 if axis in index else size for axis, size in enumerate(x.shape)
    ]
    axis = index[0] if index else 0
    batch = len(places.shape) - 1
    usual = tuple(a for a in range(len(shape)) if not axis <= a < axis + batch)
    if not whole or numbers.collapsed_slice_dims != index or numbers.offset_dims != usual:
        raise refusal(graph, eqn, "at places that depend on the image, but for whole rows")
    rows = reshaped(graph, places, places.shape[:-1])
    rows = cast(graph, rows, np.int64)
    top = np.array(x.shape[axis] - 1, np.int64)
    rows = graph.node("Max", [rows, np.array(0, np.int64)], rows.shape, np.int64)
    rows = graph.node("Min", [rows, top], rows.shape, np.int64)
    return graph.node("Gather", [x, rows], shape, dtype, axis=axis)


def refusal(graph: Graph, eqn: core.JaxprEqn, how: str) -> InputError:
    """What cannot be exported, near which layer."""
    return InputError(
        f"export: `{eqn.primitive.name}` {how} (near {graph.at}) has no counterpart among the "
        "ONNX operators that afpjax writes; write that part of the network otherwise"
    )


SHAPING: dict[str, Rule] = {
    "reshape": reshape,
    "squeeze": reshape,
    "transpose": transpose,
    "broadcast_in_dim": broadcast,
    "concatenate": concatenate,
    "split": split,
    "slice": slice_,
    "rev": rev,
    "pad": pad,
    "gather": gather,
    "cumsum": cumsum,
    "reduce_sum": reduced("ReduceSum"),
    "reduce_max": reduced("ReduceMax"),
    "reduce_min": reduced("ReduceMin"),
    "reduce_prod": reduced("ReduceProd"),
    "reduce_or": reduced("ReduceMax", by=np.int32),
    "reduce_and": reduced("ReduceMin", by=np.int32),
    "argmax": arg("ArgMax"),
    "argmin": arg("ArgMin"),
}
