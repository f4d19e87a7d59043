"""Flatten a jaxpr: nested calls become their equations, and what parameters alone decide is known.

Loops and branches run as they are, so that a layer inside could neither be seen nor made faulty:
they are looked into, and refused if they hold one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jaxtyping import Array

from afpjax.inputs.errors import InputError
from afpjax.network.program import Equation, Operand, Value, live, reads
from afpjax.network.units import LINEAR

OPAQUE = ("scan", "while", "cond", "shard_map")
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "composite")
# A rule (derivative, batching) belongs to these: they are kept whole unless a layer is inside.
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call")

#: What the arrays of a layer are called, which is no part of the layer's own name.
_LEAVES = ("kernel", "weight", "weights", "w", "W", "embedding")
_WRAPPERS = ("value", "raw_value")  # an NNX variable's array
_COLLECTIONS = ("params",)


class Dependence(NamedTuple):
    """What a value depends on: whether on the image, and on which parameters."""

    on_image: bool = False
    parameters: frozenset[str] = frozenset()


class Inliner:
    """Numbers values while it copies equations out of nested jaxprs."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.shapes: dict[Value, tuple[int, ...]] = {}
        self.dependences: dict[Value, Dependence] = {}
        self.known: dict[Value, Any] = {}  # arrays that a function closed over

    def value(self, var: Any, dependence: Dependence) -> Value:
        """A new value of a jaxpr variable's shape."""
        value = Value(len(self.shapes))
        self.shapes[value] = tuple(getattr(var.aval, "shape", ()))
        self.dependences[value] = dependence
        return value

    def dependence(self, operand: Operand) -> Dependence:
        return self.dependences[operand] if isinstance(operand, Value) else Dependence()

    def depends(self, operand: Operand) -> bool:
        """Whether the image reaches it."""
        return self.dependence(operand).on_image

    def run(
        self, jaxpr: core.Jaxpr, inputs: Sequence[Operand], constants: Sequence[Value] = ()
    ) -> list[Operand]:
        """Copy a jaxpr's equations, its input variables standing for `inputs`.

        Raises `InputError` for a layer inside control flow, by the layer's name.
        """
        environment: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        environment.update(zip(jaxpr.constvars, constants, strict=True))

        def read(var: Any) -> Operand:
            return var if isinstance(var, core.Literal) else environment[var]

        for eqn in jaxpr.eqns:
            operands = [read(var) for var in eqn.invars]
            environment.update(zip(eqn.outvars, self._equation(eqn, operands), strict=True))
        return [read(var) for var in jaxpr.outvars]

    def call(self, jaxpr: Any, operands: Sequence[Operand]) -> list[Operand]:
        """Copy the equations of a jaxpr, open or closed."""
        if isinstance(jaxpr, core.ClosedJaxpr):
            return self.run(jaxpr.jaxpr, operands, self.closed_over(jaxpr))
        return self.run(jaxpr, operands)

    def closed_over(self, closed: core.ClosedJaxpr) -> list[Value]:
        """Values for the arrays that a jaxpr carries with it."""
        values = [self.value(var, Dependence()) for var in closed.jaxpr.constvars]
        self.known.update(zip(values, closed.consts, strict=True))
        return values

    def _equation(self, eqn: core.JaxprEqn, operands: list[Operand]) -> list[Operand]:
        name = eqn.primitive.name
        dependences = [self.dependence(operand) for operand in operands]
        layer = _layer_inside(eqn, dependences) if name in OPAQUE + CUSTOM else None
        if name in OPAQUE and layer is not None:
            raise _HiddenLayerError(name, layer)
        if name in CALLS or layer is not None:
            return self.call(inner_jaxpr(eqn), operands)
        outputs = [self.value(var, _together(dependences)) for var in eqn.outvars]
        self.equations.append(Equation(eqn, tuple(operands), tuple(outputs)))
        return list(outputs)


class _Layer(NamedTuple):
    """A layer's own equation, its kernel's shape, and what that is made of."""

    eqn: core.JaxprEqn
    kernel: Any
    parameters: frozenset[str]


class _HiddenLayerError(InputError):
    """Control flow holds a layer."""

    def __init__(self, outer: str, layer: _Layer) -> None:
        self.layer = layer
        made_of = ", ".join(sorted(layer.parameters)) or "an array that the network closes over"
        super().__init__(
            f"the network: `{outer}` holds a layer ({layer_name(layer.parameters) or 'no name'}: "
            f"`{layer.eqn.primitive.name}`, kernel {layer.kernel} of {made_of}); afpjax places "
            "every layer by itself: write the loop or branch out in Python"
        )


def layer_name(parameters: frozenset[str]) -> str:
    """The common dotted path of a kernel's parameters, without the leaf's own name; "" for none."""
    paths = [path.split(".") for path in sorted(parameters)]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    for endings in (_WRAPPERS, _LEAVES):
        if len(common) > 1 and common[-1] in endings:
            common.pop()
    if len(common) > 1 and common[0] in _COLLECTIONS:
        common = common[1:]
    return ".".join(common)


def kernel_operand(primitive: core.Primitive, dependences: Sequence[Dependence]) -> int | None:
    """Which operand of a layer is its kernel, or None if the equation is no layer.

    A layer is a convolution or matrix product of which exactly one operand depends on the image;
    of a convolution, the first.
    """
    on_image = [dependence.on_image for dependence in dependences]
    if primitive.name not in LINEAR or sum(on_image) != 1:
        return None
    if primitive.name == "conv_general_dilated" and not on_image[0]:
        return None
    return on_image.index(False)


def inner_jaxpr(eqn: core.JaxprEqn) -> Any:
    """The (closed) jaxpr that a call equation calls, or None."""
    kinds = (core.Jaxpr, core.ClosedJaxpr)
    return next((value for value in eqn.params.values() if isinstance(value, kinds)), None)


def _together(dependences: Iterable[Dependence]) -> Dependence:
    """What a value made from several depends on."""
    all_of_them = list(dependences)
    return Dependence(
        any(each.on_image for each in all_of_them),
        frozenset().union(*(each.parameters for each in all_of_them)),
    )


def _layer_inside(eqn: core.JaxprEqn, dependences: Sequence[Dependence]) -> _Layer | None:
    """The first layer in an equation's nested jaxprs, its operands depending on what they do."""
    if not _together(dependences).on_image:
        return None
    inner = (_look(jaxpr, own)[0] for jaxpr, own in _nested(eqn, list(dependences)))
    return next((layer for layer in inner if layer is not None), None)


def _look(jaxpr: Any, dependences: Sequence[Dependence]) -> tuple[_Layer | None, list[Dependence]]:
    """A jaxpr's first layer, else what its outputs depend on."""
    inliner, variables = Inliner(), getattr(jaxpr, "jaxpr", jaxpr).invars
    inputs = [inliner.value(*pair) for pair in zip(variables, dependences, strict=True)]
    try:
        outputs = inliner.call(jaxpr, inputs)
    except _HiddenLayerError as error:
        return error.layer, []
    for equation in inliner.equations:
        operands = [inliner.dependence(operand) for operand in equation.inputs]
        if (kernel := kernel_operand(equation.primitive, operands)) is not None:
            shape = equation.eqn.invars[kernel].aval
            return _Layer(equation.eqn, shape, operands[kernel].parameters), []
    return None, [inliner.dependence(output) for output in outputs]


def _nested(
    eqn: core.JaxprEqn, dependences: list[Dependence]
) -> list[tuple[Any, list[Dependence]]]:
    """The jaxprs that an equation runs, with what their inputs depend on."""
    name, params = eqn.primitive.name, eqn.params
    if name == "cond":
        return [(branch, dependences[1:]) for branch in params["branches"]]
    if name == "scan":
        return [(params["jaxpr"], _in_loop(params["jaxpr"], dependences, *_scan_counts(params)))]
    if name == "while":
        tests, constants = params["cond_nconsts"], params["body_nconsts"]
        carried = len(dependences) - tests - constants
        inner = _in_loop(params["body_jaxpr"], dependences[tests:], constants, carried)
        test = dependences[:tests] + inner[constants:]
        return [(params["body_jaxpr"], inner), (params["cond_jaxpr"], test)]
    return [(inner_jaxpr(eqn), dependences)]


def _scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()  # jax 0.11
    return len(list(constants)), len(list(carried))


def _in_loop(
    body: Any, dependences: list[Dependence], constants: int, carried: int
) -> list[Dependence]:
    """What a loop body's inputs depend on after as many rounds as it takes to learn it."""
    inputs, state = list(dependences), slice(constants, constants + carried)
    for _ in range(carried):
        layer, outputs = _look(body, inputs)
        if layer is not None:
            break
        after = [_together(pair) for pair in zip(inputs[state], outputs[:carried], strict=True)]
        if after == inputs[state]:
            break
        inputs[state] = after
    return inputs


@dataclass(frozen=True, eq=False)
class ParameterPart:
    """The equations that the image does not reach, as one compiled function of what they read."""

    inputs: tuple[Value, ...]  # what the equations read
    outputs: tuple[Value, ...]  # what the rest of the program reads of what they make
    passed: tuple[Value, ...]  # parameters that the rest of the program reads as they are
    evaluate: Callable[[list[Any]], list[Array]]

    @property
    def needs(self) -> frozenset[Value]:
        """Every array that must be given."""
        return frozenset((*self.inputs, *self.passed))

    def values(self, arrays: Mapping[Value, Any]) -> dict[Value, Any]:
        """The values that the rest of the program reads, from arrays or tracers.

        What is only passed on stays what it is (NumPy float64, say).
        """
        values = {value: arrays[value] for value in self.passed}
        made = self.evaluate([arrays[value] for value in self.inputs]) if self.outputs else []
        return values | dict(zip(self.outputs, made, strict=True))


def split(
    inliner: Inliner, parameters: Iterable[Value], output: Operand
) -> tuple[ParameterPart, list[Equation]]:
    """Split a program in what depends on its parameters alone, and the equations that remain.

    Broadcasts of small arrays stay in the program (XLA fuses them), so that a per-channel constant
    is not held once per pixel.
    """
    steps = live(inliner.equations, output)
    dependent = [step for step in steps if any(map(inliner.depends, step.outputs))]
    fixed = [step for step in steps if not any(map(inliner.depends, step.outputs))]
    read = {value for step in dependent for value in reads(step)}
    broadcasts = [
        step
        for step in fixed
        if step.primitive.name == "broadcast_in_dim" and step.outputs[0] in read
    ]
    read |= {value for step in broadcasts for value in reads(step)}
    given = {*parameters}
    made = {value for step in fixed for value in step.outputs}
    outputs = tuple(sorted(read & made - {step.outputs[0] for step in broadcasts}))
    inputs = tuple(sorted({value for step in fixed for value in reads(step)} & given))

    def evaluate(arrays: list[Any]) -> list[Any]:
        environment = dict(zip(inputs, arrays, strict=True))
        for step in fixed:
            operands = [environment[o] if isinstance(o, Value) else o.val for o in step.inputs]
            environment.update(zip(step.outputs, step.bind(*operands), strict=True))
        return [environment[value] for value in outputs]

    passed = tuple(sorted(read & given))
    return ParameterPart(inputs, outputs, passed, jax.jit(evaluate)), [*broadcasts, *dependent]
