"""Traces of environments from files: TOML with [[change]] tables, or CSV with a row per change."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from afpjax.inputs.errors import InputError, quoted, shortened
from afpjax.inputs.files import CSV, parsed, read_toml
from afpjax.online.environment import RANDOM, Change, Trace

_SHIPPED = Path(__file__).parent / "traces"
_SETTING = "online.trace"
_AFTER = 100  # steps that a .csv file's stream goes on for after the last change


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
    return _from_toml(path, path.name) if path.suffix == ".toml" else _from_csv(path)


def _from_toml(path: Path, name: str) -> Trace:
    table = read_toml(path, _SETTING)
    rows = table.pop("change", [])
    unknown = set(table) - {"description", "steps", "shift"}
    if unknown or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{_SETTING}: {path}: a trace has description, steps, shift and [[change]] tables"
            + (f", not `{shortened(min(unknown))}`" if unknown else "")
        )
    where = f"{_SETTING}: {path}"
    changes = tuple(_changes(rows, where))
    steps = _typed(table.get("steps", _last(changes)), int, f"{where}: steps")
    shift = _typed(table.get("shift", 0), int, f"{where}: shift")
    description = _typed(table.get("description", ""), str, f"{where}: description")
    return Trace(name.removesuffix(".toml"), steps, changes, description, shift)


def _from_csv(path: Path) -> Trace:
    changes = tuple(_changes(parsed(path, _SETTING, CSV, _csv_rows), f"{_SETTING}: {path}"))
    return Trace(path.stem, _last(changes), changes)


def _csv_rows(content: bytes) -> list[dict[str, Any]]:
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [
        {key: _from_cell(cell) for key, cell in row.items() if cell not in ("", None)}
        for row in csv.DictReader(text)
    ]


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
            raise InputError(
                f"{where}: unknown `{shortened(unknown[0])}`; known: {', '.join(kinds)}"
            )
        for key in ("step", "device"):
            if key not in row:
                raise InputError(f"{where}: has no `{key}`")
        values = {key: _typed(row[key], kinds[key], f"{where}: {key}") for key in row}
        yield replace(Change(values.pop("step"), values.pop("device"), where=where), **values)


def _typed(value: Any, kind: Any, where: str) -> Any:
    """`value` if it is of the kind; a whole number is taken for a number."""
    if type(value) is int and abs(value) >= 2**63:
        raise InputError(f"{where} is {quoted(value)}; give a number of 64 bits")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind or (isinstance(kind, tuple) and type(value) in kind):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise InputError(f"{where} is {quoted(value)}; give {words.get(kind, 'a name or an index')}")
