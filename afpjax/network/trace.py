"""Trace a JAX callable into a program of layers: the way into afpjax."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network import self_check
from afpjax.network.batch_check import refuse_dependent_images
from afpjax.network.find_layers import coverage, find_layers
from afpjax.network.flatten import Dependence, Inliner, ParameterPart, split
from afpjax.network.fold import FoldedLayer, with_shared
from afpjax.network.fold import fold as fold_steps
from afpjax.network.interpreter import Network
from afpjax.network.layers import LayerGraph
from afpjax.network.program import (
    LayerCall,
    LayerParameters,
    Operand,
    Parameters,
    Program,
    Value,
    live,
    reads,
)
from afpjax.network.softmax import never_above_maximum
from afpjax.network.stages import tensors


def trace(apply_fn: Callable[..., Any], params: Any, sample: Any, *, fold: bool = True) -> Network:
    """Turn `apply_fn(params, images) -> logits` into a network of layers.

    `params` is any pytree; its arrays become parameters, anything else in it (a number, a flag, a
    function) stays as it is. `sample` is a batch of images (an array or a `ShapeDtypeStruct`,
    [B, ...]); the program is that of one image, so `apply_fn` must treat the images of a batch
    independently: a few of them show whether it does (`batch_check`). The logits are [B, classes].
    Layers are folded in float64 and stored in float32. Without `fold`, batch norm stays in the
    program as it was traced, and a layer's kernel is the function's own: so that its bits are those
    of the weights that a file holds. Raises `InputError` for a network without layers, with a layer
    inside control flow or of integers, with parameters that are not finite, folded or not, or whose
    logits depend on what else is in a batch, as in training.
    """
    return trace_with_refold(apply_fn, params, sample, fold=fold)[0]


def trace_with_refold(
    apply_fn: Callable[..., Any], params: Any, sample: Any, *, fold: bool = True
) -> tuple[Network, Callable[[Any], Parameters]]:
    """`trace`, and the network's folded parameters as a function of the original ones.

    `refold(params)` takes another pytree like `params` (the same leaves, shapes and dtypes; arrays
    or tracers) and gives the parameters of the same program, folded in float32. It is pure, and can
    be jitted and differentiated: with `dataclasses.replace(quantized, parameters=refold(params))`
    a loss under faults has gradients with respect to the original parameters.

    The program, and what is folded into which layer, is that of the traced `params`. Three
    decisions hang on their numbers: a divisor has no zeros, an array as large as a layer's output
    varies along its channel axes alone, and layers share a kernel that is equal once folded.
    `refold` assumes all of other parameters: of such an array it reads the first place of each
    channel, and what is not finite it does not refuse. What is no array among the leaves stays as
    it was traced. `refold` raises `InputError` for another pytree.
    """
    self_check.check()
    if not callable(apply_fn):
        got = checks.shown(apply_fn)
        raise InputError(f"apply_fn: needs a function (params, images), got {got}")
    tree, arrays = take_apart(params)
    _refuse_not_finite(zip(tree.names, arrays, strict=True))
    traced = _traced(apply_fn, tree, arrays, sample, fold)
    network = Network(traced.program, traced.parameters(traced.values, _in_float64))
    refuse_dependent_images(lambda p, x: apply_fn(tree.restore(p), x), arrays, network, sample)
    return network, _refold(traced, tree)


def outline(
    apply_fn: Callable[..., Any], shapes: Any, sample: Any, *, fold: bool = True
) -> Program:
    """The program that `trace` would give, from the shapes of the parameters alone.

    `shapes` is a pytree of `ShapeDtypeStruct`. What stands in for the parameters varies along its
    last axis only and takes no memory; so the layers are those of `trace` wherever the shapes
    decide what is folded: no divisor has zeros, and what varies over channels has these last.
    """

    def stand_in(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        row = np.linspace(0.5, 1.5, shape.shape[-1] if shape.shape else 1).astype(shape.dtype)
        return np.broadcast_to(row if shape.shape else row[0], shape.shape)

    tree, arrays = take_apart(jax.tree.map(stand_in, shapes))
    return _traced(apply_fn, tree, arrays, sample, fold).program


class _Traced(NamedTuple):
    """A program, and what its layers' arrays are made of."""

    program: Program
    folded: Mapping[str, FoldedLayer]
    values: Mapping[Value, Any]
    parameter_part: ParameterPart
    inputs: Sequence[Value]
    closed_over: Mapping[Value, Any]

    def parameters(
        self,
        values: Mapping[Value, Any],
        arrays_of: Callable[[FoldedLayer, Mapping[Value, Any]], LayerParameters],
    ) -> Parameters:
        layers = {name: arrays_of(self.folded[name], values) for name in self.program.graph.names}
        constants = (jnp.asarray(values[value]) for value in self.program.constants)
        return Parameters(layers, tuple(constants))


def _traced(
    apply_fn: Callable[..., Any],
    tree: "ParameterTree",
    arrays: Sequence[Any],
    sample: Any,
    fold: bool,
) -> _Traced:
    image = _one_image(sample)
    closed = jax.make_jaxpr(lambda p, x: _one_logits(apply_fn(tree.restore(p), x[None])))(
        arrays, image
    )
    inliner, (*inputs, entrance), output = _inlined(closed, tree.names)
    closed_over = inliner.known
    _refuse_not_finite(("an array that the network closes over", a) for a in closed_over.values())
    parameter_part, equations = split(inliner, {*inputs, *closed_over}, output)
    given = closed_over | dict(zip(inputs, arrays, strict=True))
    values = parameter_part.values(given)
    steps, folded, output = fold_steps(find_layers(equations, inliner), values, output, norms=fold)
    steps = never_above_maximum(live(steps, output), inliner)
    layers = tuple(step.layer for step in steps if isinstance(step, LayerCall))
    if not layers:
        raise InputError(
            "the network has no layers: no convolution or matrix product of its input with "
            "fixed weights; check that `apply_fn(params, images)` uses both arguments"
        )
    sizes = {name: int(a.size) for name, a in zip(tree.names, arrays, strict=True)}
    made = {value for step in steps for value in step.outputs}
    read = {value for step in steps for value in reads(step)}
    program = Program(
        steps=tuple(steps),
        constants=tuple(sorted(read & values.keys() - made)),
        image=entrance,
        output=output,
        image_shape=image.shape,
        image_dtype=image.dtype,
        graph=LayerGraph(layers, tensors(steps, entrance, inliner.shapes)),
        coverage=coverage(steps, folded, inliner.dependence, sizes),
    )
    program = with_shared(program, folded, values, inliner.equations, given)
    return _Traced(program, folded, values, parameter_part, inputs, closed_over)


def _inlined(
    closed: core.ClosedJaxpr, names: Sequence[str]
) -> tuple[Inliner, list[Value], Operand]:
    """The flat equations, the values of the parameters and of the image, and the logits'."""
    inliner = Inliner()
    constants = inliner.closed_over(closed)
    dependences = [*(Dependence(False, frozenset({name})) for name in names), Dependence(True)]
    inputs = [inliner.value(*pair) for pair in zip(closed.jaxpr.invars, dependences, strict=True)]
    (output,) = inliner.run(closed.jaxpr, inputs, constants)
    return inliner, inputs, output


def _one_image(sample: Any) -> jax.ShapeDtypeStruct:
    if not hasattr(sample, "dtype") or np.ndim(sample) < 2:
        raise InputError(
            "the sample: it is no batch of images, [B, ...]; give an array with a batch axis"
        )
    checks.finite("the sample", checks.array("the sample", sample))
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


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused by its layer's name
def _in_float64(layer: FoldedLayer, values: Mapping[Value, Any]) -> LayerParameters:
    arrays = layer.arrays(values, np, np.float64)
    if not all(np.isfinite(array).all() for array in arrays if array is not None):
        raise InputError(
            f"the network's weights: layer {layer.call.layer.name} holds NaN or infinity once the "
            "scale and shift that follow it are folded in; check its batch norm's variance"
        )
    return jax.tree.map(jnp.asarray, arrays)


def _refold(traced: _Traced, tree: "ParameterTree") -> Callable[[Any], Parameters]:
    part, closed_over = traced.parameter_part, traced.closed_over
    constants = {value: closed_over[value] for value in part.needs & closed_over.keys()}
    traced = traced._replace(values={}, closed_over={})  # the traced arrays need not be kept

    @jax.jit
    def refolded(arrays: list[Any], constants: dict[Value, Any]) -> Parameters:
        values = part.values(constants | dict(zip(traced.inputs, arrays, strict=True)))
        return traced.parameters(values, lambda layer, v: layer.arrays(v, jnp, jnp.float32))

    return lambda params: refolded(tree.arrays_of(params), constants)


@dataclass(frozen=True, eq=False)
class ParameterTree:
    """A pytree of parameters without its arrays: their names and places, and all the rest."""

    structure: Any
    paths: tuple[str, ...]  # of every leaf, dotted
    places: tuple[int, ...]  # of the arrays among the leaves
    types: tuple[Any, ...]  # of the arrays, as JAX holds them
    rest: dict[int, Any]  # the leaves that are no arrays, by place

    @property
    def names(self) -> list[str]:
        """The arrays' dotted paths; a lone array is called by its place."""
        return [self.paths[place] or str(place) for place in self.places]

    def restore(self, arrays: Sequence[Any]) -> Any:
        """The whole tree with these arrays, and everything else as it was."""
        leaves = self.rest | dict(zip(self.places, arrays, strict=True))
        return jax.tree.unflatten(self.structure, [leaves[i] for i in range(len(self.paths))])

    def arrays_of(self, tree: Any) -> list[Array]:
        """The arrays (or tracers) of another pytree like this one, in the same order.

        Raises `InputError` for a tree of other leaves, or where an array has another shape or
        dtype.
        """
        paths, leaves, _ = _flat(tree)
        if paths != self.paths:
            strange = sorted({*paths} ^ {*self.paths})
            raise InputError(
                f"the parameters: other leaves ({', '.join(strange[:3]) or 'in another order'}) "
                "than the network was traced with; give the same tree with other arrays"
            )
        arrays = [jnp.asarray(leaves[place]) for place in self.places]
        for name, array, wanted in zip(self.names, arrays, self.types, strict=True):
            if (array.shape, array.dtype) != (wanted.shape, wanted.dtype):
                raise InputError(
                    f"the parameters: {name} is {array.dtype}{list(array.shape)}, but the network "
                    f"was traced with {wanted.dtype}{list(wanted.shape)}"
                )
        return arrays


def take_apart(tree: Any) -> tuple[ParameterTree, list[Any]]:
    """The arrays of a pytree (JAX's and NumPy's, scalars of NumPy too), and what is left of it."""
    paths, leaves, structure = _flat(tree)
    kinds = (jax.Array, np.ndarray, np.generic)
    rest = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, kinds)}
    places = tuple(i for i in range(len(leaves)) if i not in rest)
    arrays = [leaves[place] for place in places]
    return ParameterTree(structure, paths, places, tuple(map(jax.typeof, arrays)), rest), arrays


def _flat(tree: Any) -> tuple[tuple[str, ...], list[Any], Any]:
    """The leaves' dotted paths, the leaves, and the tree's structure."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    dotted = (
        ".".join(jax.tree_util.keystr((key,), simple=True) for key in path) for path, _ in paths
    )
    return tuple(dotted), [leaf for _, leaf in paths], structure
