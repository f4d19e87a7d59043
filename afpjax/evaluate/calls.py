"""What the compiled programs compute: the tables of a stage's call, faulty kernels, streams.

A call's values lie in a table [slots, B, ...], B images; where there are several slots, *tiles* of
nodes that share a kernel run one after the other, as many as there are. A node reads its parents'
values by their places in their tables: the gather is part of the pass that makes the faults. The
first stage, and a call with one slot, has one node, whose values [B, ...] are the table.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped, UInt32

from afpjax.evaluate.words import CallSizes, KernelWords, NodeWords, unpack
from afpjax.faults import bits
from afpjax.faults.inject import StageContext, StageInputs, faulty_kernel, run_stage
from afpjax.faults.spec import FaultSpec
from afpjax.network.fixed_point import QFormat
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized
from afpjax.network.stages import Stage, transfers

#: Images as they are kept, [B, ...], to the network's inputs, float32 [B, ...].
Prepare = Callable[[Array], Array]
Tables = tuple[Array, ...]


class Streams(NamedTuple):
    """Draws for some trials, [trials, images, 2] each; None where nothing is drawn.

    Of a network: by layer, by value that a link carries, and by layer. Of a stage: those of its
    layer's inputs, of all that it reads, and of its layer's weights.
    """

    inputs: Any = None
    links: Any = None
    weights: Any = None  # where every image has a kernel of its own


def draw_streams(
    spec: FaultSpec,
    quantized: Quantized,
    trials: UInt32[Array, "K"],
    indices: UInt32[Array, "B"],
    seed: UInt32[Array, "2"],
) -> Streams:
    """The streams of a network, in one small program for all of them."""

    def of(target: int, count: int) -> tuple[Array, ...]:
        numbers = jnp.arange(count, dtype=jnp.uint32)[:, None, None]
        own = spec.stream(seed, trial=trials[:, None], layer=numbers, target=target, image=indices)
        return tuple(jnp.broadcast_to(own, (count, len(trials), len(indices), 2)))

    drawn, layers = bool(spec.bits) and not spec.sites, len(quantized.layers)
    values = 1 + max((wire.number for wire in transfers(quantized.program)), default=0)
    return Streams(
        of(bits.ACTIVATIONS, layers) if drawn else None,
        of(bits.LINK, values) if spec.link else None,
        of(bits.WEIGHTS, layers) if drawn and spec.scope == "image" else None,
    )


def of_stage(
    streams: Streams, quantized: Quantized, number: int, stage: Stage, keeper: int
) -> Streams:
    """Those of one stage; `keeper` is the layer whose draws its weights have."""
    inputs, links, weights = streams
    read = [wire.number for wire in transfers(quantized.program) if wire.stage == number]
    return Streams(
        None if inputs is None or stage.layer is None else inputs[stage.layer],
        None if links is None else tuple(links[value] for value in read),
        None if weights is None or stage.layer is None else weights[keeper],
    )


def first_values(
    spec: FaultSpec, stage: Stage, prepare: Prepare, images: Array, context: StageContext
) -> Tables:
    """What the stage before the first layer makes of images as they are kept."""
    image = context.part.program.image_dtype
    inputs = StageInputs((prepare(images).astype(image),))
    return run_stage(spec, stage, inputs, context, _nothing_drawn)


def _nothing_drawn(target: int, number: Any) -> Array:
    raise AssertionError("before the first layer nothing can be faulty")


def stage_tables(
    spec: FaultSpec,
    stage: Stage,
    sizes: CallSizes,
    layout: NodeWords,
    words: UInt32[Array, "slots W"],
    tiles: UInt32[Array, ""],
    kernels: Array | None,
    reads: Tables,
    streams: Streams,
    context: StageContext,
) -> Tables:
    """The tables of a stage's call."""
    if context.wiring is not None:  # streams are those of what it reads, in that order
        numbers = tuple(range(len(stage.inputs)))
        context = context._replace(wiring=context.wiring._replace(numbers=numbers))
    if sizes.slots == 1:
        return _tile(spec, stage, sizes, layout, words, kernels, reads, streams, context)
    count, size = words.shape[0], sizes.nodes

    def tile(own: UInt32[Array, "size W"]) -> Tables:
        values = _tile(spec, stage, sizes, layout, own, kernels, reads, streams, context)
        return tuple(value.reshape(size, sizes.images, *value.shape[1:]) for value in values)

    def put(number: Array, tables: Tables) -> Tables:
        start = number * np.uint32(size)
        made = tile(lax.dynamic_slice_in_dim(words, start, size))
        pairs = zip(tables, made, strict=True)
        return tuple(lax.dynamic_update_slice_in_dim(t, m, start, 0) for t, m in pairs)

    shapes = jax.eval_shape(tile, words[:size])
    # What no tile writes is never read: no need to clear it.
    empty = tuple(lax.empty((count, *s.shape[1:]), s.dtype) for s in shapes)
    return lax.fori_loop(jnp.uint32(0), tiles, put, empty)


def _tile(
    spec: FaultSpec,
    stage: Stage,
    sizes: CallSizes,
    layout: NodeWords,
    words: UInt32[Array, "n W"],
    kernels: Array | None,
    reads: Tables,
    streams: Streams,
    context: StageContext,
) -> Tables:
    """The values [n * B, ...] of some nodes that share a kernel."""
    nodes, batch = unpack(layout, words), sizes.images

    def per_image(array: Array | None) -> Array | None:
        """[n, …] of nodes for each of their images."""
        if array is None:
            return None
        every = jnp.broadcast_to(array[:, None], (len(array), batch, *array.shape[1:]))
        return every.reshape(len(array) * batch, *array.shape[1:])

    def flat(array: Array) -> Array:
        """[n, B, …] as one batch."""
        return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])

    def read(table: Array, parent: int, places: UInt32[Array, "n"]) -> Array:
        """[n * B, …] from the table of a stage; the first's, and one of one node, is a value."""
        if sizes.slots == 1 or parent == 0:
            return table if len(places) == 1 else flat(jnp.stack([table] * len(places)))
        return flat(picked(table, places))

    pairs = zip(reads, stage.parents, nodes.parents.T, strict=True)
    values = tuple(read(*pair) for pair in pairs)
    kernel = kernels
    if sizes.slots > 1 and kernels is not None and not spec.one_kernel:
        # As rows: a product may want its kernel laid out otherwise, and XLA would lay out all of
        # the table that way in every call.
        kernel = picked(kernels.reshape(len(kernels), -1), nodes.kernel[:1])
        kernel = kernel.reshape(kernels.shape[1:])
    thresholds = nodes.thresholds
    if spec.sites:  # [n, B, sites]
        thresholds = jax.tree.map(flat, thresholds)
    elif thresholds is not None:
        own = layout.thresholds
        thresholds = flat(thresholds) if _by_image(spec, own) else per_image(thresholds)
    answering = nodes.answering
    if answering is not None:
        answering = per_image(lax.bitcast_convert_type(answering, jnp.int32))
    exchanged = jax.tree.map(per_image, nodes.weights) if spec.exchanged else None
    inputs = StageInputs(values, kernel, thresholds, exchanged, answering, per_image(nodes.links))

    def drawn(target: int, number: int) -> UInt32[Array, "nB 2"]:
        own = streams.links[number] if target == bits.LINK else streams.inputs
        return flat(picked(own, nodes.trial))

    if nodes.weights is None or spec.exchanged:
        return run_stage(spec, stage, inputs, context, drawn)
    of_weights = picked(streams.weights, nodes.trial)[0]
    return _kernel_by_image(spec, stage, inputs, context, drawn, of_weights, nodes.weights[0])


def _by_image(spec: FaultSpec, shape: tuple[int, ...]) -> bool:
    """Whether a node's thresholds are given for every image, as within a budget."""
    return len(shape) > 1 + bool(spec.copies)


def picked(table: Shaped[Array, "slots ..."], places: UInt32[Array, "n"]) -> Array:
    """Rows of a table; of one slot, without looking."""
    if table.shape[0] == 1:
        return jnp.broadcast_to(table, (len(places), *table.shape[1:]))
    if len(places) == 1:
        return lax.dynamic_slice_in_dim(table, places[0].astype(jnp.int32), 1)
    return table.at[places].get(mode="promise_in_bounds")


def _kernel_by_image(
    spec: FaultSpec,
    stage: Stage,
    inputs: StageInputs,
    context: StageContext,
    drawn: Callable[[int, int], Array],
    of_weights: UInt32[Array, "B 2"],
    thresholds: UInt32[Array, "..."],
) -> Tables:
    """Image by image, each with a kernel of its own: never as a batch of kernels."""
    call = next(step for step in stage.steps if isinstance(step, LayerCall))
    codes, fmt = inputs.kernel, context.part.format

    def one(image: Array) -> Tables:
        def its(arrays: Any) -> Any:
            return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, image, 1), arrays)

        kernel = faulty_kernel(spec, fmt, call, codes, of_weights[image], thresholds)  # pyright: ignore
        alone = its(inputs._replace(kernel=None))._replace(kernel=kernel)
        streams_of = lambda target, number: its(drawn(target, number))  # noqa: E731
        values = run_stage(spec, stage, alone, context, streams_of)
        return tuple(value[0] for value in values)

    return lax.map(one, jnp.arange(len(of_weights)))


def kernels_at_rates(
    spec: FaultSpec,
    fmt: QFormat,
    call: LayerCall,
    sizes: CallSizes,
    layout: KernelWords,
    words: UInt32[Array, "K W"],
    count: UInt32[Array, ""],
    shared: tuple[Array, Array, Array],
) -> tuple[Array]:
    """Faulty kernels [K, …]; where there are several, the layer's own codes come first."""
    codes, keeper, seed = shared
    of = unpack(layout, words)
    # Of all at once: in the loop, each would be a few small kernels of its own on a GPU.
    none = jnp.zeros_like(of.trial)
    streams = spec.stream(seed, trial=of.trial, layer=keeper, target=bits.WEIGHTS, image=none)

    def make(stream: UInt32[Array, "2"], faults: Array) -> Array:
        return faulty_kernel(replace(spec, sites=0), fmt, call, codes, stream, faults)

    return one_after_another(sizes, codes, (streams, of.faults), count, make)


def one_after_another(
    sizes: CallSizes, codes: Array, each: Any, count: UInt32[Array, ""], make: Callable
) -> tuple[Array]:
    """Kernels made of each of `each` [K, …], some at a time."""
    if sizes.slots == 1:
        return (make(*jax.tree.map(lambda array: array[0], each)),)
    size = sizes.kernels_of(codes)

    def put(number: Array, kernels: Array) -> Array:
        start = number * np.uint32(size)
        some = jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size), each)
        if size == 1:
            made = make(*jax.tree.map(lambda array: array[0], some))[None]
        else:
            made = jax.vmap(make)(*some)
        return lax.dynamic_update_slice_in_dim(kernels, made, start + np.uint32(1), 0)

    kernels = lax.empty((1 + sizes.kernels, *codes.shape), codes.dtype)
    kernels = lax.dynamic_update_slice_in_dim(kernels, codes[None], 0, 0)
    steps = (count + np.uint32(size - 1)) // np.uint32(size)
    return (lax.fori_loop(jnp.uint32(0), steps, put, kernels),)
