"""Fold per-channel affine equations (bias, inference-time batch norm) into their layer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from afpjax.errors import InputError
from afpjax.network.program import (
    Equation,
    LayerCall,
    LayerParameters,
    Operand,
    Value,
    reads,
)

Step = Equation | LayerCall


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused by its layer's name
def fold(
    steps: Sequence[Step], values: dict[Value, Any], output: Operand
) -> tuple[list[Step], dict[str, LayerParameters], Operand]:
    """Replace `layer, then y·s + t` by one layer, for as long as only that equation reads y.

    `values` are the arrays that do not depend on the image. With scale s and shift t per channel,
    the folded kernel is s·W and the folded bias s·b + t, computed in float64 and stored in float32.
    A transpose or a change of floating-point dtype in between stays in the program, after the
    layer. Returns the steps, the layers' arrays by name, and the output, which may have been an
    absorbed equation's. Raises `InputError` where a folded layer is not finite.
    """
    readers: Counter[Operand] = Counter(value for step in steps for value in reads(step))
    if isinstance(output, Value):
        readers[output] += 1
    next_reader = {value: step for step in steps for value in reads(step)}
    constants = _Constants(steps, values)
    parameters: dict[str, LayerParameters] = {}
    absorbed: dict[Value, Value] = {}  # an absorbed equation's output -> what stands for it now
    kept: list[Step] = []
    for step in steps:
        if step.outputs[0] in absorbed:
            continue
        if isinstance(step, LayerCall):
            chain = _chain(step, readers, next_reader, constants)
            absorbed.update(chain.absorbed)
            layer, parameters[step.layer.name] = _folded(step, constants.array(step.kernel), chain)
            step = replace(step, layer=layer)
        kept.append(_renamed(step, absorbed))
    return kept, parameters, _resolved(output, absorbed)


class _Constants:
    """The value of operands that do not depend on the image, broadcasts looked through."""

    def __init__(self, steps: Sequence[Step], values: dict[Value, Any]) -> None:
        self.values = values
        self.broadcasts: dict[Operand, Equation] = {
            step.outputs[0]: step
            for step in steps
            if isinstance(step, Equation)
            and step.primitive.name == "broadcast_in_dim"
            and self.array(step.inputs[0], {}) is not None
        }

    def array(
        self, operand: Operand, broadcasts: dict[Operand, Equation] | None = None
    ) -> np.ndarray | None:
        """The operand's value, or None if it depends on the image."""
        broadcasts = self.broadcasts if broadcasts is None else broadcasts
        if isinstance(operand, core.Literal):
            return np.asarray(operand.val)
        if operand in self.values:
            return np.asarray(self.values[operand])
        if operand not in broadcasts:
            return None
        step = broadcasts[operand]
        small = self.array(step.inputs[0], {})
        assert small is not None
        shape = [1] * len(step.params["shape"])
        for size, axis in zip(small.shape, step.params["broadcast_dimensions"], strict=True):
            shape[axis] = size
        return np.broadcast_to(small.reshape(shape), step.params["shape"])


@dataclass
class _Chain:
    """What follows a layer: scale and shift over its channel axes, and the equations they are."""

    scale: np.ndarray
    shift: np.ndarray | None = None  # None: nothing is added
    absorbed: dict[Value, Value] = field(default_factory=dict)

    def then(self, scale: Any, shift: Any) -> None:
        """Let y·scale + shift follow; a shift of None adds nothing."""
        self.scale = self.scale * scale
        self.shift = None if self.shift is None else self.shift * scale
        if shift is not None:
            self.shift = shift if self.shift is None else self.shift + shift


def _chain(
    call: LayerCall,
    readers: Counter[Operand],
    next_reader: dict[Value, Step],
    constants: _Constants,
) -> _Chain:
    chain = _Chain(np.ones(_channels(call)))
    value, axes = call.output, call.output_axes
    while readers[value] == 1 and isinstance(step := next_reader[value], Equation):
        if step.primitive.name == "transpose":
            axes = tuple(step.params["permutation"].index(axis) for axis in axes)
        elif step.primitive.name == "convert_element_type":
            if not jnp.issubdtype(step.dtype, jnp.floating):
                break
        elif (affine := _affine(step, value, axes, constants)) is not None:
            chain.then(*affine)
            chain.absorbed[step.outputs[0]] = value
        else:
            break
        value = step.outputs[0]
    return chain


def _affine(
    step: Equation, value: Value, axes: tuple[int, ...], constants: _Constants
) -> tuple[Any, Any] | None:
    """`step` as (scale, shift) of `value`, or None if it is no per-channel affine equation."""
    name = step.primitive.name
    if name == "neg":
        return -1.0, None
    if name not in ("add", "add_any", "sub", "mul", "div") or len(step.inputs) != 2:
        return None
    first = step.inputs[0] == value
    array = constants.array(step.inputs[1 if first else 0])
    operand = None if array is None else _per_channel(array, axes)
    if operand is None:
        return None
    if name == "sub":
        return (1.0, -operand) if first else (-1.0, operand)
    if name == "div":
        return (1 / operand, None) if first and operand.all() else None
    return (operand, None) if name == "mul" else (1.0, operand)


def _per_channel(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray | None:
    """The array (float64) over the channel axes, or None if it varies along another one."""
    array = array.astype(np.float64)
    if array.ndim == 0:
        return array
    first = tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(array.ndim))
    if not np.array_equal(np.broadcast_to(array[first], array.shape), array):
        return None
    order = sorted(axes)
    small = array[first].reshape([array.shape[axis] for axis in order])
    return np.transpose(small, [order.index(axis) for axis in axes])


def _folded(call: LayerCall, kernel: np.ndarray | None, chain: _Chain):
    assert kernel is not None, "a layer's kernel does not depend on the image"
    channels, spread = _channels(call), [1] * kernel.ndim
    for size, axis in zip(channels, call.kernel_axes, strict=True):
        spread[axis] = size
    order = np.argsort(call.kernel_axes)
    factor = np.transpose(np.broadcast_to(chain.scale, channels), order).reshape(spread)
    weights = (kernel.astype(np.float64) * factor).astype(np.float32)
    bias = None
    if chain.shift is not None:
        bias = np.broadcast_to(chain.shift, channels).astype(np.float32)
    if not all(np.isfinite(array).all() for array in (weights, bias) if array is not None):
        raise InputError(
            f"the network's weights: layer {call.layer.name} holds NaN or infinity once the scale "
            "and shift that follow it are folded in; check its batch norm's variance"
        )
    layer = replace(call.layer, biases=0 if bias is None else bias.size)
    arrays = LayerParameters(jnp.asarray(weights), None if bias is None else jnp.asarray(bias))
    return layer, arrays


def _channels(call: LayerCall) -> tuple[int, ...]:
    return tuple(call.layer.kernel_shape[axis] for axis in call.kernel_axes)


def _resolved(operand: Operand, absorbed: dict[Value, Value]) -> Operand:
    while isinstance(operand, Value) and operand in absorbed:
        operand = absorbed[operand]
    return operand


def _renamed(step: Step, absorbed: dict[Value, Value]) -> Step:
    """The step, reading what now stands for the outputs of absorbed equations."""
    inputs = tuple(_resolved(operand, absorbed) for operand in step.inputs)
    if inputs == step.inputs:
        return step
    if isinstance(step, LayerCall):
        return replace(step, input=inputs[0])
    return replace(step, inputs=inputs)
