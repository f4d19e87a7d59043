"""The environment of a running system: what each device is like at every step of a stream.

A trace is a list of changes: from a step on, a device has other fault rates, takes another factor
of its latency or energy, leaves, or comes back. Shape legend: D devices, T steps.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from afpjax.inputs.errors import InputError, shortened

RANDOM = "random"
#: Devices by what they do in the first mapping, for traces that fit any platform.
ROLES = ("busiest", "sensitive")
_MOST = 10**6  # steps: each is a state of its own, and a batch to run


class State(NamedTuple):
    """Every device at one step. Rates are chances that a faulty bit flips, factors are on the
    platform's own latency and energy."""

    weight_rate: tuple[float, ...]
    activation_rate: tuple[float, ...]
    latency: tuple[float, ...]
    energy: tuple[float, ...]
    present: tuple[bool, ...]


@dataclass(frozen=True)
class Change:
    """What is another way for one device from `step` on; None: as before.

    `device` is a name, an index or a role. `rate_factor` is on the rates that the system was built
    for (1: back to them, whatever came between); `weight_rate` and `activation_rate` are rates.
    Raises `InputError` for values that make no sense, beginning with `where`.
    """

    step: int
    device: str | int
    weight_rate: float | None = None
    activation_rate: float | None = None
    rate_factor: float | None = None
    latency: float | None = None
    energy: float | None = None
    present: bool | None = None
    where: str = "change"

    def __post_init__(self) -> None:
        if self.step < 0:
            raise InputError(f"{self.where}: step {self.step} is before the stream; give 0 or more")
        for name in ("weight_rate", "activation_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise InputError(f"{self.where}: {name} {rate:g} is outside [0, 1]; it is a chance")
        for name in ("latency", "energy"):
            factor = getattr(self, name)
            if factor is not None and not 0 < factor < float("inf"):
                raise InputError(
                    f"{self.where}: {name} {factor:g} is a factor; give a finite one above 0"
                )
        if self.rate_factor is not None and not 0 <= self.rate_factor < float("inf"):
            raise InputError(
                f"{self.where}: rate_factor {self.rate_factor:g} is a factor; give 0 or more"
            )


@dataclass(frozen=True)
class Trace:
    """Changes in the order of their steps; a seed moves all of them later by up to `shift`."""

    name: str
    steps: int
    changes: tuple[Change, ...]
    description: str = ""
    shift: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift < 0:
            raise InputError(
                f"{self.name}: steps {self.steps}, shift {self.shift}; give 1 step or more, and a "
                "shift of 0 or more"
            )
        if max(self.steps, self.shift) > _MOST:
            raise InputError(
                f"{self.name}: steps {self.steps}, shift {self.shift}; give {_MOST:,} at most"
            )
        for before, after in zip(self.changes, self.changes[1:], strict=False):
            if after.step < before.step:
                raise InputError(
                    f"{after.where}: step {after.step} comes after step {before.step}; list "
                    "changes in the order of their steps"
                )


def random_trace(seed: int, devices: int, steps: int = 480, every: float = 160.0) -> Trace:
    """Bursts at Poisson times (one in `every` steps), on a random device, of a random rate.

    A burst ends after a third to a whole of `every` steps. Rates are log-uniform in [0.08, 0.4].
    """
    rng = np.random.default_rng([seed, 0xB0257])
    changes = []
    step = 40 + rng.exponential(every / 2)
    while step < steps:
        device, length = int(rng.integers(devices)), every * rng.uniform(1 / 3, 1)
        rate = float(np.round(np.exp(rng.uniform(np.log(0.08), np.log(0.4))), 3))
        begun = Change(int(step), device, weight_rate=rate, activation_rate=rate, where=RANDOM)
        changes += [begun, Change(int(step + length), device, rate_factor=1.0, where=RANDOM)]
        step += rng.exponential(every)
    ordered = tuple(sorted(changes, key=lambda change: change.step))
    return Trace(RANDOM, steps, ordered, "Bursts drawn from the seed")


def check_devices(trace: Trace, names: Sequence[str]) -> None:
    """Raise `InputError` for a device that is no name, index or role."""
    for change in trace.changes:
        _device(change, names, dict.fromkeys(ROLES, 0))


def states(
    trace: Trace,
    names: Sequence[str],
    built_for: State,
    roles: Mapping[str, int],
    seed: int,
) -> tuple[State, ...]:
    """The environment at each of the trace's steps, beginning with the one it was built for.

    Raises `InputError` for a device nobody knows, and where all devices are gone.
    """
    shift = int(np.random.default_rng([seed, 0x5417F]).integers(trace.shift + 1))
    state, found = built_for, []
    changes = list(trace.changes)
    for step in range(trace.steps):
        while changes and changes[0].step + shift <= step:
            change = changes.pop(0)
            state = _after(state, change, _device(change, names, roles), built_for)
            if not any(state.present):
                raise InputError(
                    f"{change.where}: all devices are gone at step {change.step}; leave one"
                )
        found.append(state)
    return tuple(found)


def built_for(weight_rate: Sequence[float], activation_rate: Sequence[float]) -> State:
    """All devices there, at these fault rates and the platform's own latency and energy."""
    devices = len(weight_rate)
    ones, rates = (1.0,) * devices, (tuple(map(float, weight_rate)),)
    return State(*rates, tuple(map(float, activation_rate)), ones, ones, (True,) * devices)


def _after(state: State, change: Change, device: int, built_for: State) -> State:
    """The state once a device has changed."""
    new = {name: getattr(change, name) for name in State._fields}
    if change.rate_factor is not None:
        for name in ("weight_rate", "activation_rate"):
            rate = min(getattr(built_for, name)[device] * change.rate_factor, 1.0)
            new[name] = rate if new[name] is None else new[name]
    told = {name: value for name, value in new.items() if value is not None}

    def put(name: str) -> tuple[Any, ...]:
        values = getattr(state, name)
        return (*values[:device], told[name], *values[device + 1 :])

    return state._replace(**{name: put(name) for name in told})


def _device(change: Change, names: Sequence[str], roles: Mapping[str, int]) -> int:
    given = change.device
    if isinstance(given, str) and given in names:
        return list(names).index(given)
    if isinstance(given, str) and given in roles:
        return roles[given]
    index = int(given) if re.fullmatch("[0-9]{1,9}", str(given)) else -1
    if 0 <= index < len(names):
        return index
    raise InputError(
        f"{change.where}: no device `{shortened(str(given))}`; devices are {', '.join(names)}, "
        f"or 0 to {len(names) - 1}, or by what they do {' or '.join(ROLES)}"
    )
