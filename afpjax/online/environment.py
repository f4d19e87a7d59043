"""The environment of a running system: what each device is like at every step of a stream.

A trace is a list of changes: from a step on, a device has other fault rates, takes another factor
of its latency or energy, leaves, or comes back. Traces are files: TOML with [[change]] tables, or
CSV with a row per change; those in `traces/` come with afpjax and are known by their name. Shape
legend: D devices, T steps.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError, quoted, shortened
from afpjax.inputs.files import CSV, parsed, read_toml
from afpjax.inputs.toml_tables import (
    Flag,
    NonNegative,
    NonNegativeInt,
    Positive,
    Rate,
    from_table,
    table,
)

#: A mapping of layers to devices as a key: [L] device indices.
MappingKey = tuple[int, ...]

RANDOM = "random"
#: Devices by what they do in the first mapping, for traces that fit any platform.
ROLES = ("busiest", "sensitive")
_SHIPPED = Path(__file__).parent / "traces"
_SETTING = "online.trace"
_STEPS_AFTER = 100  # that a stream goes on for after the last change, where a file does not say


class PlatformState(NamedTuple):
    """Every device at one step: [D] each. Rates are chances that a faulty bit flips, latency and
    energy are factors on the platform's own."""

    weight_rate: tuple[float, ...]
    activation_rate: tuple[float, ...]
    latency: tuple[float, ...]
    energy: tuple[float, ...]
    present: tuple[bool, ...]

    def runs(self, mapping: MappingKey) -> bool:
        """Whether every layer's device is there."""
        return all(self.present[device] for device in mapping)

    def with_rates(self, weight: Sequence[float], activation: Sequence[float]) -> "PlatformState":
        """The state at other fault rates."""
        return self._replace(
            weight_rate=tuple(map(float, weight)), activation_rate=tuple(map(float, activation))
        )

    def faults(self, model: FaultModel) -> FaultModel:
        """The fault model at this state's rates, one per device."""
        return replace(model, weight_rate=self.weight_rate, activation_rate=self.activation_rate)


def nominal_state(weight_rate: Any, activation_rate: Any, devices: int = 0) -> PlatformState:
    """All devices there, at the fault rates and the costs that the system is built for.

    One rate stands for all `devices`.
    """
    devices = devices or len(weight_rate)
    ones = (1.0,) * devices
    weight, activation = (
        tuple(np.broadcast_to(np.asarray(rate, np.float64), devices).tolist())
        for rate in (weight_rate, activation_rate)
    )
    return PlatformState(weight, activation, ones, ones, (True,) * devices)


def _name_or_index(device: object) -> object:
    if type(device) not in (str, int):
        raise ValueError(f"`device` is {quoted(device)}: give a name or an index")
    return device


@table
class Change:
    """What is another way for one device from `step` on; None: as before.

    `device` is a name, an index or a role. `rate_factor` is on the rates that the system was built
    for (1: back to them, whatever came between); `weight_rate` and `activation_rate` are rates.
    """

    step: NonNegativeInt
    device: Annotated[Any, AfterValidator(_name_or_index)]
    weight_rate: Rate | None = None
    activation_rate: Rate | None = None
    rate_factor: NonNegative | None = None
    latency: Positive | None = None
    energy: Positive | None = None
    present: Flag | None = None

    def index(self, names: Sequence[str], roles: Mapping[str, int]) -> int:
        """The device's index. Raises `InputError` for what is no name, index or role."""
        name = str(self.device)
        if name in names:
            return list(names).index(name)
        if name in roles:
            return roles[name]
        if re.fullmatch("[0-9]{1,9}", name) and int(name) < len(names):
            return int(name)
        raise InputError(
            f"no device `{shortened(name)}`; devices are {', '.join(names)}, or 0 to "
            f"{len(names) - 1}, or by what they do {' or '.join(ROLES)}"
        )


# Each step is a state of its own, and a batch to run.
_Steps = Annotated[int, Field(strict=True, le=10**6)]


@table
class Trace:
    """Changes in the order of their steps; a seed moves all of them later by up to `shift`.

    `where` opens the errors about its changes.
    """

    name: str
    steps: Annotated[_Steps, Field(ge=1)]
    changes: tuple[Change, ...]
    description: Annotated[str, Field(strict=True)] = ""
    shift: Annotated[_Steps, Field(ge=0)] = 0
    where: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> "Trace":
        for number, (before, after) in enumerate(
            zip(self.changes, self.changes[1:], strict=False), start=2
        ):
            if after.step < before.step:
                raise ValueError(
                    f"change {number}: step {after.step} comes after step {before.step}; list "
                    "changes in the order of their steps"
                )
        return self

    def check_devices(self, names: Sequence[str]) -> None:
        """Raise `InputError` for a device that is no name, index or role."""
        self.devices(names, dict.fromkeys(ROLES, 0))

    def devices(self, names: Sequence[str], roles: Mapping[str, int]) -> list[int]:
        """The device of each change. Raises `InputError` as `check_devices`."""
        indices = []
        for number, change in enumerate(self.changes, start=1):
            try:
                indices.append(change.index(names, roles))
            except InputError as error:
                raise InputError(f"{self._change(number)}: {error}") from None
        return indices

    def states(
        self,
        names: Sequence[str],
        nominal: PlatformState,
        roles: Mapping[str, int],
        seed: int,
    ) -> tuple[PlatformState, ...]:
        """The environment at each of the T steps, beginning with the one it was built for.

        Raises `InputError` for an unknown device, and where all devices are gone.
        """
        shift = int(np.random.default_rng([seed, 0x5417F]).integers(self.shift + 1))
        devices = self.devices(names, roles)
        state, states, done = nominal, [], 0
        for step in range(self.steps):
            while done < len(devices) and self.changes[done].step + shift <= step:
                change = self.changes[done]
                state = _changed(state, change, devices[done], nominal)
                done += 1
                if not any(state.present):
                    raise InputError(
                        f"{self._change(done)}: all devices are gone at step {change.step}; leave "
                        "one"
                    )
            states.append(state)
        return tuple(states)

    def _change(self, number: int) -> str:
        return f"{self.where or self.name}: change {number}"


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
        changes += [
            Change(int(step), device, weight_rate=rate, activation_rate=rate),
            Change(int(step + length), device, rate_factor=1.0),
        ]
        step += rng.exponential(every)
    ordered = tuple(sorted(changes, key=lambda change: change.step))
    return Trace(RANDOM, steps, ordered, "Bursts drawn from the seed")


def shipped_traces() -> tuple[str, ...]:
    """Names of the traces that come with afpjax."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def read_trace(name: str) -> Trace:
    """The trace shipped under a name, or the .toml or .csv file at a path.

    Raises `InputError` that names the file and the change for what is not well formed.
    """
    if name in shipped_traces():
        return _from_toml(_SHIPPED / f"{name}.toml")
    path = Path(name)
    if path.suffix not in (".toml", ".csv"):
        raise InputError(
            f"online.trace: unknown trace `{name}`; shipped are {', '.join(shipped_traces())}, "
            f"drawn from the seed is {RANDOM}, any other is the path of a .toml or .csv file"
        )
    return _from_toml(path) if path.suffix == ".toml" else _from_csv(path)


def _from_toml(path: Path) -> Trace:
    values = read_toml(path, _SETTING)
    rows = values.pop("change", [])
    unknown = set(values) - {"description", "steps", "shift"}
    if unknown or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{_SETTING}: {path}: a trace has description, steps, shift and [[change]] tables"
            + (f", not `{shortened(min(unknown))}`" if unknown else "")
        )
    return _trace(path, rows, values)


def _from_csv(path: Path) -> Trace:
    def rows(content: bytes) -> list[dict[str, Any]]:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        return [
            {str(key): _cell(cell) for key, cell in row.items() if cell not in ("", None)}
            for row in csv.DictReader(text)
        ]

    return _trace(path, parsed(path, _SETTING, CSV, rows), {})


def _trace(path: Path, rows: Sequence[dict[str, Any]], values: dict[str, Any]) -> Trace:
    where = f"{_SETTING}: {path}"
    changes = tuple(
        from_table(Change, row, f"{where}: change {number}")
        for number, row in enumerate(rows, start=1)
    )
    steps = max((change.step for change in changes), default=0) + _STEPS_AFTER
    given = {"name": path.stem, "steps": steps, **values, "changes": changes, "where": where}
    return from_table(Trace, given, where)


def _cell(cell: Any) -> Any:
    """A CSV cell as TOML would have it."""
    text = str(cell).strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _changed(
    state: PlatformState, change: Change, device: int, nominal: PlatformState
) -> PlatformState:
    """The state once a device has changed."""
    new = {name: getattr(change, name) for name in PlatformState._fields}
    if change.rate_factor is not None:
        for name in ("weight_rate", "activation_rate"):
            rate = min(getattr(nominal, name)[device] * change.rate_factor, 1.0)
            new[name] = rate if new[name] is None else new[name]
    for name, value in new.items():
        if value is not None:
            of_devices = getattr(state, name)
            changed = (*of_devices[:device], value, *of_devices[device + 1 :])
            state = state._replace(**{name: changed})
    return state
