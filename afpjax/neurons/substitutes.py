"""What stands in for a lost neuron: zero, its mean over calibration images, or its layer's bias.

All of it is the value of a neuron before the activation, after the folded bias and batch norm.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import execute
from afpjax.network.program import LayerCall, LayerParameters
from afpjax.neurons.ablation import Scored, hook_of
from afpjax.neurons.importance import images_at_once

SUBSTITUTES = ("zero", "mean", "bias")

Values = tuple[Float[np.ndarray, "_"], ...]  # by layer


def substitutes(
    network: Scored, kind: str, images: Num[np.ndarray, "B ..."] | None = None
) -> Values:
    """What every layer's lost neurons give, float32 [C] each.

    "zero" is the paper's. "mean" is the mean over `images` (network inputs) and positions of what
    the neuron gives when nothing is lost. "bias" is the layer's folded bias, which is what a neuron
    gives whose inputs are all zero. Raises `InputError` for an unknown kind, and for "mean" without
    images.
    """
    layers = network.program.graph.layers
    if kind == "zero":
        return tuple(np.zeros(layer.neurons, np.float32) for layer in layers)
    if kind == "bias":
        return tuple(_bias(network, layer.name, layer.neurons) for layer in layers)
    if kind != "mean":
        raise InputError(
            f"distribute.substitute: {kind!r} is none of {', '.join(SUBSTITUTES)}; choose one"
        )
    if images is None or len(images) == 0:
        raise InputError("distribute.substitute: mean needs calibration images, and there are none")
    return _means(network, images)


def _bias(network: Scored, name: str, neurons: int) -> Float[np.ndarray, "C"]:
    bias = network.parameters.layers[name].bias
    if bias is None:
        return np.zeros(neurons, np.float32)
    return np.asarray(bias, np.float32).reshape(neurons)


def _means(network: Scored, images: Num[np.ndarray, "B ..."]) -> Values:
    """Sums of every batch are added in double precision, in the images' order."""
    names, size = network.program.graph.names, images_at_once(network.program)
    total = {name: np.zeros(()) for name in names}
    for start in range(0, len(images), size):
        part = jnp.asarray(images[start : start + size])
        for name, each in _of_batch(network, part).items():
            total[name] = total[name] + np.asarray(each, np.float64).sum(axis=0)
    return tuple((total[name] / len(images)).astype(np.float32) for name in names)


@jax.jit
def _of_batch(network: Scored, images: Array) -> dict[str, Float[Array, "B C"]]:
    def one(image: Array) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
            made = hook_of(network)(call, value, parameters)
            others = [axis for axis in range(made.ndim) if axis not in call.output_axes]
            kept = sorted(call.output_axes)
            order = [kept.index(axis) for axis in call.output_axes]
            seen[call.layer.name] = made.mean(axis=others).transpose(order).reshape(-1)
            return made

        execute(network.program, network.parameters, image, hook)
        return seen

    return jax.vmap(one)(images)
