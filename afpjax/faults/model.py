"""The fault model: which bits flip, in what, where, and how often (AFarePart, Section V-C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import core
from jaxtyping import Array, Bool, Float, Int, UInt32

from afpjax.faults import bits, kinds
from afpjax.faults.inject import logits_of_trial
from afpjax.faults.spec import FaultSpec, Thresholds, keepers
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.layers import LayerGraph
from afpjax.network.quantized import Quantized
from afpjax.network.stages import transfers

_CHOICES = {
    "generator": ("hash", "threefry"),
    "scope": ("", "run", "trial", "image"),
    "link_kind": ("bits", "zero", "last", "resent"),
    "shared": ("stored", "read"),
}


@dataclass(frozen=True)
class FaultModel:
    """Faults in the read copies of weights and activations, each there or not by its own draw.

    `kind`: what a fault is, and so what a rate is the probability of: a file of `faults.kinds`.
    Some hit each of `bits` (positions, 0 the lowest) by itself, and `bit_profile` is then a
    factor on the rate for each of them (empty: 1); some a value, `burst` adjacent bits of it for
    instance; some `packet` values after one another.
    `weight_rate`, `activation_rate`: probability in [0, 1], one number, or one per device.
    `layers`: "all", a count of first layers, or names.
    `scope`: how long a draw holds: the "run", a "trial", or one "image"; by default ("") weights
    are drawn once per trial, shared by its images, and activations for every image.
    `budget`: at most so many faulty bits in the whole model, drawn without replacement (None: no
    limit); shared between weights and activations in proportion to their expected counts.
    `link_rate`, `link_kind`: faults in what crosses from one device to another, whatever `layers`:
    - "bits": the probability that a bit, any of the word, flips on the way;
    - "zero", "last": that a packet (of `packet` values) is lost and read as zeros, or as the last
      value that arrived;
    - "resent": that a packet is lost and sent once more, until it arrives: values are whole, and
      the link's latency and energy grow by `sent_times`.
    `shared`: where several layer calls read one stored kernel, whether weights are faulty as they
    are "stored" (one draw, the first call's, that all calls meet, each at its device's rate: copies
    on several devices are faulty alike as far as their rates agree), or as they are "read" (every
    call by itself). Stored weights are faulty as soon as one of their calls is among `layers`.
    Raises `InputError` for values that make no sense.
    """

    bits: Sequence[int] = (0, 1, 2, 3)
    weight_rate: float | Sequence[float] = 0.2
    activation_rate: float | Sequence[float] = 0.2
    bit_profile: Sequence[float] = ()
    layers: str | int | Sequence[str] = "all"
    budget: int | None = None
    generator: str = "hash"
    kind: str = "flip"
    burst: int = 2
    packet: int = 256
    scope: str = ""
    link_rate: float = 0.0
    link_kind: str = "bits"
    shared: str = "stored"

    def __post_init__(self) -> None:
        for name, read in (("bits", checks.whole), ("bit_profile", checks.number)):
            values = checks.several(f"faults.{name}", getattr(self, name), "numbers", read)
            object.__setattr__(self, name, values)
        for name in ("weight_rate", "activation_rate"):
            object.__setattr__(self, name, _checked_rates(name, getattr(self, name)))
        if not isinstance(self.layers, str | int):
            named = checks.names("faults.layers", self.layers, "layer names")
            object.__setattr__(self, "layers", named)
        link_rate = checks.number("faults.link_rate", self.link_rate)
        object.__setattr__(self, "link_rate", *_checked_rates("link_rate", link_rate))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                shown = ", ".join(choice or '""' for choice in choices)
                raise InputError(f"faults.{name}: {getattr(self, name)!r} is none of {shown}")
        self._check_bits()
        self._check_kind()
        self._check_link()

    def _check_bits(self) -> None:
        faulty, profile = list(self.bits), self.bit_profile
        if not faulty or len(set(faulty)) < len(faulty) or min(faulty) < 0:
            raise InputError(f"faults.bits: {faulty} must be distinct positions from 0 up")
        if profile and len(profile) != len(faulty):
            raise InputError(f"faults.bit_profile: {len(profile)} factors for {len(faulty)} bits")
        if not all(factor >= 0 for factor in profile):
            raise InputError("faults.bit_profile: a factor is negative; give numbers from 0 up")

    def _check_kind(self) -> None:
        """What only some kinds of fault can have."""
        faulty, kind = list(self.bits), kinds.named(self.kind)
        checks.whole("faults.burst", self.burst)
        checks.whole("faults.packet", self.packet, 1)
        if kind.drawn != "bit" and self.bit_profile:
            raise InputError(f"faults.bit_profile: a {self.kind} fault has one rate for all bits")
        if self.budget is not None:
            checks.whole("faults.budget", self.budget, 0)
            if kind.drawn != "bit" or self.scope:
                by_bit = [name for name in kinds.names() if kinds.named(name).drawn == "bit"]
                raise InputError(
                    "faults.budget: counts faulty bits of one inference; it needs the default "
                    f"scope and one of {', '.join(by_bit)}"
                )
        if kind.length == "burst" and faulty != list(range(faulty[0], faulty[0] + len(faulty))):
            raise InputError(f"faults.bits: a burst has adjacent bits, {faulty} are not")
        if kind.length == "burst" and not 1 <= self.burst <= len(faulty):
            raise InputError(
                f"faults.burst: {self.burst} adjacent bits of {len(faulty)}; give 1 to "
                f"{len(faulty)}"
            )

    def _check_link(self) -> None:
        if self.link_kind == "resent" and self.link_rate == 1:
            raise InputError(
                "faults.link_rate: 1, but a packet that is always lost is resent for ever; give "
                "less"
            )
        if self.budget is not None and self.corrupts_link:
            raise InputError(
                "faults.budget: counts faulty bits of layers, not of the link; give "
                "faults.link_rate 0, or no budget"
            )

    @property
    def corrupts_link(self) -> bool:
        """Whether values may change on their way between devices."""
        return self.link_rate > 0 and self.link_kind != "resent"

    @property
    def link_threshold(self) -> UInt32[np.ndarray, "*words"]:
        """The threshold of what crosses, both words [2] of a rare rate."""
        rate = np.array([self.link_rate])
        rare = bits.any_rare(rate)
        threshold = bits.threshold(rate, rare=rare)
        return threshold if rare else threshold.reshape(())

    @property
    def rare(self) -> bool:
        """Whether the layers' thresholds need two words."""
        return bits.any_rare(self.rates("weight")) or bits.any_rare(self.rates("activation"))

    @property
    def sent_times(self) -> float:
        """How often a packet is sent until it has arrived, on average (geometric)."""
        return 1 / (1 - self.link_rate) if self.link_kind == "resent" else 1.0

    def rates(self, target: str) -> Float[np.ndarray, "D columns"]:
        """Probability that each faulty bit, or a value or packet, is hit: [D, bits], or [D, 1].

        D is 1 for a single rate.
        """
        return self.profiled(np.asarray(getattr(self, f"{target}_rate"), np.float64))

    def profiled(self, rates: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N columns"]:
        """Some rates for every column: times the profile of the bits, where these are drawn."""
        if kinds.named(self.kind).drawn != "bit":
            return rates[:, None]
        profile = np.asarray(self.bit_profile or [1.0] * len(self.bits), np.float64)
        return np.minimum(rates[:, None] * profile, 1.0)

    def spec(self, copies: int = 0) -> FaultSpec:
        """What programs are compiled for; `copies` of a layer's inputs where neurons are apart."""
        # Activations are drawn per image anyway; kernels of each image are dear.
        plain = self.scope == "image" and not self.rates("weight").any()
        length = kinds.named(self.kind).length
        on_link = self.corrupts_link
        return FaultSpec(
            self.kind,
            tuple(self.bits),
            self.generator,
            self.budget,
            "" if plain else self.scope,
            getattr(self, length) if length else 0,
            shared=self.shared,
            copies=copies,
            link=self.link_kind if on_link else "",
            packet=self.packet if on_link and self.link_kind != "bits" else 0,
            rare=self.rare,
            rare_link=on_link and bits.any_rare(np.array(self.link_rate)),
        )

    def inject(
        self, quantized: Quantized, images: Array, *, mapping: Any, key: Any, trial: Any
    ) -> Float[Array, "B classes"]:
        """Logits with the faults of draw `trial`; image i of the batch has those of image i.

        See `Quantized.__call__`.
        """
        devices = jnp.zeros(len(quantized.layers), jnp.int32) if mapping is None else mapping
        if not checks.is_traced(trial):
            checks.whole("trial", trial, 0, 2**32 - 1)
        own = thresholds(self, quantized, devices)
        seed, number = bits.seed_words(key), jnp.asarray(trial).astype(jnp.uint32)
        indices = jnp.arange(len(images), dtype=jnp.uint32)
        return logits_of_trial(self.spec(), quantized, images, indices, own, seed, number)


def _checked_rates(name: str, rate: Any) -> tuple[float, ...]:
    """One number or several as rates; raises `InputError` for what is no probability."""
    given = checks.array(f"faults.{name}", rate)
    if given.ndim > 1 or given.size == 0:
        raise InputError(f"faults.{name}: {given.size} rates; give one number, or one per device")
    rates = tuple(float(value) for value in np.atleast_1d(given))
    for value in rates:
        if not 0 <= value <= 1:
            raise InputError(f"faults.{name}: {value} is outside [0, 1]; it is a probability")
    return rates


def thresholds(faults: FaultModel, quantized: Quantized, mappings: Int[Any, "*P L"]) -> Thresholds:
    """Thresholds of every layer on its device; `mappings` may be traced.

    Raises `InputError` for faulty bits that the number format does not have, layers that the
    network does not have, and devices that have no rate.
    """
    check_bits(faults, quantized)
    mappings = checks.mappings("mapping", mappings, len(quantized.layers))
    faulty = layer_mask(faults, quantized.graph)
    # Mappings at hand are looked up on the host: every count of them would compile anew.
    traced = isinstance(mappings, core.Tracer)
    xp = jnp if traced else np
    devices = xp.asarray(mappings)

    def of(target: str, layers: np.ndarray) -> Any:
        table = xp.asarray(bits.threshold(faults.rates(target), rare=faults.rare))
        if len(table) > 1 and not traced and devices.max() >= len(table):
            raise InputError(
                f"faults.{target}_rate: {len(table)} rates, but the mapping names device "
                f"{int(devices.max())}; give one rate, or one per device"
            )
        own = table[xp.minimum(devices, len(table) - 1)]
        return xp.where(layers[:, None], own, xp.zeros((), xp.uint32))

    own = keepers(faults.shared, quantized.layers)
    stored_too = np.isin(own, own[faulty])  # of which any call is faulty
    weights, activations = of("weight", stored_too), of("activation", faulty)
    if not faults.corrupts_link:
        return Thresholds(weights, activations)
    every = transfers(quantized.program)
    makers, readers = (np.array([getattr(w, who) for w in every]) for who in ("maker", "reader"))
    crosses = (devices[..., makers] != devices[..., readers]) & (makers >= 0)  # [*P, W]
    threshold = xp.asarray(faults.link_threshold)
    crosses = xp.expand_dims(crosses, tuple(range(crosses.ndim, crosses.ndim + threshold.ndim)))
    return Thresholds(weights, activations, xp.where(crosses, threshold, xp.zeros((), xp.uint32)))


def check_bits(faults: FaultModel, quantized: Quantized) -> None:
    """Raise `InputError` for faulty bits that the number format does not have."""
    width = quantized.format.width
    if max(faults.bits) >= width:
        raise InputError(
            f"faults.bits: bit {max(faults.bits)} is faulty, but the format has {width} bits, "
            f"0 to {width - 1}"
        )


def layer_mask(faults: FaultModel, graph: LayerGraph) -> Bool[np.ndarray, "L"]:
    """Which layers may have faults."""
    names = graph.names
    if isinstance(faults.layers, int):
        if not 0 <= faults.layers <= len(names):
            raise InputError(
                f"faults.layers: the first {faults.layers} of {len(names)} layers do not exist"
            )
        return np.arange(len(names)) < faults.layers
    if faults.layers == "all":
        return np.ones(len(names), bool)
    chosen = (faults.layers,) if isinstance(faults.layers, str) else faults.layers
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise InputError(f"faults.layers: no layer {unknown[0]!r}; layers: {', '.join(names)}")
    return np.isin(names, chosen)
