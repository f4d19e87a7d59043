"""A network without some of a layer's neurons: only what depends on the layer runs again.

A neuron is one output channel of a layer, and it is gone when its output, after the folded bias
and before the activation, is zero. The network is cut into stages; the values that stages hand on
are kept of a clean run, and what lies beside or before the layer is read from them.

Neurons are masks on activations. Functions here are for one image and one mask: mapped over both,
a convolution sees one ordinary batch of images x neurons, and its kernel no batch at all.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import prod

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from afpjax.network.execute import Hook, affine, run_steps
from afpjax.network.network import Network
from afpjax.network.program import LayerCall, LayerParameters, Program, Value
from afpjax.network.quantized import Quantized, Strikes, layer_on_codes
from afpjax.network.stages import Stage, stages

#: A network whose neurons are scored, in floating point or in a number format.
Scored = Network | Quantized
#: What stages hand on, of one image.
Kept = Mapping[Value, Array]


def hook_of(network: Scored) -> Hook:
    """How the network computes a layer."""
    return layer_on_codes(network, _fault_free) if isinstance(network, Quantized) else affine


def _fault_free(call: LayerCall) -> Strikes:
    return Strikes()


def clean(network: Scored, image: Array) -> dict[Value, Array]:
    """What every stage hands on, the logits (`program.output`) among it, of one image."""
    program = network.program
    known: dict[Value, Array] = {program.image: image.astype(program.image_dtype)}
    for stage in cut(program):
        known |= _run(network, stage, known, hook_of(network))
    return known


def without(
    network: Scored, kept: Kept, layer: int, present: Bool[Array, "C"]
) -> Float[Array, "classes"]:
    """Logits of the image that `kept` is of, with only the `present` neurons of a layer.

    `layer` is its place among the program's layers.
    """
    program, plain = network.program, hook_of(network)
    name = program.graph.layers[layer].name

    def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
        made = plain(call, value, parameters)
        if call.layer.name != name:
            return made
        return jnp.where(call.per_output(present.reshape(call.channels)), made, 0)

    known = dict(kept)
    for number in affected(program, layer):
        known |= _run(network, cut(program)[number], known, hook)
    return logits_of(program, known)


def logits_of(program: Program, kept: Kept) -> Float[Array, "classes"]:
    """The logits among what a run has kept."""
    assert isinstance(program.output, Value), "a network's logits depend on its image"
    return kept[program.output]


@lru_cache(maxsize=16)
def cut(program: Program) -> tuple[Stage, ...]:
    """The program's stages."""
    return stages(program)


@lru_cache(maxsize=4096)
def affected(program: Program, layer: int) -> tuple[int, ...]:
    """Numbers of the stages that depend on a layer, its own first, in the order they run."""
    found: dict[int, None] = {}
    for number, stage in enumerate(cut(program)):
        if stage.layer == layer or any(parent in found for parent in stage.parents):
            found[number] = None
    return tuple(found)


def read_again(program: Program, layer: int) -> tuple[Value, ...]:
    """The kept values that a run without neurons of a layer reads, and the clean logits."""
    own = [cut(program)[number] for number in affected(program, layer)]
    made = {value for stage in own for value in stage.outputs}
    read = dict.fromkeys(value for stage in own for value in stage.inputs if value not in made)
    assert isinstance(program.output, Value), "a network's logits depend on its image"
    return (*read, program.output)


def passes(program: Program, layer: int) -> float:
    """What leaving out one neuron of a layer costs, in passes of an image through the network.

    Counted in multiply-accumulates of the layers that run again.
    """
    layers = program.graph.layers
    after = [cut(program)[number].layer for number in affected(program, layer)[1:]]
    again = sum(layers[place].macs for place in after if place is not None)
    return again / sum(each.macs for each in layers)


def exact_passes(program: Program, images: int) -> float:
    """Passes of an image through the network that leaving out every neuron once costs."""
    each = (layer.neurons * passes(program, n) for n, layer in enumerate(program.graph.layers))
    return images * sum(each)


def largest_value(program: Program, layer: int) -> int:
    """Elements of the largest tensor that layers make when a layer's neurons are left out."""
    layers = program.graph.layers
    after = [cut(program)[number].layer for number in affected(program, layer)]
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
