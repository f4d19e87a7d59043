"""Records of JSON as frozen dataclasses, every value of the type that its field says."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

_LARGEST = 2**53  # whole numbers that JSON's readers agree on


def made(kind: Any, record: Any, renamed: Mapping[str, str] = MappingProxyType({})) -> Any:
    """A record as the dataclass `kind`, lists as tuples; what it does not know is left out.

    `renamed` has the record's names of fields where they differ. Raises KeyError for what is
    missing, TypeError and ValueError for what is of another type.
    """
    if not isinstance(record, dict):
        raise TypeError(f"{kind.__name__} is no record")
    hints = get_type_hints(kind)
    names = {field.name: renamed.get(field.name, field.name) for field in fields(kind)}
    return kind(**{own: typed(hints[own], record[name], name) for own, name in names.items()})


def typed(hint: Any, value: Any, name: str) -> Any:
    """`value` if it is what the annotation says, in the annotation's own types."""
    if is_dataclass(hint):
        return made(hint, value)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(typed(arguments[0], each, name) for each in value)
    if origin is not None and origin is not tuple and isinstance(value, dict):
        return {key: typed(arguments[1], each, name) for key, each in value.items()}
    if hint is Any and isinstance(value, str | int | float | bool | None):
        return value
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is hint and not (hint is int and abs(value) > _LARGEST):
        return value
    raise TypeError(f"`{name}` is of another type")
