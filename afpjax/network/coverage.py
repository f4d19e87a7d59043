"""How much of a network its layers are: the rest is neither struck by faults nor costed.

A layer is a convolution or matrix product with a fixed kernel. Products of two activations
(attention), embedding tables, normalisations and biases stay in the program, and run, but no fault
model strikes them and no device is charged for them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

from jax.extend import core

from afpjax.network.hidden import LINEAR, OPAQUE, Fact
from afpjax.network.layers import Coverage
from afpjax.network.program import Equation, LayerCall, Operand
from afpjax.network.recipe import Recipe

Step = Equation | LayerCall

PRODUCTS = "products of two activations"
LOOPS = "loops and branches"
BIASES = "biases and scales folded into layers"
TABLES = "embedding tables"
SCALES = "scales, shifts and positions outside layers"
OTHERS = "others"
UNUSED = "unused"
_LAYOUT = ("broadcast_in_dim", "reshape", "transpose", "convert_element_type", "squeeze", "slice")
_ELEMENTWISE = ("mul", "add", "add_any", "sub", "div", "max", "min", "pow", "select_n")
_LOOKUP = ("gather", "dynamic_slice")


def coverage(
    steps: Sequence[Step],
    recipes: Mapping[str, Recipe],
    fact: Callable[[Operand], Fact],
    sizes: Mapping[str, int],
) -> Coverage:
    """What of a program is in its layers; `sizes` are the elements of every parameter, by name."""
    calls = [step for step in steps if isinstance(step, LayerCall)]
    used = [recipes[call.layer.name] for call in calls]
    kernels = _origins(fact(recipe.call.kernel) for recipe in used)
    absorbed = [affine.constant for recipe in used for affine in recipe.chain]
    folded = _origins(fact(each.operand) for each in absorbed if each is not None)
    kinds = {name: BIASES for name in folded} | _kinds(steps, fact)
    outside = Counter[str]()
    for name, size in sizes.items():
        if name not in kernels:
            outside[kinds.get(name, UNUSED)] += size
    without_name = {
        recipe.call.kernel: recipe.call.layer.weights
        for recipe in used
        if not fact(recipe.call.kernel).origin
    }
    inside = sum(size for name, size in sizes.items() if name in kernels)
    return Coverage(
        macs=sum(call.layer.macs for call in calls),
        parameters=inside + sum(without_name.values()),
        other_macs=_other_macs(steps),
        other_parameters={kind: count for kind, count in sorted(outside.items()) if count},
    )


def _origins(facts: Iterable[Fact]) -> frozenset[str]:
    return frozenset().union(*(fact.origin for fact in facts))


def _kinds(steps: Sequence[Step], fact: Callable[[Operand], Fact]) -> dict[str, str]:
    """What reads the parameters that steps outside layers read, by the parameters' names."""
    kinds: dict[str, str] = {}
    for step in steps:
        if isinstance(step, LayerCall) or step.primitive.name in _LAYOUT:
            continue
        depends = any(fact(value).dependent for value in step.outputs)
        for place, value in enumerate(step.inputs):
            known = fact(value)
            if depends and not known.dependent:
                kind = _kind(step.primitive.name, place)
                kinds |= {name: kind for name in known.origin if name not in kinds}
    return kinds


def _kind(primitive: str, place: int) -> str:
    if primitive in _LOOKUP and place == 0:
        return TABLES
    if primitive in OPAQUE:
        return LOOPS
    return SCALES if primitive in _ELEMENTWISE else OTHERS


def _other_macs(steps: Sequence[Step]) -> dict[str, int]:
    found = Counter[str]()
    for step in steps:
        if isinstance(step, Equation):
            kind = LOOPS if step.primitive.name in OPAQUE else PRODUCTS
            found[kind] += _macs(step.eqn)
    return {kind: count for kind, count in sorted(found.items()) if count}


def _macs(eqn: core.JaxprEqn) -> int:
    """Multiply-accumulates of an equation, once for every round of a `scan`, and for one of a
    `while`, whose rounds nobody knows."""
    if eqn.primitive.name in LINEAR:
        return _product(eqn)
    rounds = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
    inner = [_open(each) for value in eqn.params.values() for each in _several(value)]
    return rounds * sum(_macs(each) for jaxpr in inner if jaxpr for each in jaxpr.eqns)


def _product(eqn: core.JaxprEqn) -> int:
    left, right = (_shape(var) for var in eqn.invars[:2])
    outputs = prod(_shape(eqn.outvars[0]))
    if eqn.primitive.name == "dot_general":
        (contracting, _), _ = eqn.params["dimension_numbers"]
        return outputs * prod(left[axis] for axis in contracting)
    numbers = eqn.params["dimension_numbers"]
    fan_in = prod(right[axis] for axis in numbers.rhs_spec[1:])
    return outputs * fan_in // prod(eqn.params["lhs_dilation"])


def _shape(var: Any) -> tuple[int, ...]:
    return tuple(var.aval.shape)


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def _open(value: Any) -> core.Jaxpr | None:
    if isinstance(value, core.ClosedJaxpr):
        return value.jaxpr
    return value if isinstance(value, core.Jaxpr) else None
