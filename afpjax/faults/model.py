"""The fault model: which bits flip, in what, where, and how often (AFarePart, Section V-C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import core
from jaxtyping import Array, Bool, Int, UInt32

from afpjax.errors import InputError
from afpjax.faults.bits import threshold
from afpjax.network.layers import LayerGraph
from afpjax.network.quantized import Quantized

GENERATORS = ("hash", "threefry")
BITWISE = ("flip", "stuck-at-0", "stuck-at-1")  # every faulty bit has a draw of its own
KINDS = (*BITWISE, "burst", "zero", "random", "lost", "lost-last")
SCOPES = ("", "run", "trial", "image")


class Thresholds(NamedTuple):
    """How often each bit (or value) of each layer's operands is struck: data of the program.

    A bit flips when its 31-bit uniform draw is below its threshold, so the same draw serves every
    device and every rate (common random numbers).
    """

    weights: UInt32[Array, "*P L bits"] | UInt32[np.ndarray, "*P L bits"]
    activations: UInt32[Array, "*P L bits"] | UInt32[np.ndarray, "*P L bits"]


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

    def __post_init__(self) -> None:
        for name in ("bits", "bit_profile"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("weight_rate", "activation_rate"):
            object.__setattr__(self, name, _checked_rates(name, getattr(self, name)))
        if not isinstance(self.layers, str | int):
            object.__setattr__(self, "layers", tuple(self.layers))
        if not self.bits or len(set(self.bits)) < len(self.bits) or min(self.bits) < 0:
            raise InputError(f"faults.bits: {list(self.bits)} must be distinct positions from 0 up")
        if self.bit_profile and len(self.bit_profile) != len(self.bits):
            raise InputError(
                f"faults.bit_profile: {len(self.bit_profile)} factors for {len(self.bits)} bits"
            )
        if self.bit_profile and not all(factor >= 0 for factor in self.bit_profile):
            raise InputError("faults.bit_profile: a factor is negative; give numbers from 0 up")
        if self.budget is not None and self.budget < 0:
            raise InputError(f"faults.budget: {self.budget} flips; give 0 or more, or None")
        for name, known in (("generator", GENERATORS), ("kind", KINDS), ("scope", SCOPES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"faults.{name}: {getattr(self, name)!r} is none of "
                    + ", ".join(each or '""' for each in known)
                )
        _check_kind(self)

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
    struck = layer_mask(faults, quantized.graph)
    # Mappings at hand are looked up on the host: every count of them would compile anew.
    xp = jnp if isinstance(mappings, core.Tracer) else np

    def of(target: str) -> Any:
        table = xp.asarray(threshold(faults.rates(target)))
        _refuse_unknown_devices(target, len(table), mappings)
        devices = xp.minimum(xp.asarray(mappings), table.shape[0] - 1)
        return xp.where(struck[:, None], table[devices], xp.zeros((), xp.uint32))

    return Thresholds(of("weight"), of("activation"))


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


def _check_kind(faults: FaultModel) -> None:
    """What only some kinds of fault can have."""
    bits = faults.bits
    if faults.kind not in BITWISE and faults.bit_profile:
        raise InputError(f"faults.bit_profile: a {faults.kind} fault has one rate for all bits")
    if faults.budget is not None and (faults.kind not in BITWISE or faults.scope):
        raise InputError(
            "faults.budget: counts struck bits of one inference; it needs the default scope and "
            f"one of {', '.join(BITWISE)}"
        )
    if faults.kind == "burst" and list(bits) != list(range(bits[0], bits[0] + len(bits))):
        raise InputError(f"faults.bits: a burst strikes adjacent bits, {list(bits)} are not")
    if faults.kind == "burst" and not 1 <= faults.burst <= len(bits):
        raise InputError(
            f"faults.burst: {faults.burst} adjacent bits of {len(bits)}; give 1 to {len(bits)}"
        )
    if faults.packet < 1:
        raise InputError(f"faults.packet: {faults.packet} values; give 1 or more")


def _checked_rates(name: str, rate: Any) -> tuple[float, ...]:
    rates = tuple(float(value) for value in np.atleast_1d(rate))
    if not rates:
        raise InputError(f"faults.{name}: no rate; give one number, or one per device")
    for value in rates:
        if not 0 <= value <= 1:
            raise InputError(f"faults.{name}: {value} is outside [0, 1]; it is a probability")
    return rates
