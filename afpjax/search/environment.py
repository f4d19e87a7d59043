"""The environment of a running system: what each device is like at every step of a stream.

A trace is a list of changes: from a step on, a device has other fault rates, takes another factor
of its latency or energy, leaves, or comes back. Shape legend: D devices, T steps.
"""

import csv
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from afpjax.errors import InputError

RANDOM = "random"
#: Devices by what they do in the first mapping, for traces that fit any platform.
ROLES = ("busiest", "sensitive")
_SHIPPED = Path(__file__).parent / "traces"
_AFTER = 100  # steps that a .csv file's stream goes on for after the last change


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
        for before, after in zip(self.changes, self.changes[1:], strict=False):
            if after.step < before.step:
                raise InputError(
                    f"{after.where}: step {after.step} comes after step {before.step}; list "
                    "changes in the order of their steps"
                )


def shipped_traces() -> tuple[str, ...]:
    """Names of the traces that come with afpjax."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def read_trace(name: str) -> Trace:
    """The trace shipped under a name, or the .toml or .csv file at a path.

    Raises `InputError` that names the file and the change for what is not well formed.
    """
    if name in shipped_traces():
        return _from_toml(_SHIPPED / f"{name}.toml", name)
    path = Path(name)
    if path.suffix not in (".toml", ".csv"):
        raise InputError(
            f"online.trace: unknown trace `{name}`; shipped are {', '.join(shipped_traces())}, "
            f"drawn from the seed is {RANDOM}, any other is the path of a .toml or .csv file"
        )
    if not path.is_file():
        raise InputError(f"online.trace: there is no file {name}")
    return _from_toml(path, path.name) if path.suffix == ".toml" else _from_csv(path)


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
    index = int(given) if str(given).isdecimal() else -1
    if 0 <= index < len(names):
        return index
    raise InputError(
        f"{change.where}: no device `{given}`; devices are {', '.join(names)}, or 0 to "
        f"{len(names) - 1}, or by what they do {' or '.join(ROLES)}"
    )


def _from_toml(path: Path, name: str) -> Trace:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: is no readable TOML file: {error}") from error
    rows = table.pop("change", [])
    unknown = set(table) - {"description", "steps", "shift"}
    if unknown or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{path.name}: a trace has description, steps, shift and [[change]] tables"
            + (f", not `{min(unknown)}`" if unknown else "")
        )
    changes = tuple(_changes(rows, path.name))
    steps = _typed(table.get("steps", _last(changes)), int, f"{path.name}: steps")
    shift = _typed(table.get("shift", 0), int, f"{path.name}: shift")
    return Trace(name.removesuffix(".toml"), steps, changes, table.get("description", ""), shift)


def _from_csv(path: Path) -> Trace:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {key: _from_cell(cell) for key, cell in row.items() if cell not in ("", None)}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path.name}: is no readable CSV file: {error}") from error
    changes = tuple(_changes(rows, path.name))
    return Trace(path.stem, _last(changes), changes)


def _last(changes: Sequence[Change]) -> int:
    return max((change.step for change in changes), default=0) + _AFTER


def _from_cell(cell: Any) -> Any:
    text = str(cell).strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _changes(rows: Iterable[Mapping[str, Any]], file: str) -> Iterator[Change]:
    """Changes with every value's type checked; `file: change N` says where one stands."""
    kinds: dict[str, type | tuple[type, ...]] = {
        field.name: float for field in fields(Change) if field.name != "where"
    }
    kinds |= {"step": int, "device": (str, int), "present": bool}
    for number, row in enumerate(rows, start=1):
        where = f"{file}: change {number}"
        unknown = [str(key) for key in row if key not in kinds]
        if unknown:
            raise InputError(f"{where}: unknown `{unknown[0]}`; known: {', '.join(kinds)}")
        for key in ("step", "device"):
            if key not in row:
                raise InputError(f"{where}: has no `{key}`")
        values = {key: _typed(row[key], kinds[key], f"{where}: {key}") for key in row}
        yield replace(Change(values.pop("step"), values.pop("device"), where=where), **values)


def _typed(value: Any, kind: Any, where: str) -> Any:
    """`value` if it is of the kind; a whole number is taken for a number."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind or (isinstance(kind, tuple) and type(value) in kind):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    raise InputError(f"{where} is {value!r}; give {words.get(kind, 'a name or an index')}")
