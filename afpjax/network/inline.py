"""Flatten a jaxpr: nested calls become their equations, unless their derivative would be lost."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from afpjax.errors import InputError
from afpjax.network.program import Equation, Operand, Value

CONTROL_FLOW = ("scan", "while", "cond")
LINEAR = ("conv_general_dilated", "dot_general")
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


class Inliner:
    """Numbers values while it copies equations out of nested jaxprs.

    `origins[value]` are the paths of the parameters that a value is made of; a value that depends
    on the image is in `dependent`.
    """

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.shapes: dict[Value, tuple[int, ...]] = {}
        self.origins: dict[Value, frozenset[str]] = {}
        self.dependent: set[Value] = set()
        self.known: dict[Value, Any] = {}  # arrays that a nested function closed over

    def value(self, var: Any, origin: frozenset[str], dependent: bool) -> Value:
        value = Value(len(self.shapes))
        self.shapes[value] = tuple(getattr(var.aval, "shape", ()))
        self.origins[value] = origin
        if dependent:
            self.dependent.add(value)
        return value

    def depends(self, operand: Operand) -> bool:
        return isinstance(operand, Value) and operand in self.dependent

    def origin(self, operand: Operand) -> frozenset[str]:
        return self.origins[operand] if isinstance(operand, Value) else frozenset()

    def run(
        self, jaxpr: core.Jaxpr, inputs: Sequence[Operand], constants: Sequence[Value] = ()
    ) -> list[Operand]:
        """Copy a jaxpr's equations, its input variables standing for `inputs`."""
        environment: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        environment.update(zip(jaxpr.constvars, constants, strict=True))

        def read(var: Any) -> Operand:
            return var if isinstance(var, core.Literal) else environment[var]

        for eqn in jaxpr.eqns:
            operands = [read(var) for var in eqn.invars]
            environment.update(zip(eqn.outvars, self.equation(eqn, operands), strict=True))
        return [read(var) for var in jaxpr.outvars]

    def equation(self, eqn: core.JaxprEqn, operands: list[Operand]) -> list[Operand]:
        flags = [self.depends(operand) for operand in operands]
        if any(flags) and eqn.primitive.name in CONTROL_FLOW:
            self.refuse_hidden_layers(eqn, operands, flags)
        elif inner := _inlined(eqn, flags):
            return self.call(inner, operands)
        origin = frozenset().union(*map(self.origin, operands))
        outputs = [self.value(var, origin, any(flags)) for var in eqn.outvars]
        self.equations.append(Equation(eqn, tuple(operands), tuple(outputs)))
        return list(outputs)

    def call(self, inner: core.Jaxpr | core.ClosedJaxpr, operands: list[Operand]) -> list[Operand]:
        if not isinstance(inner, core.ClosedJaxpr):
            return self.run(inner, operands)
        return self.run(inner.jaxpr, operands, self.closed_over(inner))

    def closed_over(self, closed: core.ClosedJaxpr) -> list[Value]:
        values = [self.value(var, frozenset(), False) for var in closed.jaxpr.constvars]
        self.known.update(zip(values, closed.consts, strict=True))
        return values

    def refuse_hidden_layers(
        self, eqn: core.JaxprEqn, operands: list[Operand], flags: list[bool]
    ) -> None:
        """Control flow runs as it is, so a layer inside could neither be seen nor struck."""
        hidden = find_linear(eqn, flags)
        if hidden is None:
            return
        paths = sorted(frozenset().union(*map(self.origin, operands)))
        raise InputError(
            f"the network: `{eqn.primitive.name}` holds a layer (`{hidden.primitive.name}`, "
            f"kernel {hidden.invars[1].aval.str_short()}, parameters {', '.join(paths) or 'none'})"
            "; afpjax places every layer by itself: write the loop out in Python"
        )


def find_linear(eqn: core.JaxprEqn, flags: Sequence[bool]) -> core.JaxprEqn | None:
    """The first equation in `eqn`'s nested jaxprs with one operand that depends on the image."""
    for inner, inner_flags in _nested(eqn, flags):
        found, _ = _scan_for_linear(inner, inner_flags)
        if found is not None:
            return found
    return None


def is_linear(primitive: core.Primitive, flags: Sequence[bool]) -> bool:
    """A layer: exactly one operand, and of a convolution the image, depends on the input."""
    return primitive.name in LINEAR and (
        sum(flags) == 1 and (primitive.name == "dot_general" or flags[0])
    )


def _scan_for_linear(
    jaxpr: core.Jaxpr, flags: Sequence[bool]
) -> tuple[core.JaxprEqn | None, list[bool]]:
    known: dict[Any, bool] = dict(zip(jaxpr.invars, flags, strict=True))

    def depends(var: Any) -> bool:
        return not isinstance(var, core.Literal) and known.get(var, False)

    for eqn in jaxpr.eqns:
        inner = [depends(var) for var in eqn.invars]
        if is_linear(eqn.primitive, inner):
            return eqn, []
        found = find_linear(eqn, inner) if any(inner) else None
        if found is not None:
            return found, []
        known.update((var, any(inner)) for var in eqn.outvars)
    return None, [depends(var) for var in jaxpr.outvars]


def _nested(eqn: core.JaxprEqn, flags: Sequence[bool]) -> list[tuple[core.Jaxpr, list[bool]]]:
    """The jaxprs inside an equation with, for each of their inputs, whether the image reaches it."""
    name, params, flags = eqn.primitive.name, eqn.params, list(flags)
    if name == "cond":
        return [(branch.jaxpr, flags[1:]) for branch in params["branches"]]
    if name == "scan":
        body = params["jaxpr"].jaxpr
        consts, carry = params["num_consts"], params["num_carry"]
        return [(body, _loop_flags(body, flags, consts, carry))]
    if name == "while":
        tests, consts = params["cond_nconsts"], params["body_nconsts"]
        body, test = params["body_jaxpr"].jaxpr, params["cond_jaxpr"].jaxpr
        inner = _loop_flags(body, flags[tests:], consts, len(flags) - tests - consts)
        return [(body, inner), (test, flags[:tests] + inner[consts:])]
    return [(_open(_inner(eqn)), flags)] if name in CALLS + CUSTOM else []


def _loop_flags(body: core.Jaxpr, flags: list[bool], consts: int, carry: int) -> list[bool]:
    """Whether the image reaches a loop body's inputs, after as many rounds as it takes."""
    flags = list(flags)
    for _ in range(carry):
        _, out = _scan_for_linear(body, flags)
        carried = [a or b for a, b in zip(flags[consts : consts + carry], out[:carry])]
        if not out or carried == flags[consts : consts + carry]:
            break
        flags[consts : consts + carry] = carried
    return flags


def _inlined(eqn: core.JaxprEqn, flags: Sequence[bool]) -> Any:
    """The jaxpr to inline, or None: a custom derivative without a layer inside is kept whole."""
    name = eqn.primitive.name
    if name not in CALLS and not (name in CUSTOM and find_linear(eqn, flags)):
        return None
    return _inner(eqn)


def _inner(eqn: core.JaxprEqn) -> Any:
    kinds = (core.Jaxpr, core.ClosedJaxpr)
    return next((value for value in eqn.params.values() if isinstance(value, kinds)), None)


def _open(jaxpr: Any) -> core.Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
