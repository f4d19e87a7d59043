"""Fold per-channel affine equations (bias, inference-time batch norm) into their layer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from afpjax.network.program import (
    Equation,
    LayerCall,
    LayerParameters,
    Operand,
    Value,
    reads,
)

Step = Equation | LayerCall


def fold(
    steps: Sequence[Step], values: dict[Value, Array], output: Operand
) -> tuple[list[Step], dict[str, LayerParameters]]:
    """Replace `layer, then y·s + t` by one layer, for as long as only that equation reads y.

    `values` are the arrays that do not depend on the image. With scale s and shift t per channel,
    the folded kernel is s·W and the folded bias s·b + t, computed in float64.
    """
    readers: Counter[Operand] = Counter(value for step in steps for value in reads(step))
    readers[output] += 1
    next_reader = {value: step for step in steps for value in reads(step)}
    constants = _Constants(steps, values)
    folded: dict[str, LayerParameters] = {}
    replaced: dict[Step, Step | None] = {}
    for call in steps:
        if not isinstance(call, LayerCall):
            continue
        scale, shift, chain = _chain(call, readers, next_reader, constants)
        layer, parameters = _folded(call, constants.array(call.kernel), scale, shift)
        last = chain[-1].outputs[0] if chain else call.output
        replaced[call] = None
        replaced.update(dict.fromkeys(chain))
        # The folded layer stands where its chain ended: every operand is known by then.
        replaced[chain[-1] if chain else call] = replace(call, layer=layer, output=last)
        folded[layer.name] = parameters
    kept = [replaced.get(step, step) for step in steps]
    return [step for step in kept if step is not None], folded


class _Constants:
    """The value of operands that do not depend on the image, broadcasts looked through."""

    def __init__(self, steps: Sequence[Step], values: dict[Value, Array]) -> None:
        self.values = values
        self.broadcasts = {
            step.outputs[0]: step
            for step in steps
            if isinstance(step, Equation)
            and step.primitive.name == "broadcast_in_dim"
            and isinstance(step.inputs[0], Value)
            and step.inputs[0] in values
        }

    def array(self, operand: Operand) -> np.ndarray | None:
        """The operand's value, or None if it depends on the image."""
        if isinstance(operand, core.Literal):
            return np.asarray(operand.val)
        if operand in self.values:
            return np.asarray(self.values[operand])
        if operand in self.broadcasts:
            step = self.broadcasts[operand]
            small = np.asarray(self.values[step.inputs[0]])  # type: ignore[index]
            shape = [1] * len(step.params["shape"])
            for size, axis in zip(small.shape, step.params["broadcast_dimensions"], strict=True):
                shape[axis] = size
            return np.broadcast_to(small.reshape(shape), step.params["shape"])
        return None


def _chain(
    call: LayerCall,
    readers: Counter[Operand],
    next_reader: dict[Value, Step],
    constants: _Constants,
) -> tuple[np.ndarray, np.ndarray, list[Equation]]:
    """Scale and shift per channel (float64) and the equations that they stand for."""
    channels = tuple(call.layer.kernel_shape[axis] for axis in call.kernel_axes)
    scale, shift = np.ones(channels), np.zeros(channels)
    value, chain = call.output, []
    while readers[value] == 1 and isinstance(step := next_reader.get(value), Equation):
        affine = _affine(step, value, call, constants)
        if affine is None:
            break
        scale, shift = scale * affine[0], shift * affine[0] + affine[1]
        value = step.outputs[0]
        chain.append(step)
    return scale, shift, chain


def _affine(
    step: Equation, value: Value, call: LayerCall, constants: _Constants
) -> tuple[np.ndarray, np.ndarray] | None:
    """`step` as (scale, shift) of `value`, or None if it is no per-channel affine equation."""
    name = step.primitive.name
    zero, one = np.zeros(()), np.ones(())
    if name == "neg":
        return -one, zero
    if name not in ("add", "add_any", "sub", "mul", "div") or len(step.inputs) != 2:
        return None
    first = step.inputs[0] == value
    array = constants.array(step.inputs[1 if first else 0])
    operand = None if array is None else _per_channel(array, call)
    if operand is None:
        return None
    if name == "sub":
        return (one, -operand) if first else (-one, operand)
    if name == "div":
        return (1 / operand, zero) if first and operand.all() else None
    return (operand, zero) if name == "mul" else (one, operand)


def _per_channel(array: np.ndarray, call: LayerCall) -> np.ndarray | None:
    """The array over the layer's channel axes, or None if it varies along another one."""
    array = array.astype(np.float64)
    if array.ndim == 0:
        return array
    if array.ndim != len(call.layer.output_shape):
        return None
    first = tuple(
        slice(None) if axis in call.output_axes else slice(0, 1) for axis in range(array.ndim)
    )
    if not np.array_equal(np.broadcast_to(array[first], array.shape), array):
        return None
    order = sorted(call.output_axes)
    small = array[first].reshape([array.shape[axis] for axis in order])
    return np.transpose(small, [order.index(axis) for axis in call.output_axes])


def _folded(call: LayerCall, kernel: np.ndarray | None, scale: np.ndarray, shift: np.ndarray):
    assert kernel is not None
    channels = tuple(call.layer.kernel_shape[axis] for axis in call.kernel_axes)
    spread = [1] * kernel.ndim
    for size, axis in zip(channels, call.kernel_axes, strict=True):
        spread[axis] = size
    order = np.argsort(call.kernel_axes)
    factor = np.transpose(np.broadcast_to(scale, channels), order).reshape(spread)
    weights = jnp.asarray(kernel.astype(np.float64) * factor, jnp.float32)
    has_bias = bool(np.any(shift))
    bias = jnp.asarray(np.broadcast_to(shift, channels), jnp.float32) if has_bias else None
    layer = replace(call.layer, biases=int(np.prod(channels)) if has_bias else 0)
    return layer, LayerParameters(weights, bias)
