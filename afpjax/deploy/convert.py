"""A program's equations as ONNX nodes, for a batch of images, primitive by primitive."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from afpjax.deploy.elementwise import ELEMENTWISE, Rule
from afpjax.deploy.graph import Graph, Operand, Ref
from afpjax.deploy.shaping import SHAPING
from afpjax.deploy.windows import WINDOWS
from afpjax.inputs.errors import InputError
from afpjax.network.flatten import CALLS, CUSTOM, inner_jaxpr
from afpjax.network.program import Equation

RULES: Mapping[str, Rule] = {**ELEMENTWISE, **SHAPING, **WINDOWS}


def equation(
    graph: Graph, step: Equation, operands: Sequence[Operand], batch: int
) -> list[Operand]:
    """What an equation makes of `batch` images at once; an array where no image reaches it.

    A tensor among the operands has the batch axis first, an array is the same for every image.
    Raises `InputError` for a primitive that is not in `RULES`, by its name.
    """
    if not any(isinstance(each, Ref) for each in operands):
        return [np.asarray(each) for each in step.bind(*operands)]
    axes = tuple(0 if isinstance(each, Ref) else None for each in operands)
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in operands]
    mapped = jax.vmap(lambda *each: step.bind(*each), in_axes=axes, axis_size=batch)
    closed = jax.make_jaxpr(mapped)(*shapes)
    return _closed(graph, closed, operands)


def _closed(graph: Graph, closed: core.ClosedJaxpr, operands: Sequence[Operand]) -> list[Operand]:
    return _jaxpr(graph, closed.jaxpr, [np.asarray(each) for each in closed.consts], operands)


def _jaxpr(
    graph: Graph,
    jaxpr: core.Jaxpr,
    constants: Sequence[np.ndarray],
    operands: Sequence[Operand],
) -> list[Operand]:
    known: dict[Any, Operand] = dict(zip(jaxpr.invars, operands, strict=True))
    known.update(zip(jaxpr.constvars, constants, strict=True))

    def read(var: Any) -> Operand:
        return literal(var) if isinstance(var, core.Literal) else known[var]

    for eqn in jaxpr.eqns:
        made = _equation(graph, eqn, [read(var) for var in eqn.invars])
        known.update(zip(eqn.outvars, made, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _equation(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
    name = eqn.primitive.name
    inner = inner_jaxpr(eqn) if name in CALLS + CUSTOM else None
    if isinstance(inner, core.ClosedJaxpr):
        return _closed(graph, inner, operands)
    if inner is not None:
        return _jaxpr(graph, inner, [], operands)
    if not any(isinstance(each, Ref) for each in operands) and name != "broadcast_in_dim":
        return _folded(eqn, operands)
    if name not in RULES:
        raise InputError(
            f"export: `{name}` (near {graph.at}) is no primitive that afpjax writes as ONNX; "
            "write that part of the network otherwise"
        )
    made = RULES[name](graph, eqn, operands)
    return made if isinstance(made, list) else [made]


def literal(operand: core.Literal) -> np.ndarray:
    aval: Any = operand.aval
    return np.asarray(operand.val, aval.dtype)


def _folded(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
    """An equation on arrays alone, worked out by JAX."""
    arrays = [
        each
        for var, each in zip(eqn.invars, operands, strict=True)
        if not isinstance(var, core.Literal)
    ]
    variables = [var for var in eqn.invars if not isinstance(var, core.Literal)]
    info = core.DebugInfo("afpjax", eqn.primitive.name, None, None)
    jaxpr = core.Jaxpr((), variables, eqn.outvars, [eqn], eqn.effects, info)
    made = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))(*arrays)
    return [np.asarray(each) for each in made]
