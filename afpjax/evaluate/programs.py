"""The compiled programs of a fault evaluation: one for each stage of the network, and few others.

What changes from call to call (rates, trials, which node reads what) is data, so layers of equal
shape share one program. Programs are lowered one after the other and compiled on all cores at once.

A stage's program runs the nodes of a call. Their values lie in a table [slots, B, ...], B images;
where there are several slots, *tiles* of nodes that share a kernel run one after the other, as
many as there are. A node reads its parents' values by their places in their tables: the gather is
part of the pass that makes the faults. All that belongs to a node is one row of small words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import gcd, prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped, UInt32

from afpjax.evaluate.metric import Metric, Targets
from afpjax.faults import bits
from afpjax.faults.inject import StageContext, StageInputs, faulty_kernel, part_of, run_stage
from afpjax.faults.link import Wiring
from afpjax.faults.sites import FaultSites, inject_sites
from afpjax.faults.spec import FaultSpec
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized
from afpjax.network.stages import Stage, stages, transfers

#: Images as they are kept, [B, ...], to the network's inputs, float32 [B, ...].
Prepare = Callable[[Array], Array]
Tables = tuple[Array, ...]


class CallSizes(NamedTuple):
    """What calls have room for. With one slot, every node is a call."""

    images: int
    rows: int  # of a chunk, where there are several slots
    slots: int  # of a table
    nodes: int  # of a tile at most
    kernel_bytes: int = 0  # of the faulty kernels that are made in one step, if several

    @property
    def kernels(self) -> int:
        """Faulty kernels that are made in one call, behind the layer's own if there are several."""
        return 1 if self.slots == 1 else self.rows

    def kernels_of(self, codes: Array) -> int:
        """How many of one layer's are made in one step; a power of two that divides them all."""
        fitting = min(self.kernels, max(1, self.kernel_bytes // (4 * codes.size)))
        return gcd(self.kernels, 1 << (fitting.bit_length() - 1))


class NodeWords(NamedTuple):
    """What a call is told of each node; words of 32 bits, one row for each."""

    parents: Any  # places in the parents' tables [parents]
    trial: Any  # its place among the chunk's trials
    kernel: Any  # its place among the call's kernels
    thresholds: Any = None  # of the layer's inputs, or `FaultSites`
    weights: Any = None  # thresholds of weights, where every image has a kernel of its own
    answering: Any = None  # by neuron, the read copy that it is computed from
    links: Any = None  # thresholds of what it reads


class KernelWords(NamedTuple):
    """What is told of a faulty kernel."""

    trial: Any  # its number
    faults: Any  # thresholds, or `FaultSites`


class StageData(NamedTuple):
    """What is the same for all calls of a stage; it stays on the device."""

    context: StageContext
    layer: Any  # its number, and that of the layer whose weights' draws it has
    keeper: Any


class Streams(NamedTuple):
    """Draws of all layers, or of all values on links, for some trials: [number, trial, image, 2].

    None where nothing is drawn for what they are of.
    """

    inputs: Any = None
    links: Any = None
    weights: Any = None  # where every image has a kernel of its own


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
    first: compiler.Compiled  # (images as kept, StageData) -> tables of one slot
    #: By stage: (words, tiles, kernels, parents' tables, `Streams`), (`StageData`) -> tables.
    run: tuple[compiler.Compiled | None, ...]
    kernels: tuple[compiler.Compiled | None, ...]  # by layer: (codes, words, count, …) -> kernels
    streams: compiler.Compiled  # (trials, image numbers, seed) -> `Streams`
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
    streams = jax.eval_shape(partial(_streams, spec, quantized), *_drawn(sizes))
    tables: dict[Any, Any] = {}
    lowered = []
    for stage in cut:
        data = stage_shapes(spec, quantized, stage)
        if stage is cut[0]:
            function: Any = partial(_first, spec, stage, prepare)
            arguments: tuple[Any, ...] = (kept,)
        else:
            layout = node_layout(spec, quantized, stage, sizes)
            reads = tuple(tables[value] for value in stage.inputs)
            function = partial(_call, spec, stage, sizes, layout)
            words = _uint(sizes.slots, width(layout))
            kernel = None if stage.layer is None else _kernel_table(spec, quantized, stage, sizes)
            arguments = (words, _uint(), kernel, reads, streams)
        made = jax.eval_shape(function, *arguments, data)
        tables.update(zip(stage.outputs, made, strict=True))
        lowered.append(lower(function, arguments, data))
    for call in quantized.program.calls if spec.scope != "image" else ():
        codes = quantized.parameters.layers[call.layer.name].kernel
        layout = kernel_layout(spec, call)
        make = partial(_kernels, spec, quantized.format, call, sizes, layout)
        words = _uint(sizes.kernels, width(layout))
        lowered.append(lower(make, (words, _uint()), (codes, _uint(), _uint(2))))
    lowered.append(lower(partial(_streams, spec, quantized), _drawn(sizes), None))
    first, *rest, of_streams = compiler.compile_all(lowered, device)
    run, kernels = rest[: len(cut) - 1], rest[len(cut) - 1 :]
    kernels = kernels or [None] * len(quantized.layers)
    logits = tables[quantized.program.output]
    return Programs(cut, first, (None, *run), tuple(kernels), of_streams, logits)


def stage_shapes(spec: FaultSpec, quantized: Quantized, stage: Stage) -> StageData:
    """Shapes of what a stage's calls share."""
    context = StageContext(part_of(quantized, stage))
    if stage.layer is not None and spec.copies:
        neurons = quantized.layers[stage.layer].neurons
        context = context._replace(substitute=jax.ShapeDtypeStruct((neurons,), jnp.float32))
    if spec.link and stage.parents:
        read = len(stage.inputs)
        wiring = Wiring(_uint(read), jax.ShapeDtypeStruct((read,), jnp.float32))
        context = context._replace(wiring=wiring)
    return StageData(context, _uint(), _uint())


def node_layout(spec: FaultSpec, quantized: Quantized, stage: Stage, sizes: CallSizes) -> NodeWords:
    """The shapes of a node's words; within a budget every image has thresholds of its own."""
    words = NodeWords((len(stage.inputs),), (), ())
    if stage.layer is not None:
        layer = quantized.layers[stage.layer]
        copies = (spec.copies,) if spec.copies else ()
        of_image = (sizes.images,) if spec.budget is not None else ()
        thresholds: Any = (*of_image, *copies, spec.columns)
        if spec.sites:
            thresholds = FaultSites((sizes.images, spec.sites), (sizes.images, spec.sites))
        neurons = (layer.neurons,) if spec.copies else ()
        words = words._replace(
            thresholds=thresholds,
            weights=(*neurons, spec.columns) if spec.scope == "image" and spec.bits else None,
            answering=neurons or None,
        )
    if spec.link and stage.parents:
        words = words._replace(links=(len(stage.inputs), *spec.link_words))
    return words


def kernel_layout(spec: FaultSpec, call: LayerCall) -> KernelWords:
    """The shapes of the words of a faulty kernel at rates."""
    neurons = (call.layer.neurons,) if spec.copies else ()
    return KernelWords((), (*neurons, replace(spec, sites=0).columns))


def _is_shape(layout: Any) -> bool:
    return layout is None or (type(layout) is tuple and all(isinstance(n, int) for n in layout))


def width(layout: Any) -> int:
    """How many words a row has."""
    return sum(
        prod(shape) for shape in jax.tree.leaves(layout, is_leaf=_is_shape) if shape is not None
    )


def pack(
    layout: Any, arrays: Any, rows: int, places: Any = slice(None)
) -> UInt32[np.ndarray, "rows W"]:
    """Arrays [n, …] as rows of words, at their places among so many rows."""
    shapes = [s for s in jax.tree.leaves(layout, is_leaf=_is_shape) if s is not None]
    leaves = jax.tree.leaves(arrays)
    words = np.zeros((rows, width(layout)), np.uint32)
    start = 0
    for shape, leaf in zip(shapes, leaves, strict=True):
        size = prod(shape)
        own = np.asarray(leaf)
        own = own.astype(np.int32).view(np.uint32) if own.dtype != np.uint32 else own
        words[places, start : start + size] = own.reshape(len(own), size)
        start += size
    return words


def unpack(layout: Any, words: UInt32[Array, "n W"]) -> Any:
    """What `pack` was given, as arrays of words."""
    leaves, tree = jax.tree.flatten(layout, is_leaf=_is_shape)
    arrays, start = [], 0
    for shape in leaves:
        size = 0 if shape is None else prod(shape)
        own = words[:, start : start + size]
        arrays.append(None if shape is None else own.reshape(len(words), *shape))
        start += size
    return jax.tree.unflatten(tree, arrays)


def _uint(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of words of the hash, of thresholds, of numbers."""
    return jax.ShapeDtypeStruct(shape, jnp.uint32)


def _drawn(sizes: CallSizes) -> tuple[Any, ...]:
    return _uint(sizes.rows if sizes.slots > 1 else 1), _uint(sizes.images), _uint(2)


def _kernel_table(spec: FaultSpec, quantized: Quantized, stage: Stage, sizes: CallSizes) -> Any:
    assert stage.layer is not None
    codes = quantized.parameters.layers[quantized.layers[stage.layer].name].kernel
    several = () if sizes.slots == 1 or spec.scope == "image" else (1 + sizes.kernels,)
    return jax.ShapeDtypeStruct((*several, *codes.shape), codes.dtype)


def _streams(
    spec: FaultSpec,
    quantized: Quantized,
    trials: UInt32[Array, "K"],
    indices: UInt32[Array, "B"],
    seed: UInt32[Array, "2"],
) -> Streams:
    def of(target: int, count: int) -> UInt32[Array, "count K B 2"]:
        numbers = jnp.arange(count, dtype=jnp.uint32)[:, None, None]
        own = spec.stream(seed, trial=trials[:, None], layer=numbers, target=target, image=indices)
        return jnp.broadcast_to(own, (count, len(trials), len(indices), 2))

    drawn, layers = bool(spec.bits) and not spec.sites, len(quantized.layers)
    values = 1 + max((wire.number for wire in transfers(quantized.program)), default=0)
    return Streams(
        of(bits.ACTIVATIONS, layers) if drawn else None,
        of(bits.LINK, values) if spec.link else None,
        of(bits.WEIGHTS, layers) if drawn and spec.scope == "image" else None,
    )


def _first(
    spec: FaultSpec, stage: Stage, prepare: Prepare, images: Array, data: StageData
) -> Tables:
    image = data.context.part.program.image_dtype
    inputs = StageInputs((prepare(images).astype(image),))
    return run_stage(spec, stage, inputs, data.context, _nothing_drawn)


def _nothing_drawn(target: int, number: Any) -> Array:
    raise AssertionError("before the first layer nothing can be faulty")


def _call(
    spec: FaultSpec,
    stage: Stage,
    sizes: CallSizes,
    layout: NodeWords,
    words: UInt32[Array, "slots W"],
    tiles: UInt32[Array, ""],
    kernels: Array | None,
    reads: Tables,
    streams: Streams,
    data: StageData,
) -> Tables:
    """The tables of a stage's call."""
    if sizes.slots == 1:
        return _tile(spec, stage, sizes, layout, words, kernels, reads, streams, data)
    count, size = words.shape[0], sizes.nodes

    def tile(own: UInt32[Array, "size W"]) -> Tables:
        values = _tile(spec, stage, sizes, layout, own, kernels, reads, streams, data)
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
    data: StageData,
) -> Tables:
    """The values [n * B, ...] of some nodes that share a kernel."""
    nodes, context, batch = unpack(layout, words), data.context, sizes.images

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
        return flat(_picked(table, places))

    pairs = zip(reads, stage.parents, nodes.parents.T, strict=True)
    values = tuple(read(*pair) for pair in pairs)
    kernel = kernels
    if sizes.slots > 1 and kernels is not None and spec.scope != "image":
        # As rows: a product may want its kernel laid out otherwise, and XLA would lay out all of
        # the table that way in every call.
        kernel = _picked(kernels.reshape(len(kernels), -1), nodes.kernel[:1])
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
    inputs = StageInputs(values, kernel, thresholds, answering, per_image(nodes.links))

    def drawn(target: int, number: Any) -> UInt32[Array, "nB 2"]:
        of_target = streams.links if target == bits.LINK else streams.inputs
        table = lax.dynamic_index_in_dim(of_target, number.astype(jnp.int32), keepdims=False)
        return flat(_picked(table, nodes.trial))

    if nodes.weights is None:
        return run_stage(spec, stage, inputs, context, drawn, data.layer)
    return _kernel_by_image(spec, stage, inputs, nodes, streams, drawn, data)


def _by_image(spec: FaultSpec, shape: tuple[int, ...]) -> bool:
    """Whether a node's thresholds are given for every image, as within a budget."""
    return len(shape) > 1 + bool(spec.copies)


def _picked(table: Shaped[Array, "slots ..."], places: UInt32[Array, "n"]) -> Array:
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
    nodes: NodeWords,
    streams: Streams,
    drawn: Callable[[int, Any], Array],
    data: StageData,
) -> Tables:
    """Image by image, each with a kernel of its own: never as a batch of kernels."""
    call = next(step for step in stage.steps if isinstance(step, LayerCall))
    table = lax.dynamic_index_in_dim(streams.weights, data.keeper.astype(jnp.int32), keepdims=False)
    of_weights, codes = _picked(table, nodes.trial)[0], inputs.kernel

    def one(image: Array) -> Tables:
        def its(arrays: Any) -> Any:
            return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, image, 1), arrays)

        own = codes, of_weights[image], nodes.weights[0]
        kernel = faulty_kernel(spec, data.context.part.format, call, *own)  # pyright: ignore
        alone = its(inputs._replace(kernel=None))._replace(kernel=kernel)
        streams_of = lambda target, number: its(drawn(target, number))  # noqa: E731
        values = run_stage(spec, stage, alone, data.context, streams_of, data.layer)
        return tuple(value[0] for value in values)

    return lax.map(one, jnp.arange(len(of_weights)))


def _kernels(
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

    return _one_after_another(sizes, codes, (streams, of.faults), count, make)


def _one_after_another(
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


@lru_cache(maxsize=128)
def compile_sites(
    how: str, sites: int, fmt: QFormat, shape: tuple[int, ...], sizes: CallSizes, device: Any = None
) -> compiler.Compiled:
    """(words, count), (codes) -> kernels with faults at sites, as `Programs.kernels`."""
    layout = sites_layout(sites)

    def kernels(words: Array, count: Array, codes: Array) -> tuple[Array]:
        def make(own: FaultSites) -> Array:
            return inject_sites(how, fmt, codes, own)

        return _one_after_another(sizes, codes, (unpack(layout, words),), count, make)

    words = _uint(sizes.kernels, width(layout))
    codes = jax.ShapeDtypeStruct(shape, jnp.float32)
    return compiler.compile_all([_lower(device, kernels, (words, _uint()), codes)], device)[0]


def sites_layout(sites: int) -> FaultSites:
    """The shapes of the words of a kernel with so many sites."""
    return FaultSites((sites,), (sites,))


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
        return (jax.vmap(metric.of, in_axes=(0, None))(_picked(table, slots), targets),)

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
