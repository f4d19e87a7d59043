"""The compiled programs of a fault evaluation: one for each stage of the network, and few others.

What changes from call to call (rates, trials, which node reads what) is data, so layers of equal
shape share one program. Programs are lowered one after the other and compiled on all cores at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from afpjax.evaluate.calls import (
    Prepare,
    Streams,
    draw_streams,
    first_values,
    kernels_at_rates,
    of_stage,
    one_after_another,
    picked,
    stage_tables,
)
from afpjax.evaluate.metric import Metric, Targets
from afpjax.evaluate.words import (
    CallSizes,
    kernel_layout,
    node_layout,
    sites_layout,
    unpack,
    width,
)
from afpjax.faults.inject import StageContext, part_of
from afpjax.faults.link import Wiring
from afpjax.faults.sites import FaultSites, inject_sites
from afpjax.faults.spec import FaultSpec, keepers
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import Quantized
from afpjax.network.stages import Stage, stages
from afpjax.network.units import of_layer, suits_ynnpack


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


@dataclass(frozen=True)
class Programs:
    """Everything that one evaluator runs on one device."""

    stages: tuple[Stage, ...]
    first: compiler.Compiled  # (images as kept, `StageContext`) -> values
    #: By stage: (words, tiles, kernels, parents' tables, `Streams`), (`StageContext`) -> tables.
    run: tuple[compiler.Compiled | None, ...]
    kernels: tuple[compiler.Compiled | None, ...]  # by layer: (codes, words, count, …) -> kernels
    streams: compiler.Compiled  # (trials, image numbers, seed) -> `Streams` of the network
    drawn: Streams  # their places among what that gives
    logits: jax.ShapeDtypeStruct  # [slots, B, classes], or of one node [B, classes]


@lru_cache(maxsize=32)
def compile_programs(
    spec: FaultSpec,
    prepare: Prepare,
    shapes: Shapes,
    sizes: CallSizes,
    device: Any = None,
) -> Programs:
    """Compile for a network and images as they are kept: `shapes` are those of both.

    Tiles have `sizes.nodes` nodes. `device`: None for JAX's own.
    """
    quantized, images = shapes.arguments()
    cut = stages(quantized.program)
    lower = partial(_lower, device)
    kept = jax.ShapeDtypeStruct((sizes.images, *images.shape[1:]), images.dtype)
    streams = jax.eval_shape(partial(draw_streams, spec, quantized), *_drawn(sizes))
    tables: dict[Any, Any] = {}
    own_of, lowered = keepers(spec.shared, quantized.layers), []
    for number, stage in enumerate(cut):
        data = stage_shapes(spec, quantized, stage)
        if stage is cut[0]:
            function: Any = partial(first_values, spec, stage, prepare)
            arguments: tuple[Any, ...] = (kept,)
        else:
            layout = node_layout(spec, quantized, stage, sizes)
            reads = tuple(tables[value] for value in stage.inputs)
            function = partial(stage_tables, spec, stage, sizes, layout)
            words = _uint(sizes.slots, width(layout))
            kernel = None if stage.layer is None else _kernel_table(spec, quantized, stage, sizes)
            own = of_stage(streams, quantized, number, stage, int(own_of[stage.layer or 0]))
            arguments = (words, _uint(), kernel, reads, own)
        made = jax.eval_shape(function, *arguments, data)
        tables.update(zip(stage.outputs, made, strict=True))
        lowered.append(lower(function, arguments, data))
    for call in () if spec.one_kernel else quantized.program.calls:
        codes = quantized.parameters.layers[call.layer.name].kernel
        layout = kernel_layout(spec, call)
        make = partial(kernels_at_rates, spec, quantized.format, call, sizes, layout)
        words = _uint(sizes.kernels, width(layout))
        lowered.append(lower(make, (words, _uint()), (codes, _uint(), _uint(2))))
    lowered.append(lower(partial(draw_streams, spec, quantized), _drawn(sizes), None))
    first, *rest, of_streams = compiler.compile_all(lowered, device, _on_ynnpack(quantized, cut))
    run, kernels = rest[: len(cut) - 1], rest[len(cut) - 1 :]
    kernels = kernels or [None] * len(quantized.layers)
    leaves, tree = jax.tree.flatten(streams)
    drawn = jax.tree.unflatten(tree, range(len(leaves)))
    logits = tables[quantized.program.output]
    return Programs(cut, first, (None, *run), tuple(kernels), of_streams, drawn, logits)


def _on_ynnpack(quantized: Quantized, cut: Sequence[Stage]) -> set[int]:
    """Stages whose convolution goes there; in float formats answers are those of the network's own
    call, to the last bit."""
    layers, fmt = quantized.layers, quantized.format
    own = {n: layers[stage.layer] for n, stage in enumerate(cut) if stage.layer is not None}
    return {
        number
        for number, layer in own.items()
        if fmt.kind == "fixed"
        and of_layer(quantized.units, layer, fmt.bits) == "float32"
        and suits_ynnpack(layer)
    }


def stage_shapes(spec: FaultSpec, quantized: Quantized, stage: Stage) -> StageContext:
    """Shapes of what a stage's calls share."""
    context = StageContext(part_of(quantized, stage))
    if stage.layer is not None and spec.copies:
        neurons = quantized.layers[stage.layer].neurons
        context = context._replace(substitute=jax.ShapeDtypeStruct((neurons,), jnp.float32))
    if spec.link and stage.parents:
        read = len(stage.inputs)
        wiring = Wiring(_uint(read), jax.ShapeDtypeStruct((read,), jnp.float32))
        context = context._replace(wiring=wiring)
    return context


def _uint(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of words of the hash, of thresholds, of numbers."""
    return jax.ShapeDtypeStruct(shape, jnp.uint32)


def _drawn(sizes: CallSizes) -> tuple[Any, ...]:
    return _uint(sizes.rows if sizes.slots > 1 else 1), _uint(sizes.images), _uint(2)


def _kernel_table(spec: FaultSpec, quantized: Quantized, stage: Stage, sizes: CallSizes) -> Any:
    assert stage.layer is not None
    codes = quantized.parameters.layers[quantized.layers[stage.layer].name].kernel
    several = () if sizes.slots == 1 or spec.one_kernel else (1 + sizes.kernels,)
    return jax.ShapeDtypeStruct((*several, *codes.shape), codes.dtype)


@lru_cache(maxsize=128)
def compile_sites(
    how: str, sites: int, fmt: QFormat, shape: tuple[int, ...], sizes: CallSizes, device: Any = None
) -> compiler.Compiled:
    """(words, count), (codes) -> kernels with faults at sites, as `Programs.kernels`."""
    layout = sites_layout(sites)

    def kernels(words: Array, count: Array, codes: Array) -> tuple[Array]:
        def make(own: FaultSites) -> Array:
            return inject_sites(how, fmt, codes, own)

        return one_after_another(sizes, codes, (unpack(layout, words),), count, make)

    words = _uint(sizes.kernels, width(layout))
    codes = jax.ShapeDtypeStruct(shape, jnp.float32)
    return compiler.compile_all([_lower(device, kernels, (words, _uint()), codes)], device)[0]


@lru_cache(maxsize=64)
def compile_metric(
    metric: Metric, logits: jax.ShapeDtypeStruct, rows: int, device: Any = None
) -> compiler.Compiled:
    """(logits, the slot of each row), (`Targets`) -> outcomes [rows, B, …] of [slots, B, classes].

    Without rows, those of one node: [B, classes] -> [B, …].
    """
    *_, images, classes = logits.shape
    labels: Any = jax.ShapeDtypeStruct((images,), jnp.int32)
    reference: Any = None
    if metric.compares:
        reference = jax.ShapeDtypeStruct((images, classes), jnp.float32)

    def outcomes(table: Array, slots: Array, targets: Targets) -> tuple[Array]:
        if not rows:
            return (metric.of(table, targets),)
        return (jax.vmap(metric.of, in_axes=(0, None))(picked(table, slots), targets),)

    lowered = _lower(device, outcomes, (logits, _uint(rows)), Targets(labels, reference))
    return compiler.compile_all([lowered], device)[0]


def _lower(device: Any, function: Any, own: Sequence[Any], data: Any) -> Any:
    """Lower `function(*own, data) -> arrays` as a function of bare arrays.

    What the arrays belong to (names of layers, the program) is then no part of the compiled
    program, so that equal ones can be told to be equal.
    """
    own_leaves, own_tree = jax.tree.flatten(tuple(own))
    leaves, tree = jax.tree.flatten(data)

    def bare(own: tuple[Array, ...], rest: tuple[Array, ...]) -> tuple[Array, ...]:
        given, shared = jax.tree.unflatten(own_tree, own), jax.tree.unflatten(tree, rest)
        return tuple(
            jax.tree.leaves(function(*given) if data is None else function(*given, shared))
        )

    def here(leaf: Any) -> Any:
        if device is None:
            return leaf
        where = jax.sharding.SingleDeviceSharding(device)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    # Arguments that nobody reads stay: without them, programs that read others look alike.
    jitted = jax.jit(bare, keep_unused=True)
    return jitted.lower(tuple(map(here, own_leaves)), tuple(map(here, leaves)))
