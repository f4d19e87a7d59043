"""The fault model that an experiment file stands for."""

from dataclasses import replace
from typing import Any

from afpjax.config.config import Config
from afpjax.faults.model import FaultModel
from afpjax.hardware.platform import Link, Platform
from afpjax.inputs.errors import InputError


def fault_model(config: Config, platform: Platform) -> FaultModel:
    """Faults in weights and activations together, at the experiment's or the devices' rates."""
    given = config.faults
    return FaultModel(
        bits=given.bits,
        weight_rate=_rates(given.weight_rate, platform.weight_rates),
        activation_rate=_rates(given.activation_rate, platform.activation_rates),
        bit_profile=given.bit_profile,
        layers=_layers(given.layers),
        budget=given.budget or None,
        generator=given.generator,
        kind=given.kind,
        burst=given.burst,
        packet=given.packet,
        scope=given.scope,
        link_rate=_link_rate(given.link_rate, platform.link, given.link),
        link_kind=given.link,
        shared=given.shared,
    )


def scaled(faults: FaultModel, *, weights: float, activations: float) -> FaultModel:
    """The fault model with its rates multiplied, and cut at 1.

    The link's faults strike activations. A link that sends again costs the same in all scenarios.
    """

    def times(rates: Any, factor: float) -> tuple[float, ...]:
        return tuple(min(rate * factor, 1.0) for rate in rates)

    return replace(
        faults,
        weight_rate=times(faults.weight_rate, weights),
        activation_rate=times(faults.activation_rate, activations),
        link_rate=times([faults.link_rate], activations)[0]
        if faults.corrupts_link
        else faults.link_rate,
    )


def _link_rate(given: tuple[float, ...], link: Link, kind: str) -> float:
    """How often bits flip, or packets get lost: the experiment's rate, or the link's own."""
    if len(given) > 1:
        raise InputError(
            f"faults.link_rate: {len(given)} rates for the one link between devices; give one "
            "number, or none for the link's own"
        )
    if given:
        return given[0]
    return link.bit_error_rate if kind == "bits" else link.packet_loss_rate


def _rates(given: tuple[float, ...], own: tuple[float, ...]) -> tuple[float, ...]:
    """One rate per device: the experiment's, or the devices' own."""
    if not given:
        return own
    return given * len(own) if len(given) == 1 else given


def _layers(chosen: tuple[int | str, ...]) -> str | int | tuple[str, ...]:
    """`faults.layers` as the fault model takes it."""
    first = chosen[0]
    return first if isinstance(first, int) or first == "all" else tuple(map(str, chosen))
