"""Equations that treat every element by itself, as ONNX nodes; and what a rule gets to see.

A rule writes one primitive: from the equation and its operands to its output, or its outputs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from afpjax.deploy.onnx.graph import Graph, GraphTensor, Operand, cast
from afpjax.inputs.errors import InputError


class Conversion(NamedTuple):
    """An equation that is being written to a graph."""

    graph: Graph
    eqn: core.JaxprEqn

    @property
    def params(self) -> dict[str, Any]:
        return self.eqn.params

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first output."""
        return tuple(self.eqn.outvars[0].aval.shape)  # pyright: ignore

    @property
    def dtype(self) -> np.dtype:
        """Of the first output."""
        return np.dtype(self.eqn.outvars[0].aval.dtype)  # pyright: ignore

    def node(self, op: str, *operands: Operand, **attributes: Any) -> GraphTensor:
        """A node with the shape and dtype of the equation's output; operands are broadcast."""
        compact = [without_repeats(operand) for operand in operands]
        return self.graph.node(op, compact, self.shape, self.dtype, **attributes)

    def constant(self, value: float | int) -> np.ndarray:
        """A number of the output's dtype."""
        return np.array(value, self.dtype)

    def refusal(self, how: str) -> InputError:
        """What cannot be exported, near which layer."""
        return InputError(
            f"export: `{self.eqn.primitive.name}` {how} (near {self.graph.scope}) has no "
            "counterpart among the ONNX operators that afpjax writes; write that part of the "
            "network otherwise"
        )


Rule = Callable[..., Operand | list[Operand]]  # of a `Conversion` and the operands


def without_repeats(operand: Operand) -> Operand:
    """An array without the axes along which it was broadcast: ONNX broadcasts it again."""
    if not isinstance(operand, np.ndarray) or not operand.ndim:
        return operand
    repeated = [
        slice(0, 1) if stride == 0 and size > 1 else slice(None)
        for stride, size in zip(operand.strides, operand.shape, strict=True)
    ]
    return operand[tuple(repeated)]


def _operator(op: str, **attributes: Any) -> Rule:
    """The ONNX operator of the same meaning."""
    return lambda to, *operands: to.node(op, *operands, **attributes)


def _logical(of_booleans: str, of_integers: str) -> Rule:
    return lambda to, *operands: to.node(
        of_booleans if to.dtype == np.bool_ else of_integers, *operands
    )


def _integer_pow(to: Conversion, x: Operand) -> Operand:
    power = to.params["y"]
    if power == 2:
        return to.node("Mul", x, x)
    magnitude = to.node("Pow", x, np.array(abs(power), x.dtype))
    return to.node("Reciprocal", magnitude) if power < 0 else magnitude


def _round(to: Conversion, x: Operand) -> Operand:
    if int(to.params["rounding_method"]) == 1:  # to nearest, halves to even
        return to.node("Round", x)
    half_up = to.node("Floor", to.node("Add", to.node("Abs", x), to.constant(0.5)))
    return to.node("Mul", to.node("Sign", x), half_up)


def _select_n(to: Conversion, *operands: Operand) -> Operand:
    which, *cases = map(without_repeats, operands)
    if which.dtype == np.bool_:
        return to.node("Where", which, cases[1], cases[0])
    chosen = cases[-1]
    for number, case in reversed(list(enumerate(cases[:-1]))):
        index = np.array(number, which.dtype)
        is_case = to.graph.node("Equal", [which, index], which.shape, np.bool_)
        chosen = to.graph.node("Where", [is_case, case, chosen], to.shape, to.dtype)
    return chosen


def _is_finite(to: Conversion, x: Operand) -> Operand:
    return to.node("Not", to.node("Or", to.node("IsNaN", x), to.node("IsInf", x)))


def _unchanged(to: Conversion, *operands: Operand) -> list[Operand]:
    return list(operands)


_SAME_NAME = (
    *("add", "sub", "mul", "div", "max", "min", "neg", "exp", "log", "sqrt", "abs", "sign"),
    *("floor", "ceil", "sin", "cos", "tan", "sinh", "cosh", "tanh"),
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "pow"),
)
ELEMENTWISE: dict[str, Rule] = {
    **{name: _operator(name.capitalize()) for name in _SAME_NAME},
    "add_any": _operator("Add"),
    "logistic": _operator("Sigmoid"),
    "eq": _operator("Equal"),
    "lt": _operator("Less"),
    "gt": _operator("Greater"),
    "le": _operator("LessOrEqual"),
    "ge": _operator("GreaterOrEqual"),
    "ne": lambda to, x, y: to.node("Not", to.node("Equal", x, y)),
    "rem": _operator("Mod", fmod=1),
    "and": _logical("And", "BitwiseAnd"),
    "or": _logical("Or", "BitwiseOr"),
    "xor": _logical("Xor", "BitwiseXor"),
    "not": _logical("Not", "BitwiseNot"),
    "rsqrt": lambda to, x: to.node("Reciprocal", to.node("Sqrt", x)),
    # Beside the exact functions, log1p and expm1 lose half a unit of float32 at 1, absolutely.
    "log1p": lambda to, x: to.node("Log", to.node("Add", x, to.constant(1))),
    "expm1": lambda to, x: to.node("Sub", to.node("Exp", x), to.constant(1)),
    "erfc": lambda to, x: to.node("Sub", to.constant(1), to.node("Erf", x)),
    "square": lambda to, x: to.node("Mul", x, x),
    "integer_pow": _integer_pow,
    "exp2": lambda to, x: to.node("Pow", np.array(2, x.dtype), x),
    "round": _round,
    "clamp": lambda to, low, x, high: to.node("Min", to.node("Max", x, low), high),
    "select_n": _select_n,
    "is_finite": _is_finite,
    "convert_element_type": lambda to, x: cast(to.graph, x, to.dtype),
    "copy": _unchanged,
    "copy_p": _unchanged,
    "stop_gradient": _unchanged,
    "optimization_barrier": _unchanged,
}
