"""Equations that treat every element by itself, as ONNX nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from afpjax.deploy.graph import Graph, Operand, cast

#: (graph, equation, its operands) -> its output, or its outputs.
Rule = Callable[[Graph, core.JaxprEqn, Sequence[Operand]], Operand | list[Operand]]


def output(eqn: core.JaxprEqn) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of an equation's first output."""
    aval: Any = eqn.outvars[0].aval
    return tuple(aval.shape), np.dtype(aval.dtype)


def compact(operand: Operand) -> Operand:
    """An array without the axes along which it was broadcast: ONNX broadcasts it again."""
    if not isinstance(operand, np.ndarray) or not operand.ndim:
        return operand
    repeated = [
        slice(0, 1) if stride == 0 and size > 1 else slice(None)
        for stride, size in zip(operand.strides, operand.shape, strict=True)
    ]
    return operand[tuple(repeated)]


def plain(op: str, **attributes: Any) -> Rule:
    """A node of the same meaning."""

    def rule(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
        shape, dtype = output(eqn)
        return graph.node(op, [compact(each) for each in operands], shape, dtype, **attributes)

    return rule


def then(outer: str, inner: str) -> Rule:
    """`outer` of `inner`; comparisons give booleans, and `outer` is then of booleans."""

    def rule(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
        shape, dtype = output(eqn)
        made = graph.node(inner, [compact(each) for each in operands], shape, dtype)
        return graph.node(outer, [made], shape, dtype)

    return rule


def logical(of_booleans: str, of_integers: str) -> Rule:
    def rule(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
        shape, dtype = output(eqn)
        op = of_booleans if dtype == np.bool_ else of_integers
        return graph.node(op, [compact(each) for each in operands], shape, dtype)

    return rule


def with_one(op: str, *, inside: str = "", outside: str = "") -> Rule:
    """`op` with a one: of x `inside` 1 (log1p), or of x and then `outside` 1 (expm1).

    What is lost beside the exact functions is an absolute error of float32's half unit at 1.
    """

    def rule(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
        (shape, dtype), (x,) = output(eqn), operands
        one = np.ones((), dtype)
        if inside:
            x = graph.node(inside, [x, one], shape, dtype)
        made = graph.node(op, [x], shape, dtype)
        return graph.node(outside, [made, one], shape, dtype) if outside else made

    return rule


def erfc(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    (shape, dtype), (x,) = output(eqn), operands
    made = graph.node("Erf", [x], shape, dtype)
    return graph.node("Sub", [np.ones((), dtype), made], shape, dtype)


def square(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return graph.node("Mul", [operands[0], operands[0]], *output(eqn))


def integer_pow(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    power, (x,) = eqn.params["y"], operands
    if power == 2:
        return square(graph, eqn, operands)
    if power < 0:
        made = graph.node("Pow", [x, np.array(-power, x.dtype)], *output(eqn))
        return graph.node("Reciprocal", [made], *output(eqn))
    return graph.node("Pow", [x, np.array(power, x.dtype)], *output(eqn))


def exp2(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return graph.node("Pow", [np.array(2, operands[0].dtype), operands[0]], *output(eqn))


def round_(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    (shape, dtype), (x,) = output(eqn), operands
    if int(eqn.params["rounding_method"]) == 1:  # to nearest, halves to even
        return graph.node("Round", [x], shape, dtype)
    size = graph.node("Abs", [x], shape, dtype)
    half = graph.node("Add", [size, np.array(0.5, dtype)], shape, dtype)
    whole = graph.node("Floor", [half], shape, dtype)
    return graph.node("Mul", [graph.node("Sign", [x], shape, dtype), whole], shape, dtype)


def clamp(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    low, x, high = map(compact, operands)
    raised = graph.node("Max", [x, low], *output(eqn))
    return graph.node("Min", [raised, high], *output(eqn))


def select_n(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    (shape, dtype), (which, *cases) = output(eqn), map(compact, operands)
    if which.dtype == np.bool_:
        return graph.node("Where", [which, cases[1], cases[0]], shape, dtype)
    made = cases[-1]
    for number, case in reversed(list(enumerate(cases[:-1]))):
        here = graph.node("Equal", [which, np.array(number, which.dtype)], which.shape, np.bool_)
        made = graph.node("Where", [here, case, made], shape, dtype)
    return made


def is_finite(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    shape, dtype = output(eqn)
    bad = [graph.node(op, [operands[0]], shape, dtype) for op in ("IsNaN", "IsInf")]
    return graph.node("Not", [graph.node("Or", bad, shape, dtype)], shape, dtype)


def convert(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Operand:
    return cast(graph, operands[0], output(eqn)[1])


def same(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
    return list(operands)


_NAMES = {
    **{name: name.capitalize() for name in ("add", "sub", "mul", "div", "max", "min", "neg")},
    **{name: name.capitalize() for name in ("exp", "log", "sqrt", "abs", "sign", "floor", "ceil")},
    **{name: name.capitalize() for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: name.capitalize() for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")},
    **{"add_any": "Add", "erf": "Erf", "pow": "Pow", "logistic": "Sigmoid"},
    **{"eq": "Equal", "lt": "Less", "gt": "Greater", "le": "LessOrEqual", "ge": "GreaterOrEqual"},
}
ELEMENTWISE: dict[str, Rule] = {
    **{name: plain(op) for name, op in _NAMES.items()},
    "ne": then("Not", "Equal"),
    "rsqrt": then("Reciprocal", "Sqrt"),
    "rem": plain("Mod", fmod=1),
    "log1p": with_one("Log", inside="Add"),
    "expm1": with_one("Exp", outside="Sub"),
    "and": logical("And", "BitwiseAnd"),
    "or": logical("Or", "BitwiseOr"),
    "xor": logical("Xor", "BitwiseXor"),
    "not": logical("Not", "BitwiseNot"),
    "erfc": erfc,
    "square": square,
    "integer_pow": integer_pow,
    "exp2": exp2,
    "round": round_,
    "clamp": clamp,
    "select_n": select_n,
    "is_finite": is_finite,
    "convert_element_type": convert,
    "copy": same,
    "copy_p": same,
    "stop_gradient": same,
    "optimization_barrier": same,
}
