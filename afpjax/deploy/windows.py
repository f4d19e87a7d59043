"""Pooling, convolutions and matrix products, as ONNX nodes."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from afpjax.deploy.elementwise import Rule, output
from afpjax.deploy.graph import Graph, Operand, Ref, cast, reshaped, transposed
from afpjax.deploy.shaping import padded, refusal


class Window(NamedTuple):
    """What slides over one axis."""

    size: int
    stride: int
    low: int  # padding
    high: int
    apart: int  # pixels from one of the image to the next: 1 without dilation
    dilation: int

    @property
    def extent(self) -> int:
        return (self.size - 1) * self.dilation + 1

    @property
    def idle(self) -> bool:
        return self[:5] == (1, 1, 0, 0, 1)

    def slides(self, pixels: int) -> int:
        """Places where it comes to lie."""
        over = (pixels - 1) * self.apart + 1 + self.low + self.high
        return (over - self.extent) // self.stride + 1


def maximum(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return _pooled(graph, eqn, operands[0], "MaxPool")


def minimum(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    (shape, dtype), x = output(eqn), operands[0]
    negative = graph.node("Neg", [x], x.shape, x.dtype)
    return graph.node("Neg", [_pooled(graph, eqn, negative, "MaxPool")], shape, dtype)


def total(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return _pooled(graph, eqn, operands[0], "Sum")


def general(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    """A reduction that jax did not recognise, because of what it begins with."""
    inner, (x, begin) = eqn.params["jaxpr"], operands
    steps = [each.primitive.name for each in inner.eqns]
    if isinstance(begin, Ref) or len(steps) != 1:
        raise refusal(graph, eqn, "with a function of its own")
    (shape, dtype), begin = output(eqn), np.asarray(begin)
    if steps == ["max"]:
        return graph.node("Max", [_pooled(graph, eqn, x, "MaxPool"), begin], shape, dtype)
    if steps == ["min"]:
        made = minimum(graph, eqn, [x])
        return graph.node("Min", [made, begin], shape, dtype)
    if steps == ["add"] and not begin.any():
        return _pooled(graph, eqn, x, "Sum")
    raise refusal(graph, eqn, "with a function of its own")


def _pooled(graph: Graph, eqn: core.JaxprEqn, x: Operand, op: str) -> Operand:
    """Windowed axes last, the others as images and channels; nothing else slides."""
    windows = _windows(eqn, len(x.shape))
    axes = [axis for axis, window in enumerate(windows) if not window.idle]
    if not axes:
        return x
    if len(axes) > 3:
        raise refusal(graph, eqn, "over more than three axes")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    kept = [x.shape[axis] for axis in rest]
    laid = transposed(graph, x, [*rest, *axes])
    sizes = [kept[0] if kept else 1, prod(kept[1:])]
    laid = reshaped(graph, laid, [*sizes, *(x.shape[axis] for axis in axes)])
    pool = _max_pool if op == "MaxPool" else _sum_pool
    made = pool(graph, laid, [windows[axis] for axis in axes])
    made = reshaped(graph, made, [*kept, *made.shape[2:]])
    order = np.argsort([*rest, *axes])
    return cast(graph, transposed(graph, made, order.tolist()), output(eqn)[1])


def _windows(eqn: core.JaxprEqn, ndim: int) -> list[Window]:
    given, ones = eqn.params, (1,) * ndim
    parts = zip(
        given["window_dimensions"],
        given["window_strides"],
        given["padding"],
        given.get("base_dilation") or ones,
        given.get("window_dilation") or ones,
        strict=True,
    )
    return [
        Window(*map(int, (size, step, *ends, apart, dilation)))
        for size, step, ends, apart, dilation in parts
    ]


def _max_pool(graph: Graph, x: Operand, windows: Sequence[Window]) -> Operand:
    """Integers pass through float32, which holds them up to 2^24."""
    x = cast(graph, x, np.float32)
    x, windows = _prepared(graph, x, windows, np.array(-np.inf, np.float32))
    given: dict[str, Any] = dict(_sliding(windows))
    return graph.node("MaxPool", [x], _made(x, x.shape[1], windows), x.dtype, **given)


def _sum_pool(graph: Graph, x: Operand, windows: Sequence[Window]) -> Operand:
    """The whole image's sum as one, others as an average times its count."""
    axes = range(2, 2 + len(windows))
    if all(
        w[2:] == (0, 0, 1, 1) and x.shape[a] == w.size for a, w in zip(axes, windows, strict=True)
    ):
        shape = [*x.shape[:2], *[1] * len(windows)]
        return graph.node("ReduceSum", [x, np.array(axes, np.int64)], shape, x.dtype, keepdims=1)
    x = cast(graph, x, np.float32)
    x, windows = _prepared(graph, x, windows, np.zeros((), np.float32))
    if any(window.dilation > 1 for window in windows):
        channels = x.shape[1]
        ones = np.ones((channels, 1, *(window.size for window in windows)), np.float32)
        return _conv(graph, x, ones, None, windows, channels)
    shape = _made(x, x.shape[1], windows)
    given: dict[str, Any] = {**_sliding(windows), "count_include_pad": 1}
    del given["dilations"]
    mean = graph.node("AveragePool", [x], shape, x.dtype, **given)
    count = np.array(prod(window.size for window in windows), np.float32)
    return graph.node("Mul", [mean, count], shape, x.dtype)


def _prepared(
    graph: Graph, x: Operand, windows: Sequence[Window], value: np.ndarray
) -> tuple[Operand, list[Window]]:
    """Dilated images, negative padding and padding beyond a window, made beforehand."""
    config: list[tuple[int, int, int]] = [(0, 0, 0)] * 2
    left = []
    for window in windows:
        usual = all(0 <= each < window.size for each in (window.low, window.high))
        ahead = (0, 0) if usual and window.apart == 1 else (window.low, window.high)
        config.append((ahead[0], ahead[1], window.apart - 1))
        low, high = window.low - ahead[0], window.high - ahead[1]
        left.append(window._replace(low=low, high=high, apart=1))
    return padded(graph, x, value, config), left


def _made(x: Operand, channels: int, windows: Sequence[Window]) -> list[int]:
    spatial = zip(windows, x.shape[2:], strict=True)
    return [x.shape[0], channels, *(window.slides(size) for window, size in spatial)]


def _sliding(windows: Sequence[Window]) -> dict[str, list[int]]:
    return {
        "kernel_shape": [window.size for window in windows],
        "strides": [window.stride for window in windows],
        "pads": [*(window.low for window in windows), *(window.high for window in windows)],
        "dilations": [window.dilation for window in windows],
    }


def _conv(
    graph: Graph,
    x: Operand,
    kernel: Operand,
    bias: Operand | None,
    windows: Sequence[Window],
    groups: int,
    name: str = "",
) -> Ref:
    inputs = [x, kernel] if bias is None else [x, kernel, bias]
    shape = _made(x, kernel.shape[0], windows)
    given: dict[str, Any] = {"group": groups, **_sliding(windows)}
    return graph.node("Conv", inputs, shape, np.float32, name=name, **given)


def convolved(
    graph: Graph,
    params: dict[str, Any],
    x: Operand,
    kernel: Operand,
    bias: Operand | None = None,
    *,
    groups: int,
    name: str = "",
) -> Ref:
    """A convolution of x [N, channels, …] and kernel [neurons, channels/groups, …], as its
    equation's parameters slide it."""
    windows = [
        Window(*map(int, (size, stride, *ends, apart, dilation)))
        for size, stride, ends, apart, dilation in zip(
            kernel.shape[2:],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    ]
    x, windows = _prepared(graph, x, windows, np.zeros((), np.float32))
    return _conv(graph, x, kernel, bias, windows, groups, name)


def convolution(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    """One between layers: of two tensors that both depend on the image."""
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    if eqn.params["batch_group_count"] != 1:
        raise refusal(graph, eqn, "with groups of images")
    x = transposed(graph, operands[0], numbers.lhs_spec)
    kernel = transposed(graph, operands[1], numbers.rhs_spec)
    made = convolved(graph, eqn.params, x, kernel, groups=groups)
    return transposed(graph, made, np.argsort(numbers.out_spec).tolist())


def product(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    """A matrix product between layers."""
    (shape, dtype), (x, y) = output(eqn), operands
    (of_x, of_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    free_x = [a for a in range(len(x.shape)) if a not in (*of_x, *batch_x)]
    free_y = [a for a in range(len(y.shape)) if a not in (*of_y, *batch_y)]
    many = [x.shape[axis] for axis in batch_x]
    inner = prod(x.shape[axis] for axis in of_x)
    rows, columns = (prod(o.shape[a] for a in f) for o, f in ((x, free_x), (y, free_y)))
    x = transposed(graph, x, [*batch_x, *free_x, *of_x])
    y = transposed(graph, y, [*batch_y, *of_y, *free_y])
    x = reshaped(graph, cast(graph, x, dtype), [*many, rows, inner])
    y = reshaped(graph, cast(graph, y, dtype), [*many, inner, columns])
    made = graph.node("MatMul", [x, y], [*many, rows, columns], dtype)
    return reshaped(graph, made, shape)


WINDOWS: dict[str, Rule] = {
    "reduce_window_max": maximum,
    "reduce_window_min": minimum,
    "reduce_window_sum": total,
    "reduce_window": general,
    "conv_general_dilated": convolution,
    "dot_general": product,
}
