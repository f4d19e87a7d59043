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


class Thresholds(NamedTuple):
    """How often each bit of each layer's weights and inputs flips: data of the compiled program.

    A bit flips when its 31-bit uniform draw is below its threshold, so the same draw serves every
    device and every rate (common random numbers).
    """

    weights: UInt32[Array, "*P L bits"] | UInt32[np.ndarray, "*P L bits"]
    activations: UInt32[Array, "*P L bits"] | UInt32[np.ndarray, "*P L bits"]


@dataclass(frozen=True)
class FaultModel:
    """Independent bit-flips in the read copies of weights and activations.

    `bits`: positions that may flip, 0 the lowest. `weight_rate`, `activation_rate`: probability
    in [0, 1] that such a bit flips, one number, or one per device. `bit_profile`: a factor on the
    rate for each faulty bit (empty: 1). `layers`: "all", a count of first layers, or names.
    `budget`: at most so many flips in the whole model, drawn without replacement (None: no limit);
    it is shared between weights and activations in proportion to their expected flips.
    Weight flips are drawn once per trial and are shared by its images; activation flips are drawn
    for every image. Raises `InputError` for values that make no sense.
    """

    bits: Sequence[int] = (0, 1, 2, 3)
    weight_rate: float | Sequence[float] = 0.2
    activation_rate: float | Sequence[float] = 0.2
    bit_profile: Sequence[float] = ()
    layers: str | int | Sequence[str] = "all"
    budget: int | None = None
    generator: str = "hash"

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
        if self.generator not in GENERATORS:
            raise InputError(
                f"faults.generator: {self.generator!r} is none of {', '.join(GENERATORS)}"
            )

    def rates(self, target: str) -> np.ndarray:
        """Probability that each faulty bit flips, [D, bits] float64; D is 1 for a single rate."""
        rate = np.asarray(getattr(self, f"{target}_rate"), np.float64)
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
    width = quantized.format.width
    if max(faults.bits) >= width:
        raise InputError(
            f"faults.bits: bit {max(faults.bits)} is faulty, but the format has {width} bits, "
            f"0 to {width - 1}"
        )
    struck = layer_mask(faults, quantized.graph)
    # Mappings at hand are looked up on the host: every count of them would compile anew.
    xp = jnp if isinstance(mappings, core.Tracer) else np

    def of(target: str) -> Any:
        table = xp.asarray(threshold(faults.rates(target)))
        _refuse_unknown_devices(target, len(table), mappings)
        devices = xp.minimum(xp.asarray(mappings), table.shape[0] - 1)
        return xp.where(struck[:, None], table[devices], xp.zeros((), xp.uint32))

    return Thresholds(of("weight"), of("activation"))


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


def _checked_rates(name: str, rate: Any) -> tuple[float, ...]:
    rates = tuple(float(value) for value in np.atleast_1d(rate))
    if not rates:
        raise InputError(f"faults.{name}: no rate; give one number, or one per device")
    for value in rates:
        if not 0 <= value <= 1:
            raise InputError(f"faults.{name}: {value} is outside [0, 1]; it is a probability")
    return rates
