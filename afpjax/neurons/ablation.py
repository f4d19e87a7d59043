"""A network without some of a layer's neurons: only what depends on the layer runs again.

A neuron is one output channel of a layer, and it is gone when its output, after the folded bias
and before the activation, is zero. The network is cut into stages; the values that stages hand on
are kept of a clean run, and what lies beside or before the layer is read from them.

Neurons are masks on activations. Functions here are for one image and one mask: mapped over both,
a convolution sees one ordinary batch of images x neurons, and its kernel no batch at all.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from math import prod

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from afpjax.network.interpreter import Hook, Network, affine, run_steps
from afpjax.network.program import LayerCall, LayerParameters, Program, Value
from afpjax.network.quantized import LayerFaults, Quantized, layer_on_codes
from afpjax.network.stages import Stage, stages

#: A network whose neurons are scored, in floating point or in a number format.
Scored = Network | Quantized
#: What stages hand on, of one image.
Kept = Mapping[Value, Array]
#: Places of layers whose neurons one program leaves out.
Run = tuple[int, ...]
RUNS = 8  # ResNet-32's compile in 13 s (fixed point) and not 20 for 34; runs take a sixth longer


def hook_of(network: Scored) -> Hook:
    """How the network computes a layer."""
    return layer_on_codes(network, _fault_free) if isinstance(network, Quantized) else affine


def _fault_free(call: LayerCall) -> LayerFaults:
    return LayerFaults()


def clean(network: Scored, image: Array) -> dict[Value, Array]:
    """What every stage hands on, the logits (`program.output`) among it, of one image."""
    program = network.program
    known: dict[Value, Array] = {program.image: image.astype(program.image_dtype)}
    for stage in cut(program):
        known |= _run(network, stage, known, hook_of(network))
    return known


def without(
    network: Scored, kept: Kept, run: Run, neuron: Int[Array, "2"]
) -> Float[Array, "classes"]:
    """Logits of the image that `kept` is of, without one neuron of one of a run's layers.

    `neuron` is the layer's place among the program's layers, and the neuron's among its own.
    """
    program, plain = network.program, hook_of(network)
    places = {program.graph.layers[layer].name: layer for layer in run}

    def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
        made, place = plain(call, value, parameters), places.get(call.layer.name)
        if place is None:
            return made
        own = jnp.arange(call.layer.neurons, dtype=neuron.dtype)
        lost = (neuron[0] == place) & (neuron[1] == own)
        return jnp.where(call.per_output(lost.reshape(call.channels)), 0, made)

    known = dict(kept)
    for number in affected(program, run):
        known |= _run(network, cut(program)[number], known, hook)
    return logits_of(program, known)


@lru_cache(maxsize=16)
def runs(program: Program) -> tuple[Run, ...]:
    """The program's layers, in order, in at most `RUNS` runs of about equally many.

    What leaves out neurons of a run's layers is one program, of everything that depends on the
    first: one for each layer would be compiled in a time that grows with the square of their
    number. A neuron costs at most a run's layers more.
    """
    layers = len(program.graph.layers)
    ends = [layers * number // min(RUNS, layers) for number in range(min(RUNS, layers) + 1)]
    return tuple(tuple(range(start, end)) for start, end in pairwise(ends))


def logits_of(program: Program, kept: Kept) -> Float[Array, "classes"]:
    """The logits among what a run has kept."""
    assert isinstance(program.output, Value), "a network's logits depend on its image"
    return kept[program.output]


@lru_cache(maxsize=16)
def cut(program: Program) -> tuple[Stage, ...]:
    """The program's stages."""
    return stages(program)


@lru_cache(maxsize=4096)
def affected(program: Program, run: Run) -> tuple[int, ...]:
    """Numbers of the stages that depend on a run's layers, theirs among them, as they run."""
    found: dict[int, None] = {}
    for number, stage in enumerate(cut(program)):
        if stage.layer in run or any(parent in found for parent in stage.parents):
            found[number] = None
    return tuple(found)


def read_again(program: Program, run: Run) -> tuple[Value, ...]:
    """The kept values that are read to leave out neurons of a run, and the clean logits."""
    own = [cut(program)[number] for number in affected(program, run)]
    made = {value for stage in own for value in stage.outputs}
    read = dict.fromkeys(value for stage in own for value in stage.inputs if value not in made)
    assert isinstance(program.output, Value), "a network's logits depend on its image"
    return (*read, program.output)


def passes(program: Program, run: Run) -> float:
    """What leaving out one neuron of a run costs, in passes of an image through the network.

    Counted in multiply-accumulates of the layers that run again for every neuron.
    """
    layers, own = program.graph.layers, affected(program, run)
    cuts = [cut(program)[number] for number in own]
    after = [stage.layer for stage in cuts if not set(own).isdisjoint(stage.parents)]
    again = sum(layers[place].macs for place in after if place is not None)
    return again / sum(each.macs for each in layers)


def exact_passes(program: Program, images: int) -> float:
    """Passes of an image through the network that leaving out every neuron once costs."""
    layers = program.graph.layers
    neurons = {run: sum(layers[place].neurons for place in run) for run in runs(program)}
    return images * sum(count * passes(program, run) for run, count in neurons.items())


def largest_value(program: Program, run: Run) -> int:
    """Elements of the largest tensor that layers make when a run's neurons are left out."""
    layers = program.graph.layers
    after = [cut(program)[number].layer for number in affected(program, run)]
    return max(prod(layers[place].output_shape) for place in after if place is not None)


def _run(network: Scored, stage: Stage, known: Kept, hook: Hook) -> dict[Value, Array]:
    program, parameters = network.program, network.parameters
    constants = dict(zip(program.constants, parameters.constants, strict=True))
    environment = {value: constants[value] for value in stage.constants}
    environment |= {value: known[value] for value in stage.inputs}
    if stage is cut(program)[0]:
        environment[program.image] = known[program.image]
    run_steps(stage.steps, environment, parameters.layers, hook)
    return {value: environment[value] for value in stage.outputs}
