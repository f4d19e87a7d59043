"""Fold per-channel affine equations (bias, inference-time batch norm) into their layer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from afpjax.network.program import Equation, LayerCall, Operand, Value, reads
from afpjax.network.recipe import Affine, Constant, Recipe, first_of_others

Step = Equation | LayerCall


def fold(
    steps: Sequence[Step], values: Mapping[Value, Any], output: Operand, *, norms: bool = True
) -> tuple[list[Step], dict[str, Recipe], Operand]:
    """Replace `layer, then y·s + t` by one layer, for as long as only that equation reads y.

    Without `norms`, a layer takes in no more than its own bias, one addition, and its kernel stays
    as it was traced: batch norm remains in the program, after the layer.
    `values` are the arrays that do not depend on the image. A transpose or a change of
    floating-point dtype in between stays in the program, after the layer. Returns the steps, how to
    make the layers' arrays (by name), and the output, which may have been an absorbed equation's.
    """
    readers: Counter[Operand] = Counter(value for step in steps for value in reads(step))
    if isinstance(output, Value):
        readers[output] += 1
    only_reader = {value: step for step in steps for value in reads(step) if readers[value] == 1}
    constants = _Constants(steps, values)
    recipes: dict[str, Recipe] = {}
    absorbed: dict[Value, Value] = {}  # an absorbed equation's output -> what stands for it now
    kept: list[Step] = []
    for step in steps:
        if step.outputs[0] in absorbed:
            continue
        if isinstance(step, LayerCall):
            recipe, replaced = _recipe(step, only_reader, constants, norms)
            absorbed.update(replaced)
            recipes[step.layer.name] = recipe
            biases = prod(recipe.channels) if recipe.adds else 0
            step = replace(step, layer=replace(step.layer, biases=biases))
        kept.append(_renamed(step, absorbed))
    return kept, recipes, _resolved(output, absorbed)


class _Constants:
    """The operands that do not depend on the image, broadcasts looked through."""

    def __init__(self, steps: Sequence[Step], values: Mapping[Value, Any]) -> None:
        self.values = values
        self.broadcasts: dict[Value, Constant] = {}
        self.broadcasts = {
            step.outputs[0]: small.broadcast(
                step.params["shape"], tuple(map(int, step.params["broadcast_dimensions"]))
            )
            for step in steps
            if isinstance(step, Equation)
            and step.primitive.name == "broadcast_in_dim"
            and (small := self.find(step.inputs[0])) is not None
        }

    def find(self, operand: Operand) -> Constant | None:
        """The operand as a constant, or None if it depends on the image."""
        if isinstance(operand, core.Literal):
            return Constant(operand, np.shape(operand.val))
        if operand in self.values:
            return Constant(operand, np.shape(self.values[operand]))
        return self.broadcasts.get(operand)

    def array(self, constant: Constant) -> np.ndarray:
        return constant.array(self.values, np)


def _recipe(
    call: LayerCall, only_reader: Mapping[Value, Step], constants: _Constants, norms: bool
) -> tuple[Recipe, dict[Value, Value]]:
    """What to absorb into a layer, and what stands for the absorbed equations' outputs."""
    chain: list[Affine] = []
    absorbed: dict[Value, Value] = {}
    value, axes = call.output, call.output_axes
    while isinstance(step := only_reader.get(value), Equation):
        if step.primitive.name == "transpose":
            axes = tuple(step.params["permutation"].index(axis) for axis in axes)
        elif step.primitive.name == "convert_element_type":
            if not jnp.issubdtype(step.dtype, jnp.floating):
                break
        elif (affine := _affine(step, value, axes, constants)) is not None:
            if not (norms or (affine.is_bias and not chain)):
                break
            chain.append(affine)
            absorbed[step.outputs[0]] = value
        else:
            break
        value = step.outputs[0]
    kernel = constants.find(call.kernel)
    assert kernel is not None, "a layer's kernel does not depend on the image"
    return Recipe(call, kernel, tuple(chain)), absorbed


def _affine(
    step: Equation, value: Value, axes: tuple[int, ...], constants: _Constants
) -> Affine | None:
    """`step` as an affine equation of `value` per channel, or None if it is none."""
    name = step.primitive.name
    if name == "neg":
        return Affine(name, True, None, axes)
    if name not in ("add", "add_any", "sub", "mul", "div") or len(step.inputs) != 2:
        return None
    first = step.inputs[0] == value
    constant = constants.find(step.inputs[1 if first else 0])
    if constant is None or not _is_per_channel(array := constants.array(constant), axes):
        return None
    if name == "div" and not (first and (array != 0).all()):
        return None
    return Affine(name, first, constant, axes)


def _is_per_channel(array: np.ndarray, axes: tuple[int, ...]) -> bool:
    """Whether an array varies along the channel axes alone."""
    first = array[first_of_others(array.ndim, axes)]
    return np.array_equal(np.broadcast_to(first, array.shape), array)


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
