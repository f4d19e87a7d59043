"""Find the layers among a program's equations, and name them after their parameters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from afpjax.inputs.errors import InputError
from afpjax.network.hidden import kernel_operand
from afpjax.network.inline import Inliner
from afpjax.network.layers import Layer
from afpjax.network.names import layer_name
from afpjax.network.program import Equation, LayerCall, Operand, Stored, Value

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
