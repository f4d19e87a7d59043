"""What the compiled programs of a fault evaluation are given, and the shapes that it has."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from afpjax.faults.link import Wiring
from afpjax.faults.strike import Draws
from afpjax.network.layers import Layer
from afpjax.network.quantized import Quantized


class Images(NamedTuple):
    """One batch of images as they are kept, what their logits are held against, their numbers."""

    images: Any
    labels: Any  # -1: padding
    indices: Any
    reference: Any = None  # fault-free logits, where a judge asks for them


class Met(NamedTuple):
    """What a stage meets; without a layer, the values of other stages, and what the link does."""

    values: tuple[Array, ...]  # [B, ...] each, of the stages before
    kernel: Array | None = None  # codes, struck already
    limits: Any = None  # of the read inputs: thresholds, uint32 [B, columns], or `Spots` [B, n]
    trials: Any = None  # uint32 [B]
    by: Any = None  # where devices share out the neurons: `Strike.outputs`, int8 [B, C]
    links: Any = None  # of `values` on their way: thresholds, uint32 [B, W], or [B, W, 2]


class Spots(NamedTuple):
    """Places of an operand, and which of their bits are struck."""

    elements: Any  # uint32
    words: Any  # int32


class Given(NamedTuple):
    """What is the same in every trial."""

    part: Quantized  # what of the network belongs to the stage
    indices: Any  # uint32 [B]
    number: Any  # of the layer, uint32
    seed: Any  # uint32 [2]
    substitute: Any = None  # what a lost neuron gives, float32 [C], where neurons can be lost
    wiring: Wiring | None = None  # of the stage, where values can be struck on their way


def at_layer(
    draws: Draws, quantized: Quantized, layer: Layer, met: Met, given: Given
) -> tuple[Met, Given]:
    """Shapes of what a stage with a layer is given besides."""
    batch, kernel = given.indices.shape, quantized.parameters.layers[layer.name].kernel
    met = Met(met.values, kernel, limits(draws, *batch), uint(*batch))
    if not draws.copies:
        return met, given
    by = jax.ShapeDtypeStruct((*batch, layer.neurons), jnp.int8)
    substitute = jax.ShapeDtypeStruct((layer.neurons,), jnp.float32)
    return met._replace(by=by), given._replace(substitute=substitute)


def at_link(draws: Draws, met: Met, given: Given) -> tuple[Met, Given]:
    """Shapes of what a stage is given besides, where values can be struck on their way to it."""
    if not draws.link:
        return met, given
    batch, read = given.indices.shape, len(met.values)
    wiring = Wiring(uint(read), jax.ShapeDtypeStruct((read,), jnp.float32))
    return met._replace(
        trials=uint(*batch), links=uint(*batch, read, *draws.link_words)
    ), given._replace(wiring=wiring)


def limits(draws: Draws, *batch: int) -> Any:
    """What strikes the inputs of a batch, or one kernel."""
    if draws.copies:
        return uint(*batch, draws.copies, draws.columns)
    if not draws.places:
        return uint(*batch, draws.columns)
    words = jax.ShapeDtypeStruct((*batch, draws.places), jnp.int32)
    return Spots(uint(*batch, draws.places), words)


def uint(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of words of the hash, of thresholds, of numbers."""
    return jax.ShapeDtypeStruct(shape, jnp.uint32)
