"""Which layers read one stored kernel: a recurrent network's, a siamese branch's, tied layers'.

The rule: two layer calls share a kernel where it is the same expression of the same arrays, laid
out along the same axes, and the folded kernels are equal number by number. Batch norms that differ
from call to call fold into kernels that differ, which have to be stored one by one; so do equal
numbers in arrays of their own. Biases are not shared: they are folded for each call.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from afpjax.network.identity import plain
from afpjax.network.program import Equation, LayerCall, Operand, Program, Value
from afpjax.network.recipe import Recipe


def with_shared(
    program: Program,
    recipes: Mapping[str, Recipe],
    values: Mapping[Value, Any],
    equations: Iterable[Equation],
    arrays: Mapping[Value, Any],
) -> Program:
    """The program whose layers know what they share; the same one where no two share anything.

    `values` are what layers are folded from, `equations` all of the traced function, `arrays` what
    that was given or closes over.
    """
    expressions = _Expressions(equations, arrays)
    keepers: dict[Any, list[str]] = {}
    shares: dict[str, str] = {}
    for layer in program.graph.layers:
        recipe = recipes[layer.name]
        axes = recipe.call.kernel_axes, recipe.kernel.shape, layer.kernel_shape, layer.groups
        known = keepers.setdefault((expressions.of(recipe.kernel.operand), axes), [])
        first = next((name for name in known if _equal(recipes[name], recipe, values)), None)
        if first is None:
            known.append(layer.name)
        else:
            shares[layer.name] = first
    return _marked(program, shares) if shares else program


def _equal(one: Recipe, other: Recipe, values: Mapping[Value, Any]) -> bool:
    one_kernel, other_kernel = (each.arrays(values, np, np.float64).kernel for each in (one, other))
    return np.array_equal(one_kernel, other_kernel)


def _marked(program: Program, shares: Mapping[str, str]) -> Program:
    def marked(step: Equation | LayerCall) -> Equation | LayerCall:
        if not isinstance(step, LayerCall) or step.layer.name not in shares:
            return step
        return replace(step, layer=replace(step.layer, shares=shares[step.layer.name]))

    steps = tuple(map(marked, program.steps))
    layers = tuple(step.layer for step in steps if isinstance(step, LayerCall))
    return replace(program, steps=steps, graph=replace(program.graph, layers=layers))


class _Expressions:
    """Numbers for the expressions that values are: equal for equal ones of the same arrays."""

    def __init__(self, equations: Iterable[Equation], arrays: Mapping[Value, Any]) -> None:
        self._numbers: dict[Any, int] = {}
        # One array that is handed over under two names is still one array.
        self._of = {value: self._number(("array", id(array))) for value, array in arrays.items()}
        for step in equations:
            if all(isinstance(each, core.Literal) or each in self._of for each in step.inputs):
                self._add(step)

    def of(self, operand: Operand) -> int:
        if isinstance(operand, Value):
            return self._of.get(operand, -1 - operand.number)
        return self._number((str(operand.aval), np.asarray(operand.val).tobytes()))

    def _add(self, step: Equation) -> None:
        inputs: Sequence[int] = [self.of(each) for each in step.inputs]
        made = step.primitive.name, str(plain(step.params)), tuple(inputs)
        for place, value in enumerate(step.outputs):
            self._of[value] = self._number((made, place))

    def _number(self, expression: Any) -> int:
        return self._numbers.setdefault(expression, len(self._numbers))
