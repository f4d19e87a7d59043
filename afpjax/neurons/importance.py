"""RobustDiCE's three scores of every neuron of every layer, as pure functions of a network.

They can be jitted, and differentiated with respect to the network's parameters wherever the
mathematics is differentiable. `scoring` computes the same for many images of large networks, with
the error of what is estimated.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from afpjax.evaluate.metric import jensen_shannon
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.interpreter import execute
from afpjax.network.program import LayerCall, LayerParameters
from afpjax.network.softmax import before_softmax
from afpjax.neurons import ablation
from afpjax.neurons.ablation import AnyNetwork, hook_of, images_at_once

EXACT_PASSES = 100_000  # of an image through the network: up to here divergences are exact
CLASSES = 16  # likeliest classes whose logits an estimate follows
TARGETS = ("winner", "label", "loss")
NAMES = ("l1", "taylor", "jsd")

#: A number for each neuron, by layer.
LayerScores = dict[str, Float[Array, "_"]]


def importance(
    network: AnyNetwork,
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
    function = _scores if inside else _compiled()  # only the outermost program takes options
    scores = function(
        network, images, known, target=target, exact_passes=exact_passes, classes=classes
    )
    return {name: scores[name] for name in network.graph.names}  # jit has them by name


def l1(network: AnyNetwork) -> LayerScores:
    """Σ |w| over a neuron's filter, plus |bias|: the folded parameters (line 7)."""
    return _over_parameters(network, lambda name: network.parameters.layers[name])


def taylor(
    network: AnyNetwork,
    images: Num[Any, "B ..."],
    labels: Int[Any, " N"] | None = None,
    *,
    target: str = "winner",
) -> LayerScores:
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

    def batches(values: Any, mode: str) -> Array:
        wide = jnp.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1), mode=mode)
        return wide.reshape(-1, min(size, len(images)), *values.shape[1:])

    def add(sums: Any, batch: Any) -> tuple[Any, None]:
        gradient = total_gradient(network, *batch, target=target)
        return jax.tree.map(jnp.add, sums, gradient), None

    start = jax.tree.map(jnp.zeros_like, network.parameters.layers)
    cut = batches(images, "edge"), batches(known, "edge"), batches(share, "constant")
    return taylor_of(network, lax.scan(add, start, cut)[0])


def jsd(network: AnyNetwork, images: Num[Any, "B ..."]) -> LayerScores:
    """Jensen-Shannon divergence, in nats, of the softmax with and without each neuron (line 9).

    The mean over images, exact: each neuron is left out in turn, and what depends on its layer runs
    again.
    """
    check(network, images, None, "winner")
    network = before_softmax(network)

    def one(image: Array) -> LayerScores:
        kept, scores = ablation.clean(network, image), {}
        for run in ablation.runs(network.program):
            scores |= ablation.divergences(network, kept, run)
        return scores

    size = min(images_at_once(network.program), len(images))
    of_images = lax.map(one, jnp.asarray(images), batch_size=size)
    return {name: scores.mean(axis=0) for name, scores in of_images.items()}


def jsd_estimate(
    network: AnyNetwork, images: Num[Any, "B ..."], *, classes: int = CLASSES
) -> tuple[LayerScores, Float[Array, ""]]:
    """`jsd` from first-order changes of the `classes` likeliest logits, no neuron left out.

    One backward pass for each class has all neurons. The second answer is the probability, a mean
    over images, of the classes whose logits are taken not to change.
    """
    check(network, images, None, "winner")
    network = before_softmax(network)
    size = min(images_at_once(network.program, classes), len(images))
    of_images = lax.map(
        lambda image: estimated(network, image, classes), jnp.asarray(images), batch_size=size
    )
    return jax.tree.map(lambda scores: scores.mean(axis=0), of_images)


def check(network: AnyNetwork, images: Any, labels: Any, target: str) -> Int[Array, " B"]:
    """The labels, zeros where there are none; raises `InputError` for what does not fit."""
    wanted = "a network from afpjax.trace or afpjax.quantize"
    checks.instance("network", network, AnyNetwork, wanted)
    checks.choice("target", target, TARGETS)
    checks.batch("images", images, network.program.image_shape)
    if labels is None and target != "winner":
        raise InputError(f"labels: none given; target = {target} needs the label of every image")
    where = "the network" if labels is None else "labels"
    known = np.zeros(len(images), np.int32) if labels is None else labels
    known = checks.class_numbers(known, network.program.classes, where)
    checks.same_count(images, known)
    return jnp.asarray(known)


def _scores(
    network: AnyNetwork,
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


# First-order scores: every neuron's from a backward pass, none left out for real.


def total_gradient(
    network: AnyNetwork,
    images: Num[Any, "B ..."],
    labels: Int[Any, "B"],
    weights: Float[Any, "B"],
    target: str,
) -> dict[str, LayerParameters]:
    """∂/∂W of Σ weight · y over images, by layer: one backward pass for the batch.

    Labels are read for the targets `label` and `loss`.
    """
    program, hook = network.program, hook_of(network)

    def total(layers: dict[str, LayerParameters]) -> Float[Array, ""]:
        parameters = network.parameters._replace(layers=layers)

        def one(image: Array, label: Array) -> Array:
            logits = execute(program, parameters, image, hook)
            return _output_of(target, logits, label).astype(jnp.float32)

        return jnp.sum(jax.vmap(one)(images, labels) * weights)

    return jax.grad(total)(network.parameters.layers)


def _output_of(
    target: str, logits: Float[Array, "classes"], label: Int[Array, ""]
) -> Float[Array, ""]:
    """The y of the Taylor score: the winning logit, the label's logit, or the cross-entropy."""
    if target == "winner":
        return logits[jnp.argmax(lax.stop_gradient(logits))]
    if target == "label":
        return logits[label]
    return -jax.nn.log_softmax(logits)[label]


def taylor_of(network: AnyNetwork, gradients: dict[str, LayerParameters]) -> LayerScores:
    """Σ |∂y/∂w · w| over a neuron's filter and bias (RobustDiCE, Algorithm 1, line 8)."""
    layers = network.parameters.layers
    return _over_parameters(
        network, lambda name: jax.tree.map(jnp.multiply, gradients[name], layers[name])
    )


def _over_parameters(
    network: AnyNetwork, of_layer: Callable[[str], LayerParameters]
) -> LayerScores:
    """Σ |value| over the filter and bias of every neuron; values are laid out as parameters."""
    scores = {}
    for call in network.program.calls:
        kernel, bias = of_layer(call.layer.name)
        first = jnp.moveaxis(kernel, call.kernel_axes, range(len(call.kernel_axes)))
        total = jnp.abs(first.reshape(call.layer.neurons, -1)).sum(axis=1)
        if bias is not None:
            total = total + jnp.abs(bias).reshape(-1)
        scores[call.layer.name] = total
    return scores


def logit_changes(
    network: AnyNetwork, image: Array, classes: Int[Array, "k"]
) -> dict[str, Float[Array, "k C"]]:
    """First-order change of some classes' logits when each neuron of each layer goes, one image.

    A neuron's output a enters as scale · a with a scale of 1: -∂z/∂scale = -Σ a · ∂z/∂a over the
    positions of its output. One backward pass for each class has all neurons of all layers.
    """
    program, plain = network.program, hook_of(network)
    ones = {layer.name: jnp.ones(layer.neurons) for layer in program.graph.layers}

    def logits(scales: LayerScores) -> Float[Array, "k"]:
        def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
            outputs = plain(call, value, parameters)
            scale = call.per_output(scales[call.layer.name].reshape(call.channels))
            return outputs * scale.astype(outputs.dtype)

        return execute(program, network.parameters, image, hook)[classes].astype(jnp.float32)

    return jax.tree.map(jnp.negative, jax.jacrev(logits)(ones))


def estimated(
    network: AnyNetwork, image: Array, classes: int
) -> tuple[LayerScores, Float[Array, ""]]:
    """Estimated divergence of each neuron for one image, and the probability that it neglects.

    The first-order change of the logits goes through the exact softmax and divergence. Logits
    beyond the `classes` likeliest are taken not to change; what they hold is the second answer.
    """
    logits = ablation.logits_of(network.program, ablation.clean(network, image))
    likeliest = lax.top_k(logits, min(classes, len(logits)))[1]

    def one(change: Float[Array, "k"]) -> Float[Array, ""]:
        return jensen_shannon(logits, logits.at[likeliest].add(change.astype(logits.dtype)))

    changes = logit_changes(network, image, likeliest)
    neglected = 1 - jax.nn.softmax(logits)[likeliest].sum()
    return {n: jax.vmap(one, in_axes=1)(change) for n, change in changes.items()}, neglected
