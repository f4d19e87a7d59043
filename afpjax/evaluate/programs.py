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
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from afpjax.evaluate.given import Given, Met, Spots, at_layer, at_link, limits, uint
from afpjax.evaluate.metric import Judge, Judged
from afpjax.evaluate.neurons import by_neuron, shared_out
from afpjax.faults import bits
from afpjax.faults.link import all_arrived, stream_of
from afpjax.faults.patterns import struck, struck_at
from afpjax.faults.strike import Draws
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Hook, run_steps
from afpjax.network.program import LayerCall, Parameters, Value
from afpjax.network.quantized import LayerFaults, Quantized, layer_on_codes
from afpjax.network.stages import Stage, stages

#: Images as they are kept, [B, ...], to the network's inputs, float32 [B, ...].
Prepare = Callable[[Array], Array]


@dataclass(frozen=True)
class Programs:
    """Everything that one evaluator runs; `trials` of them at a time, one on each device."""

    stages: tuple[Stage, ...]
    first: compiler.Compiled  # (images as kept, Given) -> values
    run: tuple[compiler.Compiled | None, ...]  # by stage: (Met, Given) -> values; None for `first`
    strike: tuple[compiler.Compiled, ...]  # by layer: ((limits, trial, image), (codes, …))
    logits: jax.ShapeDtypeStruct
    mesh: Mesh | None

    @property
    def trials(self) -> int:
        return 1 if self.mesh is None else self.mesh.size


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


@dataclass(frozen=True)
class Shapes:
    """Shapes of an evaluation's arguments, which its programs are compiled for; hashable."""

    leaves: tuple[jax.ShapeDtypeStruct, ...]
    tree: Any

    @classmethod
    def of(cls, *arguments: Any) -> "Shapes":
        leaves, tree = jax.tree.flatten(jax.eval_shape(lambda *each: each, *arguments))
        return cls(tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves), tree)

    def arguments(self) -> Any:
        return jax.tree.unflatten(self.tree, self.leaves)


@lru_cache(maxsize=32)
def compile_programs(
    draws: Draws, prepare: Prepare, shapes: Shapes, mesh: Mesh | None = None
) -> Programs:
    """Compile for a network and a batch: `shapes` are those of (encoded network, `Images`)."""
    quantized, batch = shapes.arguments()
    cut, layers = stages(quantized.program), quantized.layers
    number = uint()
    values: dict[Value, Any] = {}
    lowered = []
    for stage in cut:
        given = Given(part_of(quantized, stage), batch.indices, number, uint(2))
        if stage is cut[0]:
            function = partial(_first, stage, prepare)
            arguments: tuple[Any, Any] = ((), (batch.images, given))
        else:
            function = partial(_run, draws, stage)
            met = Met(tuple(values[value] for value in stage.inputs))
            if stage.layer is not None:
                met, given = at_layer(draws, quantized, layers[stage.layer], met, given)
            met, given = at_link(draws, met, given)
            arguments = (met, given)
        values.update(zip(stage.outputs, jax.eval_shape(function, *arguments), strict=True))
        lowered.append(_lower(function, mesh, *arguments))
    drawn = replace(draws, places=0)  # kernels are struck at places by programs of their own
    for call in quantized.program.calls:
        kernel = quantized.parameters.layers[call.layer.name].kernel
        shape = uint(call.layer.neurons, draws.columns) if draws.copies else limits(drawn)
        of_kernel = ((shape, uint(), uint()), (kernel, number, uint(2)))
        lowered.append(_lower(partial(_strike, drawn, quantized.format, call), mesh, *of_kernel))
    logits = values[quantized.program.output]
    first, *rest = compiler.compile_all(lowered)
    run, strike = rest[: len(cut) - 1], rest[len(cut) - 1 :]
    return Programs(cut, first, (None, *run), tuple(strike), logits, mesh)


@lru_cache(maxsize=32)
def compile_judge(
    judge: Judge, logits: jax.ShapeDtypeStruct, mesh: Mesh | None
) -> compiler.Compiled:
    """(logits, `Judged`) -> one answer for each image."""
    labels: Any = jax.ShapeDtypeStruct(logits.shape[:1], jnp.int32)
    reference: Any = jax.ShapeDtypeStruct(logits.shape, jnp.float32) if judge.compares else None
    lowered = _lower(judge.of, mesh, logits, Judged(labels, reference))
    return compiler.compile_all([lowered])[0]


def _lower(function: Any, mesh: Mesh | None, of_trial: Any, common: Any) -> Any:
    """Lower `function(of_trial, common) -> arrays` as a function of bare arrays.

    What the arrays belong to (names of layers, the program) is then no part of the compiled
    program, so that equal ones can be told to be equal.
    """
    own, own_tree = jax.tree.flatten(of_trial)
    rest, rest_tree = jax.tree.flatten(common)

    def bare(own: tuple[Array, ...], rest: tuple[Array, ...]) -> tuple[Array, ...]:
        arguments = jax.tree.unflatten(own_tree, own), jax.tree.unflatten(rest_tree, rest)
        return tuple(jax.tree.leaves(function(*arguments)))

    # Arguments that nobody reads stay: without them, programs that read others look alike.
    if mesh is None:
        return jax.jit(bare, keep_unused=True).lower(tuple(own), tuple(rest))
    stacked = (jax.ShapeDtypeStruct((mesh.size, *leaf.shape), leaf.dtype) for leaf in own)
    spread = jax.jit(compiler.over_trials(bare, mesh), keep_unused=True)
    return spread.lower(tuple(stacked), tuple(rest))


def _first(stage: Stage, prepare: Prepare, nothing: tuple[()], common: Any) -> tuple[Array, ...]:
    images, given = common
    program = given.part.program

    def one(image: Array) -> tuple[Array, ...]:
        environment = _constants(stage, given.part) | {program.image: image}
        run_steps(stage.steps, environment, {})
        return tuple(environment[value] for value in stage.outputs)

    return jax.vmap(one)(prepare(images).astype(program.image_dtype))


def _run(draws: Draws, stage: Stage, met: Met, given: Given) -> tuple[Array, ...]:
    """One stage on a batch of images, each under the faults of its trial."""
    layers, part = given.part.parameters.layers, given.part
    values, streams = met.values, None
    if given.wiring is not None:
        on_the_way = stream_of(draws, given.seed, met.trials, given.indices)
        values = all_arrived(draws, part.format, values, met.links, on_the_way, given.wiring)
    if stage.layer is not None:
        streams = draws.stream(
            given.seed,
            trial=met.trials,
            layer=given.number,
            target=bits.ACTIVATIONS,
            image=given.indices,
        )
        layers = {name: layer._replace(kernel=met.kernel) for name, layer in layers.items()}

    def one(
        values: tuple[Array, ...], stream: Array | None, limit: Any, by: Array | None
    ) -> tuple[Array, ...]:
        def copy(stream: Array | None, limit: Any) -> Hook:
            """The layer as it computes with one read copy of its inputs."""
            on_codes = partial(_on_codes, draws, part.format, stream=stream, limits=limit)
            return layer_on_codes(part, lambda call: LayerFaults(None, on_codes))

        hook = copy(stream, limit)
        if by is not None:
            hook = shared_out(draws, copy, stream, limit, by, given.substitute)
        environment = _constants(stage, part) | dict(zip(stage.inputs, values, strict=True))
        run_steps(stage.steps, environment, layers, hook)
        return tuple(environment[value] for value in stage.outputs)

    return jax.vmap(one)(values, streams, met.limits, met.by)


def _constants(stage: Stage, part: Quantized) -> dict[Value, Array]:
    return dict(zip(stage.constants, part.parameters.constants, strict=True))


def _strike(
    draws: Draws, fmt: QFormat, call: LayerCall, of_trial: Any, common: Any
) -> Float[Array, "..."]:
    """A kernel's codes as one trial, or one image of it, has them."""
    (limits, trial, image), (codes, number, seed) = of_trial, common
    if draws.copies:
        limits = by_neuron(call, limits)
    stream = draws.stream(seed, trial=trial, layer=number, target=bits.WEIGHTS, image=image)
    return _on_codes(draws, fmt, codes, stream, limits)


def _on_codes(draws: Draws, fmt: QFormat, codes: Array, stream: Any, limits: Any) -> Array:
    if draws.places:
        return struck_at(draws.kind, fmt, codes, limits.elements, limits.words)
    return struck(draws, fmt, codes, stream, limits) if draws.bits else codes


@lru_cache(maxsize=128)
def compile_places(
    how: str, places: int, fmt: QFormat, shape: tuple[int, ...], mesh: Mesh | None
) -> compiler.Compiled:
    """(`Spots` [n], codes) -> codes with these places struck."""
    draws, kernel = Draws.at(how, places), jax.ShapeDtypeStruct(shape, jnp.float32)

    def at(spots: Spots, codes: Array) -> Array:
        return struck_at(how, fmt, codes, spots.elements, spots.words)

    return compiler.compile_all([_lower(at, mesh, limits(draws), kernel)])[0]
