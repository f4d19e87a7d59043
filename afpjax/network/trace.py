"""Trace a JAX callable into a program of layers: the way into afpjax."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from afpjax.errors import InputError
from afpjax.network.find import find_layers
from afpjax.network.fold import fold
from afpjax.network.graph import tensors
from afpjax.network.inline import Inliner
from afpjax.network.layers import LayerGraph
from afpjax.network.network import Network
from afpjax.network.program import Equation, LayerCall, Operand, Parameters, Program, Value, reads


def trace(apply_fn: Callable[[Any, Array], Array], params: Any, sample: Array) -> Network:
    """Turn `apply_fn(params, images) -> logits` into a network of layers.

    `sample` is a batch of images (an array or a `ShapeDtypeStruct`, [B, ...]); the program is that
    of one image, so `apply_fn` must treat the images of a batch independently. The logits are
    [B, classes]. Raises `InputError` for a network without layers, with a layer inside control
    flow, or with parameters that are not finite.
    """
    leaves, shape = _flatten(params), tuple(sample.shape[1:])
    image = jax.ShapeDtypeStruct(shape, sample.dtype)
    closed = jax.make_jaxpr(lambda p, x: _one_logits(apply_fn(p, x[None])))(params, image)
    inliner = Inliner()
    constants = inliner.closed_over(closed)
    _refuse_not_finite(leaves, inliner.known)
    variables = closed.jaxpr.invars
    known = [
        inliner.value(var, frozenset({path}), False)
        for var, path in zip(variables[:-1], leaves, strict=True)
    ]
    inliner.known.update(zip(known, leaves.values(), strict=True))
    entrance = inliner.value(variables[-1], frozenset(), True)
    (output,) = inliner.run(closed.jaxpr, [*known, entrance], constants)
    steps, values = _evaluate_known(inliner, output)
    steps = find_layers(steps, inliner)
    if not any(isinstance(step, LayerCall) for step in steps):
        raise InputError(
            "the network has no layers: no convolution or matrix product of its input with "
            "fixed weights; check that `apply_fn(params, images)` uses both arguments"
        )
    steps, layers = fold(steps, values, output)
    return _assemble(steps, layers, values, entrance, output, inliner.shapes)


def _one_logits(logits: Array) -> Array:
    if logits.ndim != 2 or logits.shape[0] != 1:
        raise InputError(
            f"the network: a batch of one image gives {tuple(logits.shape)}, not logits [1, classes]"
        )
    return logits[0]


def _flatten(params: Any) -> dict[str, Any]:
    """The parameters by dotted path, in the order of the traced function's arguments."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {_dotted(path) or str(i): leaf for i, (path, leaf) in enumerate(paths)}


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(jax.tree_util.keystr((key,), simple=True) for key in path)


def _refuse_not_finite(leaves: dict[str, Any], known: dict[Value, Any]) -> None:
    named = {**leaves, **{"an array that the network closes over": v for v in known.values()}}
    for path, leaf in named.items():
        array = (
            np.asarray(leaf) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else 0
        )
        if np.issubdtype(np.result_type(array), np.inexact) and not np.isfinite(array).all():
            raise InputError(
                f"the network's weights: {path} holds NaN or infinity; load weights that are finite"
            )


def _evaluate_known(inliner: Inliner, output: Operand) -> tuple[list[Equation], dict[Value, Array]]:
    """Split off what depends on parameters alone, and evaluate it in one compiled program.

    Broadcasts of small arrays stay in the program (XLA fuses them), so that a per-channel constant
    is not held once per pixel.
    """
    dependent = [e for e in inliner.equations if any(v in inliner.dependent for v in e.outputs)]
    fixed = [e for e in inliner.equations if not any(v in inliner.dependent for v in e.outputs)]
    read = {value for step in dependent for value in reads(step)} - inliner.dependent
    broadcasts = [
        e for e in fixed if e.primitive.name == "broadcast_in_dim" and e.outputs[0] in read
    ]
    read |= {value for step in broadcasts for value in reads(step)}
    made = {value for step in fixed for value in step.outputs}
    values = {v: inliner.known[v] for v in read - made}
    wanted = sorted(read & made)
    if wanted:
        values.update(zip(wanted, _evaluate(fixed, inliner.known, wanted), strict=True))
    return [*broadcasts, *dependent], values


def _evaluate(fixed: list[Equation], known: dict[Value, Any], wanted: list[Value]) -> list[Array]:
    used = {v: known[v] for step in fixed for v in reads(step) if v in known}

    @jax.jit
    def run(arrays: list[Any]) -> list[Any]:
        environment = dict(zip(used, arrays, strict=True))
        for step in fixed:
            operands = [environment[o] if isinstance(o, Value) else o.val for o in step.inputs]
            environment.update(zip(step.outputs, step.bind(*operands), strict=True))
        return [environment[value] for value in wanted]

    return run(list(used.values()))


def _assemble(
    steps: list[Equation | LayerCall],
    layers: dict[str, Any],
    values: dict[Value, Array],
    entrance: Value,
    output: Operand,
    shapes: dict[Value, tuple[int, ...]],
) -> Network:
    steps = _live(steps, output)
    made = {value for step in steps for value in step.outputs} | {entrance}
    read = {value for step in steps for value in reads(step)}
    constants = tuple(sorted((read | {output}) & values.keys() - made))
    calls = [step for step in steps if isinstance(step, LayerCall)]
    graph = LayerGraph(tuple(call.layer for call in calls), tensors(steps, entrance, shapes))
    program = Program(tuple(steps), constants, entrance, output, shapes[entrance], graph)
    arrays = {call.layer.name: layers[call.layer.name] for call in calls}
    return Network(
        program, Parameters(arrays, tuple(jax.numpy.asarray(values[v]) for v in constants))
    )


def _live(steps: list[Equation | LayerCall], output: Operand) -> list[Equation | LayerCall]:
    """Drop steps that nothing reads any more."""
    needed: set[Any] = {output}
    kept: list[Equation | LayerCall] = []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(reads(step))
    return kept[::-1]
