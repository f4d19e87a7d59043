"""What the settings of a fault model may be, alone and together."""

from typing import TYPE_CHECKING, Any

import numpy as np

from afpjax.inputs.checks import array, whole
from afpjax.inputs.errors import InputError

if TYPE_CHECKING:
    from afpjax.faults.model import FaultModel

GENERATORS = ("hash", "threefry")
BITWISE = ("flip", "stuck-at-0", "stuck-at-1")  # every faulty bit has a draw of its own
KINDS = (*BITWISE, "burst", "zero", "random", "lost", "lost-last")
SCOPES = ("", "run", "trial", "image")
SHARED = ("stored", "read")
LINK_KINDS = ("bits", "zero", "last", "resent")


def check(faults: "FaultModel") -> None:
    """Raise `InputError` for settings that make no sense."""
    _check_bits(faults)
    _check_names(faults)
    _check_kind(faults)
    _check_link(faults)


def _check_bits(faults: "FaultModel") -> None:
    if not faults.bits or len(set(faults.bits)) < len(faults.bits) or min(faults.bits) < 0:
        raise InputError(f"faults.bits: {list(faults.bits)} must be distinct positions from 0 up")
    if faults.bit_profile and len(faults.bit_profile) != len(faults.bits):
        raise InputError(
            f"faults.bit_profile: {len(faults.bit_profile)} factors for {len(faults.bits)} bits"
        )
    if faults.bit_profile and not all(factor >= 0 for factor in faults.bit_profile):
        raise InputError("faults.bit_profile: a factor is negative; give numbers from 0 up")
    if faults.budget is not None:
        whole("faults.budget", faults.budget, 0)


def _check_names(faults: "FaultModel") -> None:
    for name, known in (
        ("generator", GENERATORS),
        ("kind", KINDS),
        ("scope", SCOPES),
        ("link_kind", LINK_KINDS),
        ("shared", SHARED),
    ):
        if getattr(faults, name) not in known:
            raise InputError(
                f"faults.{name}: {getattr(faults, name)!r} is none of "
                + ", ".join(each or '""' for each in known)
            )


def _check_kind(faults: "FaultModel") -> None:
    """What only some kinds of fault can have."""
    bits = faults.bits
    whole("faults.burst", faults.burst)
    whole("faults.packet", faults.packet, 1)
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


def _check_link(faults: "FaultModel") -> None:
    rate = faults.link_rate
    if not 0 <= rate <= 1:
        raise InputError(f"faults.link_rate: {rate} is outside [0, 1]; it is a probability")
    if faults.link_kind == "resent" and rate == 1:
        raise InputError(
            "faults.link_rate: 1, but a packet that is always lost is resent for ever; give less"
        )
    if faults.budget is not None and faults.strikes_link:
        raise InputError(
            "faults.budget: counts struck bits of layers, not of the link; give faults.link_rate "
            "0, or no budget"
        )


def checked_rates(name: str, rate: Any) -> tuple[float, ...]:
    """One number or several as rates; raises `InputError` for what is no probability."""
    given = array(f"faults.{name}", rate)
    if given.ndim > 1 or given.size == 0:
        raise InputError(f"faults.{name}: {given.size} rates; give one number, or one per device")
    rates = tuple(float(value) for value in np.atleast_1d(given))
    for value in rates:
        if not 0 <= value <= 1:
            raise InputError(f"faults.{name}: {value} is outside [0, 1]; it is a probability")
    return rates
