"""Run a quantised network under one fault draw: masks are made where they are used, never kept."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from afpjax.faults import bits
from afpjax.faults.budget import within_budget
from afpjax.faults.model import FaultModel, Thresholds, thresholds
from afpjax.network.execute import execute
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Masks, Quantized, layer_on_codes


@dataclass(frozen=True)
class Draws:
    """What of a fault model is part of the compiled program; rates are data."""

    bits: tuple[int, ...]
    generator: str
    budget: int | None

    @classmethod
    def of(cls, faults: FaultModel) -> "Draws":
        return cls(tuple(faults.bits), faults.generator, faults.budget)

    @classmethod
    def none(cls) -> "Draws":
        """Nothing is drawn: masks are no part of the program."""
        return cls((), "hash", None)


class Flips(NamedTuple):
    """How many bits flipped in each layer's read copies."""

    weights: Int[Array, "L"]  # in this trial
    activations: Int[Array, "B L"]  # in each image of this trial


def struck_logits(
    faults: FaultModel,
    quantized: Quantized,
    images: Float[Array, "B ..."],
    *,
    mapping: Any = None,
    key: Any = 0,
    trial: Any = 0,
) -> Float[Array, "B classes"]:
    """Logits under fault draw `trial`; image i of the batch has the draws of image number i."""
    devices = jnp.zeros(len(quantized.layers), jnp.int32) if mapping is None else mapping
    limits = thresholds(faults, quantized, devices)
    seed, number = bits.seed_words(key), jnp.asarray(trial).astype(jnp.uint32)
    indices = jnp.arange(len(images), dtype=jnp.uint32)
    return _run(Draws.of(faults), quantized, images, indices, limits, seed, number)


@partial(jax.jit, static_argnums=0)
def _run(
    draws: Draws,
    quantized: Quantized,
    images: Array,
    indices: Array,
    limits: Thresholds,
    seed: Array,
    trial: Array,
) -> Array:
    return logits_of_trial(draws, quantized, images, indices, limits, seed, trial)


def logits_of_trial(
    draws: Draws,
    quantized: Quantized,
    images: Float[Array, "B ..."],
    indices: UInt32[Array, "B"],
    limits: Thresholds,
    seed: UInt32[Array, "2"],
    trial: UInt32[Array, ""],
) -> Float[Array, "B classes"]:
    """Logits of one trial of one mapping: weights struck once, activations per image.

    `indices` number the images, so that their draws do not depend on how they are batched.
    """
    program, layers = quantized.program, quantized.layers
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    scaled = within_budget(draws, layers, limits, seed, trial)
    strike = partial(bits.flip_mask, generator=draws.generator)
    kernels = bits.streams(seed, trial, len(layers), bits.WEIGHTS)

    def one(image: Array, index: Array) -> Array:
        inputs = scaled.of_image(index)
        reads = bits.streams(seed, trial, len(layers), bits.ACTIVATIONS, index)

        def masks(call: LayerCall) -> Masks:
            number, layer = numbers[call.layer.name], call.layer
            return Masks(
                strike(kernels[number], layer.kernel_shape, draws.bits, scaled.weights[number]),
                strike(reads[number], layer.input_shape, draws.bits, inputs[number]),
            )

        return execute(program, quantized.parameters, image, layer_on_codes(quantized, masks))

    return jax.vmap(one)(images, indices)


@partial(jax.jit, static_argnums=0)
def flips_of_trial(
    draws: Draws,
    quantized: Quantized,
    indices: UInt32[Array, "B"],
    limits: Thresholds,
    seed: UInt32[Array, "2"],
    trial: UInt32[Array, ""],
) -> Flips:
    """How many bits `logits_of_trial` flips with the same arguments, layer by layer."""
    layers = quantized.layers
    scaled = within_budget(draws, layers, limits, seed, trial)
    count = partial(bits.count_flips, generator=draws.generator)

    def flips(stream: Array, limit: Array, shapes: list[tuple[int, ...]]) -> Array:
        counts = [count(stream[n], shape, draws.bits, limit[n]) for n, shape in enumerate(shapes)]
        return jnp.stack(counts)

    def of_image(index: Array) -> Array:
        reads = bits.streams(seed, trial, len(layers), bits.ACTIVATIONS, index)
        return flips(reads, scaled.of_image(index), [layer.input_shape for layer in layers])

    kernels = bits.streams(seed, trial, len(layers), bits.WEIGHTS)
    return Flips(
        flips(kernels, scaled.weights, [layer.kernel_shape for layer in layers]),
        jax.lax.map(of_image, indices),
    )
