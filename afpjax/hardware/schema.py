"""TOML tables become frozen dataclasses, or an error that a person can act on."""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, TypeVar

from afpjax.inputs.errors import InputError, quoted

T = TypeVar("T")
Names = Iterable[str]

#: Whole numbers up to here are floats too, and products of two stay within what NumPy can count.
_MOST = 10**12
_KINDS = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "a text in quotes",
}


def from_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A `kind` filled from a TOML table, sub-tables into dataclass fields.

    Unknown, missing and wrongly typed keys raise InputError; so does what `kind` itself refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise InputError(f"{where}: unknown key `{key}`{nearest(key, fields)}")
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _value(field.type, table[name], name, where)
        elif field.default is dataclasses.MISSING:
            raise InputError(f"{where}: key `{name}` is missing")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def nearest(name: str, known: Names) -> str:
    """What to add to a message about an unknown name: the likely one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean `{close[0]}`?" if close else f"; known are {', '.join(known)}"


def need(holds: bool, message: str) -> None:
    """InputError with this message unless it holds."""
    if not holds:
        raise InputError(message)


def need_positive(record: Any, *names: str, zero: bool = False, infinite: bool = False) -> None:
    """Every named field is above zero (or at it where `zero` allows it), finite but for leave."""
    for name in names:
        value = getattr(record, name)
        good = value > 0 or (zero and value == 0)  # false for NaN
        least = "zero or more" if zero else "more than zero"
        need(good, f"`{name}` is {value}: give {least}")
        need(infinite or math.isfinite(value), f"`{name}` is {value}: give a finite number")


def need_fraction(record: Any, *names: str) -> None:
    """Every named field lies in [0, 1]."""
    for name in names:
        value = getattr(record, name)
        need(0.0 <= value <= 1.0, f"`{name}` is {value}: a rate lies between 0 and 1")


def _value(kind: Any, value: Any, name: str, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        need(isinstance(value, dict), f"{where}: `{name}` must be a table, [{name}]")
        return from_table(kind, value, f"{where}: [{name}]")  # type: ignore[arg-type]
    if kind is int and type(value) is int and abs(value) > _MOST:
        raise InputError(f"{where}: `{name}` is {value}: give {_MOST} at most")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{where}: `{name}` is {quoted(value)}: give {_KINDS[kind]}")
