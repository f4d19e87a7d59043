"""Trace a JAX callable into a program of layers: the way into afpjax."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from afpjax.errors import InputError
from afpjax.network.find import find_layers
from afpjax.network.fold import fold
from afpjax.network.graph import tensors
from afpjax.network.hidden import Fact
from afpjax.network.inline import Inliner
from afpjax.network.layers import LayerGraph
from afpjax.network.network import Network
from afpjax.network.program import (
    Equation,
    LayerCall,
    LayerParameters,
    Operand,
    Parameters,
    Program,
    Value,
    reads,
)

Step = Equation | LayerCall
AnyStep = TypeVar("AnyStep", Equation, Step)


def trace(apply_fn: Callable[..., Any], params: Any, sample: Any) -> Network:
    """Turn `apply_fn(params, images) -> logits` into a network of layers.

    `params` is any pytree; its arrays become parameters, anything else in it (a number, a flag, a
    function) stays as it is. `sample` is a batch of images (an array or a `ShapeDtypeStruct`,
    [B, ...]); the program is that of one image, so `apply_fn` must treat the images of a batch
    independently. The logits are [B, classes]. Raises `InputError` for a network without layers,
    with a layer inside control flow or of integers, or with parameters that are not finite.
    """
    names, arrays, restore = _split(params)
    image = _one_image(sample)
    closed = jax.make_jaxpr(lambda p, x: _one_logits(apply_fn(restore(p), x[None])))(arrays, image)
    inliner = Inliner()
    constants = inliner.closed_over(closed)
    variables = closed.jaxpr.invars
    known = [
        inliner.value(var, Fact(False, frozenset({name})))
        for var, name in zip(variables[:-1], names, strict=True)
    ]
    entrance = inliner.value(variables[-1], Fact(True))
    (output,) = inliner.run(closed.jaxpr, [*known, entrance], constants)
    closed_over = [("an array that the network closes over", v) for v in inliner.known.values()]
    _refuse_not_finite([*zip(names, arrays, strict=True), *closed_over])
    inliner.known.update(zip(known, arrays, strict=True))
    equations, values = _evaluate_known(inliner, output)
    steps, layers, output = fold(find_layers(equations, inliner), values, output)
    steps = _live(steps, output)
    _refuse_no_layers(steps)
    image_program = _program(steps, values, entrance, image, output, inliner.shapes)
    return Network(image_program, _parameters(image_program, layers, values))


def _split(params: Any) -> tuple[list[str], list[Any], Callable[[list[Any]], Any]]:
    """Dotted paths and values of a pytree's arrays, and the way back to the whole tree."""
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in paths]
    places = [
        i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray | np.generic)
    ]

    def restore(arrays: list[Any]) -> Any:
        whole = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            whole[place] = array
        return jax.tree.unflatten(structure, whole)

    names = [_dotted(paths[place][0]) or str(place) for place in places]
    return names, [leaves[place] for place in places], restore


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(jax.tree_util.keystr((key,), simple=True) for key in path)


def _one_image(sample: Any) -> jax.ShapeDtypeStruct:
    if not hasattr(sample, "dtype") or np.ndim(sample) < 2:
        raise InputError(
            "the sample: it is no batch of images, [B, ...]; give an array with a batch axis"
        )
    return jax.ShapeDtypeStruct(sample.shape[1:], jax.dtypes.canonicalize_dtype(sample.dtype))


def _one_logits(logits: Any) -> Array:
    if not isinstance(logits, jax.Array):
        raise InputError(
            f"the network: it gives a {type(logits).__name__}, not one array of logits; wrap it in "
            "a function that returns the logits alone"
        )
    if logits.ndim != 2 or logits.shape[0] != 1:
        raise InputError(
            f"the network: a batch of one image gives {logits.shape}, not logits [1, classes]; "
            "keep the batch axis, and flatten the others"
        )
    return logits[0]


def _refuse_not_finite(named: Iterable[tuple[str, Any]]) -> None:
    for name, array in named:
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(np.asarray(array)).all():
            raise InputError(
                f"the network's weights: {name} holds NaN or infinity; load weights that are finite"
            )


def _refuse_no_layers(steps: list[Step]) -> None:
    if not any(isinstance(step, LayerCall) for step in steps):
        raise InputError(
            "the network has no layers: no convolution or matrix product of its input with "
            "fixed weights; check that `apply_fn(params, images)` uses both arguments"
        )


def _evaluate_known(inliner: Inliner, output: Operand) -> tuple[list[Equation], dict[Value, Any]]:
    """Split off what depends on parameters alone, and evaluate it in one compiled program.

    Broadcasts of small arrays stay in the program (XLA fuses them), so that a per-channel constant
    is not held once per pixel.
    """
    live = _live(inliner.equations, output)
    dependent = [step for step in live if any(map(inliner.depends, step.outputs))]
    fixed = [step for step in live if not any(map(inliner.depends, step.outputs))]
    read = {value for step in dependent for value in reads(step)}
    broadcasts = [
        step
        for step in fixed
        if step.primitive.name == "broadcast_in_dim" and step.outputs[0] in read
    ]
    read |= {value for step in broadcasts for value in reads(step)}
    made = {value for step in fixed for value in step.outputs}
    values = {value: inliner.known[value] for value in read & inliner.known.keys()}
    wanted = sorted(read & made - {step.outputs[0] for step in broadcasts})
    if wanted:
        values.update(zip(wanted, _evaluate(fixed, inliner.known, wanted), strict=True))
    return [*broadcasts, *dependent], values


def _evaluate(fixed: list[Equation], known: dict[Value, Any], wanted: list[Value]) -> list[Array]:
    used = {value: known[value] for step in fixed for value in reads(step) if value in known}

    @jax.jit
    def run(arrays: list[Any]) -> list[Any]:
        environment = dict(zip(used, arrays, strict=True))
        for step in fixed:
            operands = [environment[o] if isinstance(o, Value) else o.val for o in step.inputs]
            environment.update(zip(step.outputs, step.bind(*operands), strict=True))
        return [environment[value] for value in wanted]

    return run(list(used.values()))


def _program(
    steps: list[Step],
    values: dict[Value, Any],
    entrance: Value,
    image: jax.ShapeDtypeStruct,
    output: Operand,
    shapes: dict[Value, tuple[int, ...]],
) -> Program:
    made = {value for step in steps for value in step.outputs}
    read = {value for step in steps for value in reads(step)}
    layers = tuple(step.layer for step in steps if isinstance(step, LayerCall))
    return Program(
        steps=tuple(steps),
        constants=tuple(sorted(read & values.keys() - made)),
        image=entrance,
        output=output,
        image_shape=image.shape,
        image_dtype=image.dtype,
        graph=LayerGraph(layers, tensors(steps, entrance, shapes)),
    )


def _parameters(
    program: Program, layers: dict[str, LayerParameters], values: dict[Value, Any]
) -> Parameters:
    arrays = {layer.name: layers[layer.name] for layer in program.graph.layers}
    return Parameters(arrays, tuple(jnp.asarray(values[value]) for value in program.constants))


def _live(steps: Iterable[AnyStep], output: Operand) -> list[AnyStep]:
    """Leave out the steps that nothing reads."""
    needed: set[Any] = {output} if isinstance(output, Value) else set()
    kept: list[AnyStep] = []
    for step in reversed(list(steps)):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(reads(step))
    return kept[::-1]
