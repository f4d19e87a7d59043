"""RobustDiCE's three scores of every neuron of every layer, as pure functions of a network.

They can be jitted, and differentiated with respect to the network's parameters wherever the
mathematics is differentiable. `measure` computes the same for many images of large networks, with
the error of what is estimated.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.program import Program
from afpjax.network.softmax import before_softmax
from afpjax.neurons import ablation
from afpjax.neurons.ablation import Kept, Run, Scored
from afpjax.neurons.divergence import jensen_shannon
from afpjax.neurons.first_order import (
    TARGETS,
    Scores,
    estimated,
    over_parameters,
    taylor_of,
    total_gradient,
)

BATCH = 32  # images that go through the network together
NEURONS = 64  # and neurons that are left out at once
ROOM = 2**26  # bytes of the largest tensor of such a call
EXACT_PASSES = 100_000  # of an image through the network: up to here divergences are exact
CLASSES = 16  # likeliest classes whose logits an estimate follows


def importance(
    network: Scored,
    images: Num[Any, "B ..."],
    labels: Int[Any, " N"] | None = None,
    *,
    target: str = "winner",
    exact_passes: int = EXACT_PASSES,
    classes: int = CLASSES,
) -> dict[str, dict[str, Float[Array, "C"]]]:
    """Scores of every neuron: {layer: {"l1", "taylor", "jsd"}}, each float32 [neurons], >= 0.

    A neuron is one output channel, with its folded bias (`l1`, `taylor`, `jsd` say what each score
    is). `images` are the network's inputs, `labels` int [B] classes, needed for the targets
    "label" and "loss". Divergences are exact while leaving out every neuron once costs no more than
    `exact_passes` passes of an image through the network, and else estimated from the first-order
    change of the `classes` likeliest logits. A softmax that ends the network is left out: y and the
    divergences are of its logits. Raises `InputError` for no images, images of another
    shape, an unknown target and labels that are missing or do not match.

    RobustDiCE (Guo et al.), Algorithm 1, step 1.
    """
    checks.whole("exact_passes", exact_passes, 0)
    checks.whole("classes", classes, 1)
    known = check(network, images, labels, target)
    network = before_softmax(network)
    images = checks.array("images", images)
    arrays = jax.tree.leaves((network, images, known, jnp.zeros(())))  # the last: in any jit
    inside = any(isinstance(array, Tracer) for array in arrays)
    scores = _scores if inside else _compiled()  # only the outermost program takes options
    found = scores(
        network, images, known, target=target, exact_passes=exact_passes, classes=classes
    )
    return {name: found[name] for name in network.graph.names}  # jit has them by name


def l1(network: Scored) -> Scores:
    """Σ |w| over a neuron's filter, plus |bias|: the folded parameters (line 7)."""
    return over_parameters(network, lambda name: network.parameters.layers[name])


def taylor(
    network: Scored,
    images: Num[Any, "B ..."],
    labels: Int[Any, " N"] | None = None,
    *,
    target: str = "winner",
) -> Scores:
    """Σ |∂y/∂w · w| over a neuron's filter and bias, y averaged over the images (line 8).

    y is the winning logit (`target="winner"`), the label's logit ("label") or the cross-entropy
    ("loss"). It is averaged first and the magnitude taken then, as in the connection sensitivity
    that the paper takes it from (SNIP: Lee et al. 2018, arXiv 1810.02340), so what has opposite
    signs in two images cancels.
    """
    known, images = check(network, images, labels, target), jnp.asarray(images)
    network = before_softmax(network)
    size = images_at_once(network.program)
    padding = -len(images) % min(size, len(images))
    share = jnp.full(len(images), 1 / len(images), jnp.float32)

    def batches(each: Any, mode: str) -> Array:
        wide = jnp.pad(each, [(0, padding)] + [(0, 0)] * (each.ndim - 1), mode=mode)
        return wide.reshape(-1, min(size, len(images)), *each.shape[1:])

    def add(sums: Any, batch: Any) -> tuple[Any, None]:
        gradient = total_gradient(network, *batch, target=target)
        return jax.tree.map(jnp.add, sums, gradient), None

    start = jax.tree.map(jnp.zeros_like, network.parameters.layers)
    cut = batches(images, "edge"), batches(known, "edge"), batches(share, "constant")
    return taylor_of(network, lax.scan(add, start, cut)[0])


def jsd(network: Scored, images: Num[Any, "B ..."]) -> Scores:
    """Jensen-Shannon divergence, in nats, of the softmax with and without each neuron (line 9).

    The mean over images, exact: each neuron is left out in turn, and what depends on its layer runs
    again.
    """
    check(network, images, None, "winner")
    network = before_softmax(network)

    def one(image: Array) -> Scores:
        kept, found = ablation.clean(network, image), {}
        for run in ablation.runs(network.program):
            found |= divergences(network, kept, run)
        return found

    size = min(images_at_once(network.program), len(images))
    found = lax.map(one, jnp.asarray(images), batch_size=size)
    return {name: each.mean(axis=0) for name, each in found.items()}


def jsd_estimate(
    network: Scored, images: Num[Any, "B ..."], *, classes: int = CLASSES
) -> tuple[Scores, Float[Array, ""]]:
    """`jsd` from first-order changes of the `classes` likeliest logits, no neuron left out.

    One backward pass for each class has all neurons. The second answer is the probability, a mean
    over images, of the classes whose logits are taken not to change.
    """
    check(network, images, None, "winner")
    network = before_softmax(network)

    def one(image: Array) -> tuple[Scores, Array]:
        logits = ablation.logits_of(network.program, ablation.clean(network, image))
        return estimated(network, image, logits, classes)

    size = min(images_at_once(network.program, classes), len(images))
    found = lax.map(one, jnp.asarray(images), batch_size=size)
    return jax.tree.map(lambda each: each.mean(axis=0), found)


def divergences(network: Scored, kept: Kept, run: Run) -> Scores:
    """Divergence of each neuron of a run's layers, for the image that `kept` is of."""
    program, layers = network.program, network.program.graph.layers
    logits = ablation.logits_of(program, kept)

    @jax.checkpoint  # or a gradient would hold the activations of every neuron's run
    def one(neuron: Array) -> Array:
        return jensen_shannon(logits, ablation.without(network, kept, run, neuron))

    neurons = [(place, neuron) for place in run for neuron in range(layers[place].neurons)]
    size = at_once(program, run, len(neurons))
    found = lax.map(one, jnp.array(neurons, jnp.int32), batch_size=size)
    ends = np.cumsum([layers[place].neurons for place in run])[:-1]
    names = [layers[place].name for place in run]
    return dict(zip(names, jnp.split(found, ends), strict=True))


def images_at_once(program: Program, copies: int = 1) -> int:
    """Images of a batch, each of which passes the network `copies` times at once."""
    layers = program.graph.layers
    largest = max(max(layer.inputs, layer.outputs) for layer in layers)
    return int(np.clip(ROOM // (4 * copies * largest), 1, BATCH))


def at_once(program: Program, run: Run, neurons: int) -> int:
    """How many of some neurons of a run's layers one call on a batch of images leaves out."""
    call = 4 * images_at_once(program) * ablation.largest_value(program, run)
    return int(np.clip(ROOM // call, 1, min(NEURONS, neurons)))


def check(network: Scored, images: Any, labels: Any, target: str) -> Int[Array, " B"]:
    """The labels, zeros where there are none; raises `InputError` for what does not fit."""
    checks.instance("network", network, Scored, "a network from afpjax.trace or afpjax.quantize")
    checks.choice("target", target, TARGETS)
    checks.batch("images", images, network.program.image_shape)
    if labels is None and target != "winner":
        raise InputError(f"labels: none given; target = {target} needs the label of every image")
    none = "the network", np.zeros(len(images), np.int32)
    where, given = none if labels is None else ("labels", labels)
    known = checks.class_numbers(given, network.program.classes, where)
    checks.same_count(images, known)
    return jnp.asarray(known)


def _scores(
    network: Scored,
    images: Num[Any, "B ..."],
    labels: Int[Array, " B"],
    *,
    target: str,
    exact_passes: int,
    classes: int,
) -> dict[str, dict[str, Float[Array, "C"]]]:
    exact = ablation.exact_passes(network.program, len(images)) <= exact_passes
    lost = jsd(network, images) if exact else jsd_estimate(network, images, classes=classes)[0]
    size, slope = l1(network), taylor(network, images, labels, target=target)
    return {
        layer.name: {"l1": size[layer.name], "taylor": slope[layer.name], "jsd": lost[layer.name]}
        for layer in network.program.graph.layers
    }


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return jax.jit(
        _scores,
        static_argnames=("target", "exact_passes", "classes"),
        compiler_options=compiler.options(),
    )
