"""Pooling, convolutions and matrix products, as ONNX nodes."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from afpjax.deploy.onnx.elementwise import Conversion, Rule
from afpjax.deploy.onnx.graph import Graph, GraphTensor, Operand, cast, reshaped, transposed
from afpjax.deploy.onnx.shaping import padded


class AxisWindow(NamedTuple):
    """What slides over one axis."""

    size: int
    stride: int
    low: int  # padding
    high: int
    base_dilation: int  # elements from one of the image to the next: 1 without dilation
    dilation: int

    @property
    def slides(self) -> bool:
        return self[:5] != (1, 1, 0, 0, 1)

    def positions(self, pixels: int) -> int:
        """How many there are for it along an axis."""
        padded_size = (pixels - 1) * self.base_dilation + 1 + self.low + self.high
        extent = (self.size - 1) * self.dilation + 1
        return (padded_size - extent) // self.stride + 1


def windows_of(
    sizes: Sequence[int],
    params: Mapping[str, Any],
    base: str = "base_dilation",
    window: str = "window_dilation",
) -> list[AxisWindow]:
    """The windows of an equation's parameters; `base` and `window` are what dilations are called"""
    ones = (1,) * len(sizes)
    axes = zip(
        sizes,
        params["window_strides"],
        params["padding"],
        params.get(base) or ones,
        params.get(window) or ones,
        strict=True,
    )
    return [
        AxisWindow(*map(int, (size, stride, *padding, base_dilation, dilation)))
        for size, stride, padding, base_dilation, dilation in axes
    ]


def _minimum(to: Conversion, x: Operand, *_: Operand) -> Operand:
    negative = to.graph.node("Neg", [x], x.shape, x.dtype)
    return to.node("Neg", _pooled(to, negative, _max_pool))


def _reduce_window(to: Conversion, x: Operand, initial: Operand) -> Operand:
    """A reduction that JAX did not recognise, because of what it begins with."""
    names = [eqn.primitive.name for eqn in to.params["jaxpr"].eqns]
    if isinstance(initial, GraphTensor) or len(names) != 1:
        raise to.refusal("with a function of its own")
    initial = np.asarray(initial)
    if names == ["max"]:
        return to.node("Max", _pooled(to, x, _max_pool), initial)
    if names == ["min"]:
        return to.node("Min", _minimum(to, x), initial)
    if names == ["add"] and not initial.any():
        return _pooled(to, x, _sum_pool)
    raise to.refusal("with a function of its own")


def _pooled(to: Conversion, x: Operand, pool: Any) -> Operand:
    """Windowed axes last, the others as images and channels; nothing else slides."""
    graph, windows = to.graph, windows_of(to.params["window_dimensions"], to.params)
    axes = [axis for axis, window in enumerate(windows) if window.slides]
    if not axes:
        return x
    if len(axes) > 3:
        raise to.refusal("over more than three axes")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    kept = [x.shape[axis] for axis in rest]
    laid_out = transposed(graph, x, [*rest, *axes])
    leading = [kept[0] if kept else 1, prod(kept[1:])]
    laid_out = reshaped(graph, laid_out, [*leading, *(x.shape[axis] for axis in axes)])
    result = pool(graph, laid_out, [windows[axis] for axis in axes])
    result = reshaped(graph, result, [*kept, *result.shape[2:]])
    order = np.argsort([*rest, *axes])
    return cast(graph, transposed(graph, result, order.tolist()), to.dtype)


def _max_pool(graph: Graph, x: Operand, windows: Sequence[AxisWindow]) -> Operand:
    """Integers pass through float32, which holds them up to 2^24."""
    x = cast(graph, x, np.float32)
    x, windows = _prepadded(graph, x, windows, np.array(-np.inf, np.float32))
    shape = _output_shape(x, x.shape[1], windows)
    return graph.node("MaxPool", [x], shape, x.dtype, **_attributes(windows))


def _sum_pool(graph: Graph, x: Operand, windows: Sequence[AxisWindow]) -> Operand:
    """The whole image's sum as one, others as an average times its count."""
    axes = range(2, 2 + len(windows))
    if all(
        window[2:] == (0, 0, 1, 1) and x.shape[axis] == window.size
        for axis, window in zip(axes, windows, strict=True)
    ):
        shape = [*x.shape[:2], *[1] * len(windows)]
        return graph.node("ReduceSum", [x, np.array(axes, np.int64)], shape, x.dtype, keepdims=1)
    x = cast(graph, x, np.float32)
    x, windows = _prepadded(graph, x, windows, np.zeros((), np.float32))
    sizes = [window.size for window in windows]
    if any(window.dilation > 1 for window in windows):
        ones = np.ones((x.shape[1], 1, *sizes), np.float32)
        return _conv(graph, x, ones, None, windows, x.shape[1])
    shape, attributes = _output_shape(x, x.shape[1], windows), _attributes(windows)
    del attributes["dilations"]
    mean = graph.node("AveragePool", [x], shape, x.dtype, **attributes, count_include_pad=1)
    return graph.node("Mul", [mean, np.array(prod(sizes), np.float32)], shape, x.dtype)


def _prepadded(
    graph: Graph, x: Operand, windows: Sequence[AxisWindow], value: np.ndarray
) -> tuple[Operand, list[AxisWindow]]:
    """Dilate the image and pad it where ONNX's operators cannot: padding that is negative, or as
    wide as its window. With the windows over what comes out."""
    config: list[tuple[int, int, int]] = [(0, 0, 0)] * 2
    remaining = []
    for window in windows:
        within = all(0 <= padding < window.size for padding in (window.low, window.high))
        if within and window.base_dilation == 1:
            config.append((0, 0, 0))
            remaining.append(window)
        else:
            config.append((window.low, window.high, window.base_dilation - 1))
            remaining.append(window._replace(low=0, high=0, base_dilation=1))
    return padded(graph, x, value, config), remaining


def _output_shape(x: Operand, channels: int, windows: Sequence[AxisWindow]) -> list[int]:
    spatial = zip(windows, x.shape[2:], strict=True)
    return [x.shape[0], channels, *(window.positions(size) for window, size in spatial)]


def _attributes(windows: Sequence[AxisWindow]) -> dict[str, Any]:
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
    windows: Sequence[AxisWindow],
    groups: int,
    name: str = "",
) -> GraphTensor:
    shape, attributes = _output_shape(x, kernel.shape[0], windows), _attributes(windows)
    inputs = [x, kernel, bias]
    return graph.node("Conv", inputs, shape, np.float32, name=name, group=groups, **attributes)


def convolved(
    graph: Graph,
    params: Mapping[str, Any],
    x: Operand,
    kernel: Operand,
    bias: Operand | None = None,
    *,
    groups: int,
    name: str = "",
) -> GraphTensor:
    """A convolution of x [N, channels, …] and kernel [neurons, channels/groups, …], as its
    equation's parameters slide it."""
    windows = windows_of(kernel.shape[2:], params, "lhs_dilation", "rhs_dilation")
    x, windows = _prepadded(graph, x, windows, np.zeros((), np.float32))
    return _conv(graph, x, kernel, bias, windows, groups, name)


def _convolution(to: Conversion, x: Operand, kernel: Operand) -> Operand:
    """One between layers: of two tensors that both depend on the image."""
    numbers, groups = to.params["dimension_numbers"], to.params["feature_group_count"]
    if to.params["batch_group_count"] != 1:
        raise to.refusal("with groups of images")
    x = transposed(to.graph, x, numbers.lhs_spec)
    kernel = transposed(to.graph, kernel, numbers.rhs_spec)
    result = convolved(to.graph, to.params, x, kernel, groups=groups)
    return transposed(to.graph, result, np.argsort(numbers.out_spec).tolist())


def _product(to: Conversion, x: Operand, y: Operand) -> Operand:
    """A matrix product between layers."""
    graph, dtype = to.graph, to.dtype
    (of_x, of_y), (batch_x, batch_y) = to.params["dimension_numbers"]
    free_x = [a for a in range(len(x.shape)) if a not in (*of_x, *batch_x)]
    free_y = [a for a in range(len(y.shape)) if a not in (*of_y, *batch_y)]
    batch = [x.shape[axis] for axis in batch_x]
    inner = prod(x.shape[axis] for axis in of_x)
    rows, columns = (prod(o.shape[a] for a in f) for o, f in ((x, free_x), (y, free_y)))
    x = transposed(graph, x, [*batch_x, *free_x, *of_x])
    y = transposed(graph, y, [*batch_y, *of_y, *free_y])
    x = reshaped(graph, cast(graph, x, dtype), [*batch, rows, inner])
    y = reshaped(graph, cast(graph, y, dtype), [*batch, inner, columns])
    result = graph.node("MatMul", [x, y], [*batch, rows, columns], dtype)
    return reshaped(graph, result, to.shape)


WINDOWS: dict[str, Rule] = {
    "reduce_window_max": lambda to, x: _pooled(to, x, _max_pool),
    "reduce_window_min": _minimum,
    "reduce_window_sum": lambda to, x: _pooled(to, x, _sum_pool),
    "reduce_window": _reduce_window,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
}
