"""Run a quantised network under one fault draw: masks are made where they are used, never kept."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from afpjax.faults import bits
from afpjax.faults.budget import once, within_budget
from afpjax.faults.link import over_links, stream_of
from afpjax.faults.model import BITWISE, FaultModel, Thresholds, keepers, thresholds
from afpjax.faults.patterns import struck
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import execute
from afpjax.network.program import LayerCall
from afpjax.network.quantized import LayerFaults, Quantized, layer_on_codes


@dataclass(frozen=True)
class Draws:
    """What of a fault model is part of the compiled program; rates and places are data."""

    kind: str = "flip"
    bits: tuple[int, ...] = ()
    generator: str = "hash"
    budget: int | None = None
    scope: str = ""
    length: int = 0  # bits of a burst, values of a packet
    places: int = 0  # of faults at given places: how many an operand has room for
    shared: str = "stored"  # whose draws weights meet: `model.keepers`
    copies: int = 0  # of a layer's inputs, where devices share out its neurons; 0: they do not
    link: str = field(default="", repr=False)  # what happens to values that cross; "": nothing
    packet: int = field(default=0, repr=False)  # values of a packet that the link loses
    # Thresholds, which names have too, are of two words: of the layers, and of what crosses.
    rare: bool = field(default=False, repr=False)
    rare_link: bool = field(default=False, repr=False)

    @classmethod
    def of(cls, faults: FaultModel, copies: int = 0) -> "Draws":
        lengths = {"burst": faults.burst, "lost": faults.packet, "lost-last": faults.packet}
        # Activations are drawn per image anyway; kernels of each image are dear.
        scope = "" if faults.scope == "image" and not faults.rates("weight").any() else faults.scope
        return cls(
            faults.kind,
            tuple(faults.bits),
            faults.generator,
            faults.budget,
            scope,
            lengths.get(faults.kind, 0),
            shared=faults.shared,
            copies=copies,
            link=faults.link_kind if faults.strikes_link else "",
            packet=faults.packet if faults.strikes_link and faults.link_kind != "bits" else 0,
            rare=faults.rare,
            rare_link=faults.strikes_link and bits.any_rare(np.array(faults.link_rate)),
        )

    @classmethod
    def at(cls, how: str, places: int) -> "Draws":
        """Nothing is drawn: bits are flipped, cleared or set at up to `places` given places."""
        return cls(how, places=places)

    def name(self, *, linked: bool) -> str:
        """What tells answers apart; the link's faults are no part of those that met none."""
        return f"{self} link={self.link!r} packet={self.packet}" if linked else str(self)

    @property
    def bitwise(self) -> bool:
        return self.kind in BITWISE

    @property
    def columns(self) -> int:
        """Words of the thresholds of each layer and target."""
        thresholds = len(self.bits) if self.bitwise else 1
        return 2 * thresholds if self.rare else thresholds

    def of_columns(self, columns: int) -> "Draws":
        """The same for thresholds of so many words for each layer, one each or two."""
        return self if columns == self.columns else replace(self, rare=not self.rare)

    @property
    def link_words(self) -> tuple[int, ...]:
        """The shape of the threshold of a value that crosses."""
        return (2,) if self.rare_link else ()

    def stream(
        self, seed: Array, *, trial: Array, layer: Array, target: int, image: Array
    ) -> UInt32[Array, "... 2"]:
        """The stream that a layer's operand is struck from; `trial`, `image` may be [B]."""
        shared = "trial" if target == bits.WEIGHTS else "image"
        scope = self.scope or shared
        trial = jnp.zeros_like(trial) if scope == "run" else trial
        number = image if scope == "image" else None
        return bits.stream(seed, trial=trial, layer=layer, target=target, image=number)


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
    if not checks.is_traced(trial):
        checks.whole("trial", trial, 0, 2**32 - 1)
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
    """Logits of one trial of one mapping: weights struck once, activations per image (see `scope`).

    `indices` number the images, so that their draws do not depend on how they are batched.
    """
    program, layers, fmt = quantized.program, quantized.layers, quantized.format
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    scaled = within_budget(draws, layers, limits, seed, trial)
    every = jnp.arange(len(layers), dtype=jnp.uint32)
    own = keepers(draws.shared, layers)
    shared = own.tolist() != list(range(len(layers)))

    def streams(target: int, image: Array) -> UInt32[Array, "L 2"]:
        # Of all layers at once: one small elementwise program, not one for each layer.
        return draws.stream(seed, trial=trial, layer=every, target=target, image=image)

    def one(image: Array, index: Array) -> Array:
        inputs, run = scaled.of_image(index), None
        if draws.link:
            on_the_way = jnp.asarray(limits.links)
            run = over_links(draws, quantized, on_the_way, stream_of(draws, seed, trial, index))
        kernels, reads = streams(bits.WEIGHTS, index), streams(bits.ACTIVATIONS, index)
        kernels = kernels[own] if shared else kernels

        def strikes(call: LayerCall) -> LayerFaults:
            number = numbers[call.layer.name]

            def strike(stream: Array, limit: Array) -> Any:
                return lambda codes: struck(draws, fmt, codes, stream[number], limit[number])

            return LayerFaults(strike(kernels, scaled.weights), strike(reads, inputs))

        hook = layer_on_codes(quantized, strikes)
        return execute(program, quantized.parameters, image, hook, run)

    if draws.scope == "image":  # a kernel for each image: never as a batch of kernels
        return jax.lax.map(lambda pair: one(*pair), (images, indices))
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
    """How many bits `logits_of_trial` flips with the same arguments, layer by layer.

    Those of a stored kernel that several layers share are counted once, for the first of them.
    """
    layers = quantized.layers
    scaled = within_budget(draws, layers, limits, seed, trial)
    if not draws.bitwise or draws.scope:
        raise InputError("flips are counted of faults that strike bit by bit, of the default scope")
    count = partial(bits.count_flips, generator=draws.generator)

    def flips(stream: Array, limit: Array, shapes: list[tuple[int, ...]]) -> Array:
        counts = [count(stream[n], shape, draws.bits, limit[n]) for n, shape in enumerate(shapes)]
        return jnp.stack(counts)

    def of_image(index: Array) -> Array:
        reads = bits.streams(seed, trial, len(layers), bits.ACTIVATIONS, index)
        return flips(reads, scaled.of_image(index), [layer.input_shape for layer in layers])

    kernels = bits.streams(seed, trial, len(layers), bits.WEIGHTS)
    return Flips(
        flips(
            kernels,
            once(draws, layers, scaled.weights),
            [layer.kernel_shape for layer in layers],
        ),
        jax.lax.map(of_image, indices),
    )
