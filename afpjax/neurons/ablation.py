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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from afpjax.evaluate import sizes
from afpjax.evaluate.metric import jensen_shannon
from afpjax.network.interpreter import Hook, Network, affine, run_steps
from afpjax.network.program import LayerCall, LayerParameters, Program, Value
from afpjax.network.quantized import LayerFaults, Quantized, layer_on_codes
from afpjax.network.stages import Stage, stages

#: A network whose neurons are scored, in floating point or in a number format.
AnyNetwork = Network | Quantized
#: What stages hand on, of one image.
StageValues = Mapping[Value, Array]
#: Indices of consecutive layers whose neurons one program leaves out.
LayerRun = tuple[int, ...]

RUNS = 8  # ResNet-32's compile in 13 s (fixed point) and not 20 for 34; runs take a sixth longer


def hook_of(network: AnyNetwork) -> Hook:
    """How the network computes a layer."""
    if isinstance(network, Quantized):
        return layer_on_codes(network, lambda call: LayerFaults())
    return affine


def clean(network: AnyNetwork, image: Array) -> dict[Value, Array]:
    """What every stage hands on, the logits (`program.output`) among it, of one image."""
    program = network.program
    known: dict[Value, Array] = {program.image: image.astype(program.image_dtype)}
    for stage in cut(program):
        known |= _run_stage(network, stage, known, hook_of(network))
    return known


def without(
    network: AnyNetwork, kept: StageValues, run: LayerRun, neuron: Int[Array, "2"]
) -> Float[Array, "classes"]:
    """Logits of the image that `kept` is of, without one neuron of one of a run's layers.

    `neuron` is the layer's index among the program's layers, and the neuron's among its own.
    """
    program, plain = network.program, hook_of(network)
    indices = {program.graph.layers[layer].name: layer for layer in run}

    def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
        outputs, index = plain(call, value, parameters), indices.get(call.layer.name)
        if index is None:
            return outputs
        own = jnp.arange(call.layer.neurons, dtype=neuron.dtype)
        lost = (neuron[0] == index) & (neuron[1] == own)
        return jnp.where(call.per_output(lost.reshape(call.channels)), 0, outputs)

    known = dict(kept)
    for number in affected(program, run):
        known |= _run_stage(network, cut(program)[number], known, hook)
    return logits_of(program, known)


def divergences(network: AnyNetwork, kept: StageValues, run: LayerRun) -> Mapping[str, Array]:
    """Jensen-Shannon divergence of each neuron of a run's layers, for the image of `kept`."""
    program, layers = network.program, network.program.graph.layers
    logits = logits_of(program, kept)

    @jax.checkpoint  # or a gradient would hold the activations of every neuron's run
    def one(neuron: Array) -> Array:
        return jensen_shannon(logits, without(network, kept, run, neuron))

    neurons = [(layer, neuron) for layer in run for neuron in range(layers[layer].neurons)]
    size = at_once(program, run, len(neurons))
    all_of_run = jax.lax.map(one, jnp.array(neurons, jnp.int32), batch_size=size)
    ends = np.cumsum([layers[layer].neurons for layer in run])[:-1]
    names = [layers[layer].name for layer in run]
    return dict(zip(names, jnp.split(all_of_run, ends), strict=True))


def images_at_once(program: Program, copies: int = 1) -> int:
    """Images of a batch, each of which passes the network `copies` times at once."""
    own, largest = sizes.backend(), copies * sizes.value_bytes(program.graph)
    return int(np.clip(own.scoring_bytes // largest, 1, own.scoring_images))


def at_once(program: Program, run: LayerRun, neurons: int) -> int:
    """How many of some neurons of a run's layers one call on a batch of images leaves out."""
    again = (cut(program)[number].layer for number in affected(program, run))
    shapes = [program.graph.layers[layer].output_shape for layer in again if layer is not None]
    own, largest = sizes.backend(), max(prod(shape) for shape in shapes)
    call = 4 * images_at_once(program) * largest
    return int(np.clip(own.scoring_bytes // call, 1, min(own.scoring_neurons, neurons)))


@lru_cache(maxsize=16)
def runs(program: Program) -> tuple[LayerRun, ...]:
    """The program's layers, in order, in at most `RUNS` runs of about equally many.

    What leaves out neurons of a run's layers is one program, of everything that depends on the
    first: one for each layer would be compiled in a time that grows with the square of their
    number. A neuron costs at most a run's layers more.
    """
    layers = len(program.graph.layers)
    ends = [layers * number // min(RUNS, layers) for number in range(min(RUNS, layers) + 1)]
    return tuple(tuple(range(start, end)) for start, end in pairwise(ends))


def logits_of(program: Program, kept: StageValues) -> Float[Array, "classes"]:
    """The logits among what a run has kept."""
    assert isinstance(program.output, Value), "a network's logits depend on its image"
    return kept[program.output]


@lru_cache(maxsize=16)
def cut(program: Program) -> tuple[Stage, ...]:
    """The program's stages."""
    return stages(program)


@lru_cache(maxsize=4096)
def affected(program: Program, run: LayerRun) -> tuple[int, ...]:
    """Numbers of the stages that depend on a run's layers, theirs among them, as they run."""
    numbers: dict[int, None] = {}
    for number, stage in enumerate(cut(program)):
        if stage.layer in run or any(parent in numbers for parent in stage.parents):
            numbers[number] = None
    return tuple(numbers)


def passes(program: Program, run: LayerRun) -> float:
    """What leaving out one neuron of a run costs, in passes of an image through the network.

    Counted in multiply-accumulates of the layers that run again for every neuron.
    """
    layers, own = program.graph.layers, affected(program, run)
    stages_again = (cut(program)[number] for number in own)
    after = [stage.layer for stage in stages_again if not set(own).isdisjoint(stage.parents)]
    again = sum(layers[layer].macs for layer in after if layer is not None)
    return again / sum(layer.macs for layer in layers)


def exact_passes(program: Program, images: int) -> float:
    """Passes of an image through the network that leaving out every neuron once costs."""
    layers = program.graph.layers
    neurons = {run: sum(layers[layer].neurons for layer in run) for run in runs(program)}
    return images * sum(count * passes(program, run) for run, count in neurons.items())


def _run_stage(
    network: AnyNetwork, stage: Stage, known: StageValues, hook: Hook
) -> dict[Value, Array]:
    program, parameters = network.program, network.parameters
    constants = dict(zip(program.constants, parameters.constants, strict=True))
    environment = {value: constants[value] for value in stage.constants}
    environment |= {value: known[value] for value in stage.inputs}
    if stage is cut(program)[0]:
        environment[program.image] = known[program.image]
    run_steps(stage.steps, environment, parameters.layers, hook)
    return {value: environment[value] for value in stage.outputs}
