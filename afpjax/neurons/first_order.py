"""First-order scores: every neuron's from a backward pass, none left out for real."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from afpjax.network.interpreter import execute
from afpjax.network.program import LayerCall, LayerParameters
from afpjax.neurons.ablation import Scored, hook_of
from afpjax.neurons.divergence import jensen_shannon

TARGETS = ("winner", "label", "loss")

#: A number for each neuron, by layer.
Scores = dict[str, Float[Array, "_"]]


def output_of(
    target: str, logits: Float[Array, "classes"], label: Int[Array, ""]
) -> Float[Array, ""]:
    """The y of the Taylor score: the winning logit, the label's logit, or the cross-entropy."""
    if target == "winner":
        return logits[jnp.argmax(lax.stop_gradient(logits))]
    if target == "label":
        return logits[label]
    return -jax.nn.log_softmax(logits)[label]


def total_gradient(
    network: Scored,
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
            return output_of(target, logits, label).astype(jnp.float32)

        return jnp.sum(jax.vmap(one)(images, labels) * weights)

    return jax.grad(total)(network.parameters.layers)


def taylor_of(network: Scored, gradients: dict[str, LayerParameters]) -> Scores:
    """Σ |∂y/∂w · w| over a neuron's filter and bias (RobustDiCE, Algorithm 1, line 8)."""
    layers = network.parameters.layers
    return over_parameters(
        network, lambda name: jax.tree.map(jnp.multiply, gradients[name], layers[name])
    )


def over_parameters(network: Scored, of_layer: Callable[[str], LayerParameters]) -> Scores:
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
    network: Scored, image: Array, classes: Int[Array, "k"]
) -> dict[str, Float[Array, "k C"]]:
    """First-order change of some classes' logits when each neuron of each layer goes, one image.

    A neuron's output a enters as scale · a with a scale of 1: -∂z/∂scale = -Σ a · ∂z/∂a over the
    places of its output. One backward pass for each class has all neurons of all layers.
    """
    program, plain = network.program, hook_of(network)
    ones = {layer.name: jnp.ones(layer.neurons) for layer in program.graph.layers}

    def logits(scales: Scores) -> Float[Array, "k"]:
        def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
            made = plain(call, value, parameters)
            scale = call.per_output(scales[call.layer.name].reshape(call.channels))
            return made * scale.astype(made.dtype)

        found = execute(program, network.parameters, image, hook)
        return found[classes].astype(jnp.float32)

    return jax.tree.map(jnp.negative, jax.jacrev(logits)(ones))


def estimated(
    network: Scored, image: Array, logits: Float[Array, "classes"], classes: int
) -> tuple[Scores, Float[Array, ""]]:
    """Estimated divergence of each neuron for one image, and the probability that it neglects.

    The first-order change of the logits goes through the exact softmax and divergence. Logits
    beyond the `classes` likeliest are taken not to change; what they hold is the second answer.
    """
    chosen = lax.top_k(logits, min(classes, len(logits)))[1]

    def one(change: Float[Array, "k"]) -> Float[Array, ""]:
        return jensen_shannon(logits, logits.at[chosen].add(change.astype(logits.dtype)))

    changes = logit_changes(network, image, chosen)
    neglected = 1 - jax.nn.softmax(logits)[chosen].sum()
    return {name: jax.vmap(one, in_axes=1)(each) for name, each in changes.items()}, neglected
