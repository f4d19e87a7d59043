"""Find the layers among a program's equations, and name them after their parameters."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from afpjax.inputs.errors import InputError
from afpjax.network.flatten import OPAQUE, Fact, Inliner, kernel_operand, layer_name
from afpjax.network.fold import Recipe
from afpjax.network.layers import Coverage, Layer
from afpjax.network.program import Equation, LayerCall, Operand, Stored, Value
from afpjax.network.units import LINEAR

#: Equations that move numbers and change none, but for their dtype.
_MOVES = ("broadcast_in_dim", "copy", "reshape", "rev", "slice", "squeeze", "transpose")
_CAST = "convert_element_type"


def find_layers(equations: Sequence[Equation], inliner: Inliner) -> list[Equation | LayerCall]:
    """Replace every convolution or dense product with a fixed kernel by a `LayerCall`.

    A layer is named after its kernel's parameter; a second use of the same kernel is `name:2`,
    a kernel that is no parameter (a constant of the function) `conv_0`, `dense_1`, … Raises
    `InputError` for a layer that does not multiply floating-point numbers.
    """
    steps: list[Equation | LayerCall] = []
    uses: dict[str, int] = {}
    makers = {value: each for each in inliner.equations for value in each.outputs}
    for equation in equations:
        facts = [inliner.fact(operand) for operand in equation.inputs]
        kernel = kernel_operand(equation.primitive, facts)
        if kernel is None:
            steps.append(equation)
            continue
        kind = "conv" if equation.primitive.name == "conv_general_dilated" else "dense"
        name = layer_name(facts[kernel].origin) or f"{kind}_{sum(uses.values())}"
        uses[name] = uses.get(name, 0) + 1
        unique = name if uses[name] == 1 else f"{name}:{uses[name]}"
        _refuse_integers(equation, unique)
        stored = _stored(equation.inputs[kernel], inliner, makers)
        steps.append(_layer_call(equation, kernel, unique, kind, inliner, stored))
    return steps


def _refuse_integers(equation: Equation, name: str) -> None:
    for var in equation.eqn.invars:
        dtype = getattr(var.aval, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(
                f"the network: layer {name} multiplies {dtype} numbers; trace the network in "
                "floating point, afpjax quantises it"
            )


def _stored(kernel: Operand, inliner: Inliner, makers: Mapping[Value, Equation]) -> Stored:
    """Follow a kernel back to the array that it is laid out from."""
    moves, operand = list[Equation](), kernel
    while isinstance(operand, Value) and operand in makers:
        maker = makers[operand]
        if maker.primitive.name in _MOVES:
            moves.append(maker)
        elif maker.primitive.name != _CAST:
            break
        operand = maker.inputs[0]
    origin = inliner.fact(operand).origin
    name = next(iter(origin)) if len(origin) == 1 and operand not in makers else ""
    return Stored(name, operand, _shape(operand, inliner), tuple(reversed(moves)))


def _layer_call(
    equation: Equation, kernel: int, name: str, kind: str, inliner: Inliner, stored: Stored
) -> LayerCall:
    image, weights = _shape(equation.inputs[1 - kernel], inliner), equation.inputs[kernel]
    kernel_shape = _shape(weights, inliner)
    output_shape = inliner.shapes[equation.outputs[0]]
    describe = _convolution if kind == "conv" else _dense
    facts, kernel_axes, output_axes = describe(equation.params, kernel, kernel_shape, output_shape)
    layer = Layer(
        name=name,
        kind=kind,
        input_shape=image,
        kernel_shape=kernel_shape,
        output_shape=output_shape,
        neurons=math.prod(kernel_shape[axis] for axis in kernel_axes),
        weights=math.prod(kernel_shape),
        biases=0,
        **facts,
    )
    return LayerCall(
        layer,
        equation.primitive,
        equation.params,
        equation.inputs[1 - kernel],  # type: ignore[arg-type]
        equation.outputs[0],
        weights,  # type: ignore[arg-type]
        kernel,
        kernel_axes,
        output_axes,
        equation.dtype,
        stored,
    )


def _convolution(
    params: dict[str, Any], _: int, kernel: tuple[int, ...], output: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    numbers = params["dimension_numbers"]
    window = tuple(kernel[axis] for axis in numbers.rhs_spec[2:])
    fan_in = kernel[numbers.rhs_spec[1]] * math.prod(window)
    # A transposed convolution multiplies only the image's own pixels, not the zeros between them.
    macs = math.prod(output) * fan_in // math.prod(params["lhs_dilation"])
    facts = {
        "fan_in": fan_in,
        "macs": macs,
        "window": window,
        "output_size": tuple(output[axis] for axis in numbers.out_spec[2:]),
        "groups": params["feature_group_count"],
    }
    return facts, (numbers.rhs_spec[0],), (numbers.out_spec[1],)


def _dense(
    params: dict[str, Any], operand: int, kernel: tuple[int, ...], output: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    contracting, batch = (axes[operand] for axes in params["dimension_numbers"])
    free = tuple(a for a in range(len(kernel)) if a not in (*contracting, *batch))
    start = len(output) - len(free) if operand == 1 else len(batch)
    fan_in = math.prod(kernel[axis] for axis in contracting)
    facts = {"fan_in": fan_in, "macs": math.prod(output) * fan_in}
    axes = (*range(len(batch)), *range(start, start + len(free)))
    return facts, (*batch, *free), axes


def _shape(operand: Operand, inliner: Inliner) -> tuple[int, ...]:
    if isinstance(operand, core.Literal):
        return tuple(operand.val.shape)
    return inliner.shapes[operand]


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


def _shape_of(var: Any) -> tuple[int, ...]:
    return tuple(var.aval.shape)


def _product(eqn: core.JaxprEqn) -> int:
    left, right = (_shape_of(var) for var in eqn.invars[:2])
    outputs = prod(_shape_of(eqn.outvars[0]))
    if eqn.primitive.name == "dot_general":
        (contracting, _), _ = eqn.params["dimension_numbers"]
        return outputs * prod(left[axis] for axis in contracting)
    numbers = eqn.params["dimension_numbers"]
    fan_in = prod(right[axis] for axis in numbers.rhs_spec[1:])
    return outputs * fan_in // prod(eqn.params["lhs_dilation"])


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def _open(value: Any) -> core.Jaxpr | None:
    if isinstance(value, core.ClosedJaxpr):
        return value.jaxpr
    return value if isinstance(value, core.Jaxpr) else None
