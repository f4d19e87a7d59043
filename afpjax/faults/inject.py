"""Run a quantised network with faults: masks are made where they are used, never kept.

The interpreter is driven stage by stage, here for a whole network in one program, and by
`evaluate` for programs of one stage each.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from afpjax.faults import bits, kinds
from afpjax.faults.budget import once, within_budget
from afpjax.faults.link import Wiring, all_arrived, by_stage, wiring_by_stage
from afpjax.faults.sites import FaultSites, exchange_sites
from afpjax.faults.spec import FaultSpec, Thresholds, keepers
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Hook, checked_image, run_steps
from afpjax.network.program import LayerCall, LayerParameters, Parameters
from afpjax.network.quantized import LayerFaults, Quantized, encoded, layer_on_codes
from afpjax.network.stages import Stage, stages

#: Streams of a batch's images, by target and the number of a layer or of a value on a link.
Streams = Callable[[int, Any], UInt32[Array, "B 2"]]


class StageInputs(NamedTuple):
    """What a stage computes from in its trial."""

    values: tuple[Array, ...]  # [B, ...] each, of the stages before; the images for the first
    kernel: Array | None = None  # codes, faulty already
    thresholds: Any = None  # of the layer's inputs: uint32 [B, columns], or `FaultSites` [B, n]
    exchanged: Any = None  # of its weights, where these are no part of the kernel: [B, n]
    #: Where devices share out the neurons: the device that each is from, int8 [B, C], -1 lost.
    answering: Any = None
    links: Any = None  # of `values` on their way: thresholds, uint32 [B, W], or [B, W, 2]


class StageContext(NamedTuple):
    """Arguments of a stage that all trials of a call share."""

    part: Quantized  # what of the network belongs to the stage
    substitute: Any = None  # what a lost neuron gives, float32 [C], where neurons can be lost
    wiring: Wiring | None = None  # where values can be faulty on their way


def run_stage(
    spec: FaultSpec,
    stage: Stage,
    inputs: StageInputs,
    context: StageContext,
    streams: Streams,
    layer: UInt32[Any, ""] | int = 0,
) -> tuple[Array, ...]:
    """One stage on a batch of images, each with the faults of its trial.

    `layer` is the number of the stage's layer, by which `streams` knows what is drawn for it.
    """
    part, values, layers = context.part, inputs.values, context.part.parameters.layers
    if context.wiring is not None:
        of_link = partial(streams, bits.LINK)
        values = all_arrived(spec, part.format, values, inputs.links, of_link, context.wiring)
    own = None
    if stage.layer is not None:
        own = streams(bits.ACTIVATIONS, layer) if spec.bits and not spec.sites else None
        layers = {name: layer._replace(kernel=inputs.kernel) for name, layer in layers.items()}
    constants = dict(zip(stage.constants, part.parameters.constants, strict=True))
    names = stage.inputs if stage.parents else (part.program.image,)

    def one(
        values: tuple[Array, ...],
        stream: Array | None,
        thresholds: Any,
        exchanged: FaultSites | None,
        answering: Array | None,
    ) -> tuple[Array, ...]:
        def copy(stream: Array | None, thresholds: Any) -> Hook:
            """The layer as it computes with one read copy of its inputs."""

            def inject(codes: Array) -> Array:
                return spec.inject(part.format, codes, stream, thresholds)

            def faults(call: LayerCall) -> LayerFaults:
                if exchanged is None:
                    return LayerFaults(None, inject)
                sums = partial(exchange_sites, spec.how, part.format, call, exchanged)
                return LayerFaults(None, inject, sums)

            return layer_on_codes(part, faults)

        hook = copy(stream, thresholds)
        if answering is not None:
            hook = _shared_out(spec, copy, stream, thresholds, answering, context.substitute)
        environment = constants | dict(zip(names, values, strict=True))
        run_steps(stage.steps, environment, layers, hook)
        return tuple(environment[value] for value in stage.outputs)

    return jax.vmap(one)(values, own, inputs.thresholds, inputs.exchanged, inputs.answering)


def _shared_out(
    spec: FaultSpec,
    copy: Callable[[Any, Any], Hook],
    stream: UInt32[Array, "2"] | None,
    thresholds: UInt32[Array, "copies columns"],
    answering: Int[Array, "C"],
    substitute: Float[Array, "C"],
) -> Hook:
    """The hook of a layer whose neuron n is computed from read copy `answering[n]`.

    A neuron that is lost (-1) gives its substitute in place of what the layer makes, after the
    folded bias and batch norm and before the activation. `copy(stream, thresholds)` is the layer on
    one read copy. Copies have independent faults; the first has those of the only copy of an
    undistributed layer.
    """

    def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
        def from_copy(number: int) -> Array:
            own = stream if stream is None else bits.copy_stream(stream, number)
            return copy(own, thresholds[number])(call, value, parameters)

        copies = range(spec.copies) if spec.bits else range(1)  # or all copies are alike
        device = call.per_output(answering.reshape(call.channels))
        first = from_copy(0)
        lost = call.per_output(substitute.reshape(call.channels)).astype(first.dtype)
        output = jnp.where(device >= 0, first, lost)
        for number in copies[1:]:
            output = jnp.where(device == number, from_copy(number), output)
        return output

    return hook


def faulty_kernel(
    spec: FaultSpec, fmt: QFormat, call: LayerCall, codes: Array, stream: Any, thresholds: Any
) -> Float[Array, "..."]:
    """A kernel's codes as a trial, or an image of it, has them.

    `thresholds` are [columns], or where devices share out the neurons, of each neuron's weights.
    """
    if spec.copies:  # laid out so that each column broadcasts over the weights of its neurons
        thresholds = jax.vmap(
            lambda column: call.per_kernel(column.reshape(call.channels)), in_axes=1
        )(thresholds)
    return spec.inject(fmt, codes, stream, thresholds)


def part_of(quantized: Quantized, stage: Stage) -> Quantized:
    """What of a network a stage needs beside its layer's kernel: bias, steps and constants."""
    constants = dict(zip(quantized.program.constants, quantized.parameters.constants, strict=True))
    name = None if stage.layer is None else quantized.layers[stage.layer].name
    layers, steps = quantized.parameters.layers, quantized.steps
    return replace(
        quantized,
        parameters=Parameters(
            {} if name is None else {name: layers[name]._replace(kernel=None)},
            tuple(constants[value] for value in stage.constants),
        ),
        steps={} if name is None else {name: steps[name]},
    )


@partial(jax.jit, static_argnums=0)
def logits_of_trial(
    spec: FaultSpec,
    quantized: Quantized,
    images: Float[Array, "B ..."],
    indices: UInt32[Array, "B"],
    thresholds: Thresholds,
    seed: UInt32[Array, "2"],
    trial: UInt32[Array, ""],
) -> Float[Array, "B classes"]:
    """Logits of one trial of one mapping: faults in weights once, in activations for every image.

    `indices` number the images, so that their draws do not depend on how they are batched.
    """
    network, program = encoded(quantized), quantized.program
    images = jax.vmap(partial(checked_image, program))(images)
    run = partial(_logits, spec, network, thresholds, seed, trial)
    if spec.scope != "image":
        return run(images, indices)
    # A kernel for each image: never as a batch of kernels.
    return jax.lax.map(lambda one: run(one[0][None], one[1][None])[0], (images, indices))


def _logits(
    spec: FaultSpec,
    network: Quantized,
    thresholds: Thresholds,
    seed: Array,
    trial: Array,
    images: Array,
    indices: Array,
) -> Array:
    program, layers, batch = network.program, network.layers, len(images)
    scaled = within_budget(spec, layers, thresholds, seed, trial)
    of_inputs = jax.vmap(scaled.of_image)(indices)  # [B, L, columns]
    own = keepers(spec.shared, layers)

    def streams(target: int, count: int, indices: Array) -> UInt32[Array, "count B 2"]:
        # Of all layers at once: one small elementwise program, not one for each layer.
        numbers = jnp.arange(count, dtype=jnp.uint32)[:, None]
        trials = jnp.broadcast_to(trial, (1, len(indices)))
        return spec.stream(seed, trial=trials, layer=numbers, target=target, image=indices[None])

    kernels = streams(bits.WEIGHTS, len(layers), indices[:1])[:, 0]
    cut, wiring = stages(program), wiring_by_stage(network) if spec.link else None
    tables = {bits.ACTIVATIONS: streams(bits.ACTIVATIONS, len(layers), indices)}
    links: list[Any] = [None] * len(cut)
    if wiring is not None:
        values = 1 + max((int(n) for each in wiring for n in each.numbers), default=0)
        tables[bits.LINK] = streams(bits.LINK, values, indices)
        links = by_stage(program, jnp.asarray(thresholds.links))
    made = {program.image: images}
    for number, stage in enumerate(cut):
        read = stage.inputs if stage.parents else (program.image,)
        inputs, layer = StageInputs(tuple(made[value] for value in read)), stage.layer
        if layer is not None:
            call = program.calls[layer]
            codes = network.parameters.layers[call.layer.name].kernel
            of_kernel = kernels[own[layer]], scaled.weights[layer]
            kernel = faulty_kernel(spec, network.format, call, codes, *of_kernel)
            inputs = inputs._replace(kernel=kernel, thresholds=of_inputs[:, layer])
        context = StageContext(part_of(network, stage))
        if wiring is not None and stage.parents:
            every = jnp.broadcast_to(links[number], (batch, *links[number].shape))
            inputs, context = inputs._replace(links=every), context._replace(wiring=wiring[number])
        outputs = run_stage(spec, stage, inputs, context, lambda t, n: tables[t][n], layer or 0)
        made.update(zip(stage.outputs, outputs, strict=True))
    return made[program.output]  # pyright: ignore


class FlipCounts(NamedTuple):
    """How many bits flipped in each layer's read copies."""

    weights: Int[Array, "L"]  # in this trial
    activations: Int[Array, "B L"]  # in each image of this trial


@partial(jax.jit, static_argnums=0)
def flips_of_trial(
    spec: FaultSpec,
    quantized: Quantized,
    indices: UInt32[Array, "B"],
    thresholds: Thresholds,
    seed: UInt32[Array, "2"],
    trial: UInt32[Array, ""],
) -> FlipCounts:
    """How many bits `logits_of_trial` flips with the same arguments, layer by layer.

    Those of a stored kernel that several layers share are counted once, for the first of them.
    """
    layers = quantized.layers
    scaled = within_budget(spec, layers, thresholds, seed, trial)
    if kinds.named(spec.kind).drawn != "bit" or spec.scope:
        raise InputError("flips are counted of faults that are drawn by bit, of the default scope")
    count = partial(bits.count_flips, generator=spec.generator)

    def flips(stream: Array, thresholds: Array, shapes: Sequence[tuple[int, ...]]) -> Array:
        counts = jnp.zeros(len(shapes), jnp.int32)
        for shape in dict.fromkeys(shapes):  # layers of one shape together: it compiles sooner
            alike = np.array([n for n, each in enumerate(shapes) if each == shape])
            of_shape = jax.vmap(partial(count, shape=shape, bits=spec.bits))
            made = of_shape(stream[alike], thresholds=thresholds[alike])
            counts = counts.at[alike].set(made)
        return counts

    def of_image(index: Array) -> Array:
        reads = bits.streams(seed, trial, len(layers), bits.ACTIVATIONS, index)
        return flips(reads, scaled.of_image(index), [layer.input_shape for layer in layers])

    kernels = bits.streams(seed, trial, len(layers), bits.WEIGHTS)
    stored = once(spec, layers, scaled.weights)
    return FlipCounts(
        flips(kernels, stored, [layer.kernel_shape for layer in layers]),
        jax.lax.map(of_image, indices),
    )
