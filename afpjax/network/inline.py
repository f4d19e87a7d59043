"""Flatten a jaxpr: nested calls become their equations, unless their derivative would be lost."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from afpjax.inputs.errors import InputError
from afpjax.network.hidden import (
    CALLS,
    CUSTOM,
    OPAQUE,
    Fact,
    Hidden,
    hidden_layer,
    inner_jaxpr,
    merge,
)
from afpjax.network.names import layer_name
from afpjax.network.program import Equation, Operand, Value


class Inliner:
    """Numbers values while it copies equations out of nested jaxprs.

    `facts[value]` says which parameters a value is made of, and whether the image reaches it.
    """

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.shapes: dict[Value, tuple[int, ...]] = {}
        self.facts: dict[Value, Fact] = {}
        self.known: dict[Value, Any] = {}  # arrays that a function closed over

    def value(self, var: Any, fact: Fact) -> Value:
        """A new value of a jaxpr variable's shape."""
        value = Value(len(self.shapes))
        self.shapes[value] = tuple(getattr(var.aval, "shape", ()))
        self.facts[value] = fact
        return value

    def fact(self, operand: Operand) -> Fact:
        return self.facts[operand] if isinstance(operand, Value) else Fact()

    def depends(self, operand: Operand) -> bool:
        return self.fact(operand).dependent

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

    def closed_over(self, closed: core.ClosedJaxpr) -> list[Value]:
        """Values for the arrays that a jaxpr carries with it."""
        values = [self.value(var, Fact()) for var in closed.jaxpr.constvars]
        self.known.update(zip(values, closed.consts, strict=True))
        return values

    def _equation(self, eqn: core.JaxprEqn, operands: list[Operand]) -> list[Operand]:
        facts, name = [self.fact(operand) for operand in operands], eqn.primitive.name
        hidden = hidden_layer(eqn, facts) if name in OPAQUE + CUSTOM else None
        if name in OPAQUE and hidden is not None:
            raise InputError(_refusal(name, hidden))
        if name in CALLS or hidden is not None:
            return self._call(inner_jaxpr(eqn), operands)
        outputs = [self.value(var, merge(facts)) for var in eqn.outvars]
        self.equations.append(Equation(eqn, tuple(operands), tuple(outputs)))
        return list(outputs)

    def _call(self, inner: core.Jaxpr | core.ClosedJaxpr, operands: list[Operand]) -> list[Operand]:
        if not isinstance(inner, core.ClosedJaxpr):
            return self.run(inner, operands)
        return self.run(inner.jaxpr, operands, self.closed_over(inner))


def _refusal(outer: str, hidden: Hidden) -> str:
    kernel = hidden.eqn.invars[hidden.kernel].aval
    made_of = ", ".join(sorted(hidden.origin)) or "an array that the network closes over"
    return (
        f"the network: `{outer}` holds a layer ({layer_name(hidden.origin) or 'without a name'}: "
        f"`{hidden.eqn.primitive.name}`, kernel {kernel} of {made_of}); afpjax places every layer "
        "by itself: write the loop or branch out in Python"
    )
