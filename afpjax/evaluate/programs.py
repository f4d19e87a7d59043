"""The compiled programs of a fault evaluation: one for each stage of the network, and few others.

What changes from call to call (rates, trials, image numbers, kernels, which layer it is) is data,
so layers of equal shape share one program. Programs are lowered one after the other and compiled on
all cores at once.

Where a process has several devices, each runs a trial of its own, the same stage at the same time:
arguments of a trial have a leading axis over the devices, everything else is the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from afpjax.evaluate.metric import Metric, Targets
from afpjax.faults import bits
from afpjax.faults.inject import StageContext, StageInputs, faulty_kernel, part_of, run_stage
from afpjax.faults.link import Wiring
from afpjax.faults.sites import FaultSites, inject_sites
from afpjax.faults.spec import FaultSpec
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.program import LayerCall, Value
from afpjax.network.quantized import Quantized
from afpjax.network.stages import Stage, stages

#: Images as they are kept, [B, ...], to the network's inputs, float32 [B, ...].
Prepare = Callable[[Array], Array]


class ImageBatch(NamedTuple):
    """One batch of images as they are kept, what their logits are held against, their numbers."""

    images: Any
    labels: Any  # -1: padding
    indices: Any
    reference: Any = None  # fault-free logits, where a metric asks for them


@dataclass(frozen=True)
class Programs:
    """Everything that one evaluator runs; `trials` of them at a time, one on each device."""

    stages: tuple[Stage, ...]
    first: compiler.Compiled  # (images as kept, StageContext) -> values
    #: By stage: (StageInputs, StageContext) -> values; None for `first`.
    run: tuple[compiler.Compiled | None, ...]
    kernels: tuple[compiler.Compiled, ...]  # by layer: ((thresholds, trial, image), (codes, …))
    logits: jax.ShapeDtypeStruct
    mesh: Mesh | None

    @property
    def trials(self) -> int:
        return 1 if self.mesh is None else self.mesh.size


@dataclass(frozen=True)
class Shapes:
    """Shapes of an evaluation's arguments, which its programs are compiled for; hashable."""

    leaves: tuple[jax.ShapeDtypeStruct, ...]
    tree: Any

    @classmethod
    def of(cls, *arguments: Any) -> "Shapes":
        leaves, tree = jax.tree.flatten(jax.eval_shape(lambda *all_of: all_of, *arguments))
        return cls(tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves), tree)

    def arguments(self) -> Any:
        return jax.tree.unflatten(self.tree, self.leaves)


@lru_cache(maxsize=32)
def compile_programs(
    spec: FaultSpec, prepare: Prepare, shapes: Shapes, mesh: Mesh | None = None
) -> Programs:
    """Compile for a network and a batch: `shapes` are those of (encoded network, `ImageBatch`)."""
    quantized, batch = shapes.arguments()
    cut, number = stages(quantized.program), _uint()
    values: dict[Value, Any] = {}
    lowered = []
    for stage in cut:
        context = StageContext(part_of(quantized, stage), batch.indices, number, _uint(2))
        if stage is cut[0]:
            function = partial(_first, spec, stage, prepare)
            arguments: tuple[Any, Any] = ((), (batch.images, context))
        else:
            function = partial(run_stage, spec, stage)
            inputs = StageInputs(tuple(values[value] for value in stage.inputs))
            arguments = _with_faults(spec, quantized, stage, inputs, context)
        values.update(zip(stage.outputs, jax.eval_shape(function, *arguments), strict=True))
        lowered.append(_lower(function, mesh, *arguments))
    drawn = replace(spec, sites=0)  # kernels with faults at sites are made by programs of their own
    for call in quantized.program.calls:
        kernel = quantized.parameters.layers[call.layer.name].kernel
        neurons = (call.layer.neurons,) if spec.copies else ()
        of_kernel = (_uint(*neurons, drawn.columns), _uint(), _uint()), (kernel, number, _uint(2))
        function = partial(_kernel, drawn, quantized.format, call)
        lowered.append(_lower(function, mesh, *of_kernel))
    logits = values[quantized.program.output]
    first, *rest = compiler.compile_all(lowered)
    run, kernels = rest[: len(cut) - 1], rest[len(cut) - 1 :]
    return Programs(cut, first, (None, *run), tuple(kernels), logits, mesh)


def _with_faults(
    spec: FaultSpec, quantized: Quantized, stage: Stage, inputs: StageInputs, context: StageContext
) -> tuple[StageInputs, StageContext]:
    """Shapes of all that a stage is given, from those of the values that it reads."""
    batch, read = context.indices.shape, len(inputs.values)
    if stage.layer is not None:
        layer = quantized.layers[stage.layer]
        copies = (spec.copies,) if spec.copies else ()
        words = jax.ShapeDtypeStruct((*batch, spec.sites), jnp.uint32)
        inputs = inputs._replace(
            kernel=quantized.parameters.layers[layer.name].kernel,
            thresholds=FaultSites(words, words)
            if spec.sites
            else _uint(*batch, *copies, spec.columns),
            trials=_uint(*batch),
        )
        if spec.copies:
            answering = jax.ShapeDtypeStruct((*batch, layer.neurons), jnp.int8)
            substitute = jax.ShapeDtypeStruct((layer.neurons,), jnp.float32)
            inputs = inputs._replace(answering=answering)
            context = context._replace(substitute=substitute)
    if spec.link:
        wiring = Wiring(_uint(read), jax.ShapeDtypeStruct((read,), jnp.float32))
        links = _uint(*batch, read, *spec.link_words)
        inputs = inputs._replace(trials=_uint(*batch), links=links)
        context = context._replace(wiring=wiring)
    return inputs, context


def _uint(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of words of the hash, of thresholds, of numbers."""
    return jax.ShapeDtypeStruct(shape, jnp.uint32)


@lru_cache(maxsize=32)
def compile_metric(
    metric: Metric, logits: jax.ShapeDtypeStruct, mesh: Mesh | None
) -> compiler.Compiled:
    """(logits, `Targets`) -> one outcome for each image."""
    labels: Any = jax.ShapeDtypeStruct(logits.shape[:1], jnp.int32)
    reference: Any = jax.ShapeDtypeStruct(logits.shape, jnp.float32) if metric.compares else None
    lowered = _lower(metric.of, mesh, logits, Targets(labels, reference))
    return compiler.compile_all([lowered])[0]


def _lower(function: Any, mesh: Mesh | None, of_trial: Any, shared: Any) -> Any:
    """Lower `function(of_trial, shared) -> arrays` as a function of bare arrays.

    What the arrays belong to (names of layers, the program) is then no part of the compiled
    program, so that equal ones can be told to be equal.
    """
    own, own_tree = jax.tree.flatten(of_trial)
    rest, rest_tree = jax.tree.flatten(shared)

    def bare(own: tuple[Array, ...], rest: tuple[Array, ...]) -> tuple[Array, ...]:
        arguments = jax.tree.unflatten(own_tree, own), jax.tree.unflatten(rest_tree, rest)
        return tuple(jax.tree.leaves(function(*arguments)))

    # Arguments that nobody reads stay: without them, programs that read others look alike.
    if mesh is None:
        return jax.jit(bare, keep_unused=True).lower(tuple(own), tuple(rest))
    stacked = (jax.ShapeDtypeStruct((mesh.size, *leaf.shape), leaf.dtype) for leaf in own)
    spread = jax.jit(compiler.over_trials(bare, mesh), keep_unused=True)
    return spread.lower(tuple(stacked), tuple(rest))


def _first(
    spec: FaultSpec, stage: Stage, prepare: Prepare, nothing: tuple[()], shared: Any
) -> tuple[Array, ...]:
    images, context = shared
    prepared = prepare(images).astype(context.part.program.image_dtype)
    return run_stage(spec, stage, StageInputs((prepared,)), context)


def _kernel(
    spec: FaultSpec, fmt: QFormat, call: LayerCall, of_trial: Any, shared: Any
) -> Float[Array, "..."]:
    (thresholds, trial, image), (codes, number, seed) = of_trial, shared
    stream = spec.stream(seed, trial=trial, layer=number, target=bits.WEIGHTS, image=image)
    return faulty_kernel(spec, fmt, call, codes, stream, thresholds)


@lru_cache(maxsize=128)
def compile_sites(
    how: str, sites: int, fmt: QFormat, shape: tuple[int, ...], mesh: Mesh | None
) -> compiler.Compiled:
    """(`FaultSites` [n], codes) -> codes with faults at these sites."""
    kernel = jax.ShapeDtypeStruct(shape, jnp.float32)

    def inject(sites: FaultSites, codes: Array) -> Array:
        return inject_sites(how, fmt, codes, sites)

    shapes = FaultSites(_uint(sites), _uint(sites))
    return compiler.compile_all([_lower(inject, mesh, shapes, kernel)])[0]
