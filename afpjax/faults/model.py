"""The fault model: which bits flip, in what, where, and how often (AFarePart, Section V-C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import core, tree_util
from jaxtyping import Array, Bool, Int, UInt32

from afpjax.faults.bits import any_rare, threshold
from afpjax.faults.model_checks import BITWISE as BITWISE
from afpjax.faults.model_checks import KINDS as KINDS
from afpjax.faults.model_checks import SCOPES as SCOPES
from afpjax.faults.model_checks import check, checked_rates
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer, LayerGraph, stored
from afpjax.network.quantized import Quantized
from afpjax.network.stages import transfers


class Thresholds(NamedTuple):
    """How often each bit (or value) of each layer's operands is struck: data of the program.

    A bit flips when its 31-bit uniform draw is below its threshold, so the same draw serves every
    device and every rate (common random numbers). A column for each bit, or where there are rare
    rates (`bits.threshold`) two: of the first words, and of the second ones.
    """

    weights: UInt32[Array, "*P L columns"] | UInt32[np.ndarray, "*P L columns"]
    activations: UInt32[Array, "*P L columns"] | UInt32[np.ndarray, "*P L columns"]

    @property
    def links(self) -> Any:
        """How often each value is struck on its way to a stage, uint32 [*P, W]; None: never.

        Of a rare rate [*P, W, 2], both words.
        """
        return None


@tree_util.register_pytree_node_class
class LinkThresholds(Thresholds):
    """Thresholds with those of what crosses a link, by `stages.transfers`.

    Unpacked, they are the two of the layers' operands: a layer struck alone meets no link.
    """

    _links: Any

    def __new__(cls, weights: Any, activations: Any, links: Any) -> "LinkThresholds":
        made = super().__new__(cls, weights, activations)
        made._links = links
        return made

    @property
    def links(self) -> Any:
        return self._links

    def __getnewargs__(self) -> Any:
        return (*self, self._links)

    def tree_flatten(self) -> tuple[Any, None]:
        return (*self, self._links), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "LinkThresholds":
        return cls(*children)


@dataclass(frozen=True)
class FaultModel:
    """Faults in the read copies of weights and activations, each struck or not by its own draw.

    `kind`: what a fault is, and so what a rate is the probability of:
    - "flip", "stuck-at-0", "stuck-at-1": each of `bits` (positions, 0 the lowest) by itself;
      `bit_profile` is a factor on the rate for each of them (empty: 1);
    - "burst": `burst` adjacent ones of `bits` flip in a value, from a random one on;
    - "zero", "random": a value becomes zero, or a random word of the format;
    - "lost", "lost-last": `packet` values after one another are lost together on a link, and read
      as zeros, or as the last value that arrived (zero before any did).
    `weight_rate`, `activation_rate`: probability in [0, 1], one number, or one per device.
    `layers`: "all", a count of first layers, or names.
    `scope`: how long a draw holds: the "run", a "trial", or one "image"; by default ("") weights
    are drawn once per trial, shared by its images, and activations for every image.
    `budget`: at most so many struck bits in the whole model, drawn without replacement (None: no
    limit); shared between weights and activations in proportion to their expected counts.
    `link_rate`, `link_kind`: faults in what crosses from one device to another, whatever `layers`:
    - "bits": the probability that a bit, any of the word, flips on the way;
    - "zero", "last": that a packet (of `packet` values) is lost and read as zeros, or as the last
      value that arrived;
    - "resent": that a packet is lost and sent once more, until it arrives: values are whole, and
      the link's latency and energy grow by `sent_times`.
    `shared`: where several layer calls read one stored kernel, whether weights are struck as they
    are "stored" (one draw, the first call's, that all calls meet, each at its device's rate: copies
    on several devices are struck alike as far as their rates agree), or as they are "read" (every
    call by itself). Stored weights are struck as soon as one of their calls is among `layers`.
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
            object.__setattr__(self, name, checked_rates(name, getattr(self, name)))
        if not isinstance(self.layers, str | int):
            named = checks.names("faults.layers", self.layers, "layer names")
            object.__setattr__(self, "layers", named)
        object.__setattr__(self, "link_rate", checks.number("faults.link_rate", self.link_rate))
        check(self)

    @property
    def strikes_link(self) -> bool:
        """Whether values may change on their way between devices."""
        return self.link_rate > 0 and self.link_kind != "resent"

    @property
    def link_limit(self) -> UInt32[np.ndarray, "*words"]:
        """The threshold of what crosses, both words [2] of a rare rate."""
        rare = any_rare(np.array(self.link_rate))
        found = threshold(np.array([self.link_rate]), rare=rare)
        return found if rare else found.reshape(())

    @property
    def rare(self) -> bool:
        """Whether the layers' thresholds need two words."""
        return any_rare(self.rates("weight")) or any_rare(self.rates("activation"))

    @property
    def sent_times(self) -> float:
        """How often a packet is sent until it has arrived, on average (geometric)."""
        return 1 / (1 - self.link_rate) if self.link_kind == "resent" else 1.0

    def rates(self, target: str) -> np.ndarray:
        """Probability that each faulty bit, or a value, is struck: [D, bits] float64, or [D, 1].

        D is 1 for a single rate.
        """
        rate = np.asarray(getattr(self, f"{target}_rate"), np.float64)
        if self.kind not in BITWISE:
            return rate[:, None]
        profile = np.asarray(self.bit_profile or [1.0] * len(self.bits), np.float64)
        return np.minimum(rate[:, None] * profile, 1.0)

    def strike(
        self, quantized: Quantized, images: Array, *, mapping: Any, key: Any, trial: Any
    ) -> Array:
        """Logits of a quantised network under one fault draw; see `Quantized.__call__`."""
        # strike.py runs programs and needs this class's fields; importing it here keeps the
        # fault model importable without an evaluator.
        from afpjax.faults.strike import struck_logits

        return struck_logits(self, quantized, images, mapping=mapping, key=key, trial=trial)


def thresholds(faults: FaultModel, quantized: Quantized, mappings: Int[Any, "*P L"]) -> Thresholds:
    """Thresholds of every layer on its device; `mappings` may be traced.

    Raises `InputError` for faulty bits that the number format does not have, and layers that the
    network does not have.
    """
    check_bits(faults, quantized)
    mappings = checks.mappings("mapping", mappings, len(quantized.layers))
    struck = layer_mask(faults, quantized.graph)
    # Mappings at hand are looked up on the host: every count of them would compile anew.
    xp = jnp if isinstance(mappings, core.Tracer) else np

    def of(target: str, struck: np.ndarray) -> Any:
        table = xp.asarray(threshold(faults.rates(target), rare=faults.rare))
        _refuse_unknown_devices(target, len(table), mappings)
        devices = xp.minimum(xp.asarray(mappings), table.shape[0] - 1)
        return xp.where(struck[:, None], table[devices], xp.zeros((), xp.uint32))

    own = keepers(faults.shared, quantized.layers)
    stored_too = np.isin(own, own[struck])  # of which any call is struck
    layers = of("weight", stored_too), of("activation", struck)
    if not faults.strikes_link:
        return Thresholds(*layers)
    crosses = _crosses(quantized, xp.asarray(mappings))
    limit = xp.asarray(faults.link_limit)
    crosses = xp.expand_dims(crosses, tuple(range(crosses.ndim, crosses.ndim + limit.ndim)))
    return LinkThresholds(*layers, xp.where(crosses, limit, xp.zeros((), xp.uint32)))


def _crosses(quantized: Quantized, mappings: Any) -> Bool[Any, "*P W"]:
    """Which of the values that stages read come from another device."""
    every = transfers(quantized.program)
    makers, readers = (np.array([getattr(w, who) for w in every]) for who in ("maker", "reader"))
    return (mappings[..., makers] != mappings[..., readers]) & (makers >= 0)


def check_bits(faults: FaultModel, quantized: Quantized) -> None:
    """Raise `InputError` for faulty bits that the number format does not have."""
    width = quantized.format.width
    if max(faults.bits) >= width:
        raise InputError(
            f"faults.bits: bit {max(faults.bits)} is faulty, but the format has {width} bits, "
            f"0 to {width - 1}"
        )


def _refuse_unknown_devices(target: str, devices: int, mappings: Any) -> None:
    """Only where the mapping is at hand: inside a compiled program it cannot be checked."""
    if devices > 1 and not isinstance(mappings, core.Tracer) and np.max(mappings) >= devices:
        raise InputError(
            f"faults.{target}_rate: {devices} rates, but the mapping names device "
            f"{int(np.max(mappings))}; give one rate, or one per device"
        )


def keepers(shared: str, layers: Sequence[Layer]) -> Int[np.ndarray, "L"]:
    """By layer, the one whose weights' draws it meets: its own, or those of what it shares."""
    return np.array(stored(layers) if shared == "stored" else range(len(layers)), np.int32)


def layer_mask(faults: FaultModel, graph: LayerGraph) -> Bool[np.ndarray, "L"]:
    """Which layers faults may strike."""
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


def words(limits: UInt32[np.ndarray, "..."]) -> bytes:
    """Thresholds as a strike has them: nothing where no bit can flip."""
    return np.ascontiguousarray(limits, np.uint32).tobytes() if limits.any() else b""
