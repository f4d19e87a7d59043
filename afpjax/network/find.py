"""Find the layers among a program's equations, and name them after their parameters."""

import math
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from afpjax.network.inline import Inliner, is_linear
from afpjax.network.layers import Layer
from afpjax.network.program import Equation, LayerCall, Operand

LEAVES = ("kernel", "weight", "weights", "w", "W", "value", "raw_value", "embedding")
COLLECTIONS = ("params",)


def find_layers(equations: Sequence[Equation], inliner: Inliner) -> list[Equation | LayerCall]:
    """Replace every convolution or dense product with a fixed kernel by a `LayerCall`.

    A layer is named after its kernel's parameter; a second use of the same kernel is `name:2`,
    a kernel that is no parameter (a constant of the function) `conv_0`, `dense_1`, …
    """
    steps: list[Equation | LayerCall] = []
    uses: dict[str, int] = {}
    for equation in equations:
        flags = [inliner.depends(operand) for operand in equation.inputs]
        if not is_linear(equation.primitive, flags):
            steps.append(equation)
            continue
        kernel = equation.inputs[flags.index(False)]
        kind = "conv" if equation.primitive.name == "conv_general_dilated" else "dense"
        name = _name(inliner.origin(kernel)) or f"{kind}_{sum(uses.values())}"
        uses[name] = uses.get(name, 0) + 1
        unique = name if uses[name] == 1 else f"{name}:{uses[name]}"
        steps.append(_layer_call(equation, flags.index(False), unique, kind, inliner))
    return steps


def _name(origin: frozenset[str]) -> str:
    """The common path of the parameters that a kernel is made of, without the leaf's own name."""
    paths = [path.split(".") for path in sorted(origin)]
    if not paths:
        return ""
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    while len(common) > 1 and common[-1] in LEAVES:
        common.pop()
    if len(common) > 1 and common[0] in COLLECTIONS:
        common = common[1:]
    return ".".join(common)


def _layer_call(
    equation: Equation, kernel: int, name: str, kind: str, inliner: Inliner
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
        return tuple(operand.aval.shape)
    return inliner.shapes[operand]
