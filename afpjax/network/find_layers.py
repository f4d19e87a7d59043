"""Find the layers among a program's equations, name them after their parameters, and tell the rest.

A layer is a convolution or matrix product with a fixed kernel. Products of two activations
(attention), embedding tables, normalisations and biases stay in the program, and run, but no fault
model makes them faulty and no device is charged for them: `coverage` says how much that is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from afpjax.inputs.errors import InputError
from afpjax.network.flatten import OPAQUE, Dependence, Inliner, kernel_operand, layer_name
from afpjax.network.fold import FoldedLayer
from afpjax.network.layers import Coverage, Layer
from afpjax.network.program import Equation, LayerCall, Operand, Step, StoredKernel, Value
from afpjax.network.units import LINEAR

#: Equations that move numbers and change none, but for their dtype.
_MOVES = ("broadcast_in_dim", "copy", "reshape", "rev", "slice", "squeeze", "transpose")
_CAST = "convert_element_type"

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


def find_layers(equations: Sequence[Equation], inliner: Inliner) -> list[Step]:
    """Replace every convolution or dense product with a fixed kernel by a `LayerCall`.

    A layer is named after its kernel's parameter; a second use of the same kernel is `name:2`,
    a kernel that is no parameter (a constant of the function) `conv_0`, `dense_1`, … Raises
    `InputError` for a layer that does not multiply floating-point numbers.
    """
    steps: list[Step] = []
    uses: Counter[str] = Counter()
    makers = {value: step for step in inliner.equations for value in step.outputs}
    for equation in equations:
        dependences = [inliner.dependence(operand) for operand in equation.inputs]
        kernel = kernel_operand(equation.primitive, dependences)
        if kernel is None:
            steps.append(equation)
            continue
        kind = "conv" if equation.primitive.name == "conv_general_dilated" else "dense"
        name = layer_name(dependences[kernel].parameters) or f"{kind}_{uses.total()}"
        uses[name] += 1
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


def _stored(kernel: Operand, inliner: Inliner, makers: Mapping[Value, Equation]) -> StoredKernel:
    """Follow a kernel back to the array that it is laid out from."""
    moves, operand = list[Equation](), kernel
    while isinstance(operand, Value) and operand in makers:
        maker = makers[operand]
        if maker.primitive.name in _MOVES:
            moves.append(maker)
        elif maker.primitive.name != _CAST:
            break
        operand = maker.inputs[0]
    parameters = inliner.dependence(operand).parameters
    name = next(iter(parameters)) if len(parameters) == 1 and operand not in makers else ""
    return StoredKernel(name, operand, _shape(operand, inliner), tuple(reversed(moves)))


def _layer_call(
    equation: Equation,
    kernel: int,
    name: str,
    kind: str,
    inliner: Inliner,
    stored: StoredKernel,
) -> LayerCall:
    image, weights = equation.inputs[1 - kernel], equation.inputs[kernel]
    assert isinstance(image, Value), "a layer's input depends on the image"
    kernel_shape, output_shape = _shape(weights, inliner), inliner.shapes[equation.outputs[0]]
    describe = _convolution if kind == "conv" else _dense
    facts, kernel_axes, output_axes = describe(equation.params, kernel, kernel_shape, output_shape)
    layer = Layer(
        name=name,
        kind=kind,
        input_shape=_shape(image, inliner),
        kernel_shape=kernel_shape,
        output_shape=output_shape,
        neurons=prod(kernel_shape[axis] for axis in kernel_axes),
        weights=prod(kernel_shape),
        biases=0,
        **facts,
    )
    return LayerCall(
        layer,
        equation.primitive,
        equation.params,
        image,
        equation.outputs[0],
        weights,
        kernel,
        kernel_axes,
        output_axes,
        equation.dtype,
        stored,
    )


def _convolution(
    params: dict[str, Any], _: int, kernel: tuple[int, ...], output: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    """A layer's figures, and its channel axes in the kernel and in the output."""
    numbers = params["dimension_numbers"]
    window = tuple(kernel[axis] for axis in numbers.rhs_spec[2:])
    fan_in = kernel[numbers.rhs_spec[1]] * prod(window)
    facts = {
        "fan_in": fan_in,
        # A transposed convolution multiplies the image's own pixels, not the zeros between them.
        "macs": prod(output) * fan_in // prod(params["lhs_dilation"]),
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
    fan_in = prod(kernel[axis] for axis in contracting)
    axes = (*range(len(batch)), *range(start, start + len(free)))
    return {"fan_in": fan_in, "macs": prod(output) * fan_in}, (*batch, *free), axes


def _shape(operand: Operand, inliner: Inliner) -> tuple[int, ...]:
    if isinstance(operand, core.Literal):
        return tuple(operand.val.shape)
    return inliner.shapes[operand]


def coverage(
    steps: Sequence[Step],
    folded: Mapping[str, FoldedLayer],
    dependence: Callable[[Operand], Dependence],
    sizes: Mapping[str, int],
) -> Coverage:
    """What of a program is in its layers; `sizes` are the elements of every parameter, by name."""
    calls = [step for step in steps if isinstance(step, LayerCall)]

    def parameters(operands: Iterable[Operand]) -> frozenset[str]:
        return frozenset().union(*(dependence(operand).parameters for operand in operands))

    kernels = parameters(call.kernel for call in calls)
    absorbed = [step.constant for call in calls for step in folded[call.layer.name].chain]
    biases = parameters(constant.operand for constant in absorbed if constant is not None)
    kinds = dict.fromkeys(biases, BIASES) | _kinds(steps, dependence)
    outside = Counter[str]()
    for name, size in sizes.items():
        if name not in kernels:
            outside[kinds.get(name, UNUSED)] += size
    without_name = {
        call.kernel: call.layer.weights for call in calls if not parameters([call.kernel])
    }
    inside = sum(size for name, size in sizes.items() if name in kernels)
    macs = Counter[str]()
    for step in steps:
        if isinstance(step, Equation):
            macs[LOOPS if step.primitive.name in OPAQUE else PRODUCTS] += _macs(step.eqn)
    return Coverage(
        macs=sum(call.layer.macs for call in calls),
        parameters=inside + sum(without_name.values()),
        other_macs={kind: count for kind, count in sorted(macs.items()) if count},
        other_parameters={kind: count for kind, count in sorted(outside.items()) if count},
    )


def _kinds(steps: Sequence[Step], dependence: Callable[[Operand], Dependence]) -> dict[str, str]:
    """What reads the parameters that steps outside layers read, by the parameters' names."""
    kinds: dict[str, str] = {}
    for step in steps:
        if isinstance(step, LayerCall) or step.primitive.name in _LAYOUT:
            continue
        if any(dependence(value).on_image for value in step.outputs):
            for place, operand in enumerate(step.inputs):
                if not dependence(operand).on_image:
                    for name in dependence(operand).parameters:
                        kinds.setdefault(name, _kind(step.primitive.name, place))
    return kinds


def _kind(primitive: str, place: int) -> str:
    if primitive in _LOOKUP and place == 0:
        return TABLES
    if primitive in OPAQUE:
        return LOOPS
    return SCALES if primitive in _ELEMENTWISE else OTHERS


def _macs(eqn: core.JaxprEqn) -> int:
    """Multiply-accumulates of an equation, once for every round of a `scan`, and for one of a
    `while`, whose rounds nobody knows."""
    if eqn.primitive.name in LINEAR:
        shapes: list[Any] = [var.aval.shape for var in (*eqn.invars[:2], eqn.outvars[0])]  # type: ignore[union-attr]
        return _product(eqn, *shapes)
    rounds = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
    several = (v if isinstance(v, tuple | list) else (v,) for v in eqn.params.values())
    inner = [getattr(v, "jaxpr", v) for values in several for v in values]
    jaxprs = [jaxpr for jaxpr in inner if isinstance(jaxpr, core.Jaxpr)]
    return rounds * sum(_macs(equation) for jaxpr in jaxprs for equation in jaxpr.eqns)


def _product(eqn: core.JaxprEqn, left: Any, right: Any, output: Any) -> int:
    if eqn.primitive.name == "dot_general":
        (contracting, _), _ = eqn.params["dimension_numbers"]
        return prod(output) * prod(left[axis] for axis in contracting)
    fan_in = prod(right[axis] for axis in eqn.params["dimension_numbers"].rhs_spec[1:])
    return prod(output) * fan_in // prod(eqn.params["lhs_dilation"])
