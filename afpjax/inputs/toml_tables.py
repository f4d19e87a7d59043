"""TOML tables become frozen dataclasses, or an error that a person can act on.

    @table
    class Array:
        rows: PositiveInt
        columns: PositiveInt

A field's type says everything about its key: what it may be, and within which limits.
"""

import dataclasses
from functools import wraps
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from afpjax.inputs.errors import InputError, nearest, quoted

T = TypeVar("T")

# Whole numbers up to here are floats too, and products of two stay within what NumPy can count.
_INT = Field(strict=True, le=10**12)

PositiveInt = Annotated[int, _INT, Field(gt=0)]
NonNegativeInt = Annotated[int, _INT, Field(ge=0)]
#: Finite numbers; a whole number is taken for a number.
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
PositiveOrInfinite = Annotated[float, Field(strict=True, gt=0)]
#: A chance per bit, or per packet.
Rate = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(strict=True, min_length=1)]

_WANTED = {
    "int_type": "give a whole number",
    "float_type": "give a number",
    "string_type": "give a text in quotes",
    "bool_type": "give true or false",
    "finite_number": "give a finite number",
    "string_too_short": "give it a text",
}


@dataclass_transform(frozen_default=True)
def table(kind: type[T]) -> type[T]:
    """A frozen dataclass whose values are checked as it is made, by pydantic.

    Raises `InputError` for a value that cannot be, and for keys that are unknown or missing.
    """
    made: Any = dataclass(kind, frozen=True, config=ConfigDict(extra="forbid"))
    unchecked = made.__init__

    @wraps(unchecked)
    def checked(self: Any, /, *values: Any, **named: Any) -> None:
        try:
            unchecked(self, *values, **named)
        except ValidationError as error:
            raise InputError(_described(error, made)) from None

    made.__init__ = checked
    return made


def from_table(kind: type[T], values: dict[str, Any], where: str) -> T:
    """A `table` filled from a TOML table, sub-tables into tables; `where` opens its errors."""
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def need(holds: bool, message: str) -> None:
    """InputError with this message unless it holds."""
    if not holds:
        raise InputError(message)


def _described(error: ValidationError, kind: Any) -> str:
    """The first thing that pydantic found wrong, in one line: `[array]: `rows` is 0: …`."""
    errors: list[Any] = error.errors(include_url=False)
    unknown = [problem for problem in errors if problem["type"] == "unexpected_keyword_argument"]
    first = (unknown or errors)[0]  # of a misspelt key, that it is missing tells less
    *path, key = first["loc"] or ("",)
    if first["type"] == "value_error":  # of a check of ours, which says what it is about
        sections, what = first["loc"], str(first["ctx"]["error"])
    else:
        sections, what = path, _problem(first, str(key), _table_at(kind, path))
    return "".join(f"[{section}]: " for section in sections) + what


def _table_at(kind: Any, path: list[Any]) -> Any:
    for name in path:
        kind = next(field.type for field in dataclasses.fields(kind) if field.name == name)
    return kind


def _problem(error: Any, key: str, kind: Any) -> str:
    """What is wrong with one key of a table."""
    match error["type"]:
        case "unexpected_keyword_argument":
            known = [field.name for field in dataclasses.fields(kind)]
            hint = nearest(key, known) or f"; known are {', '.join(known)}"
            return f"unknown key `{key}`{hint}"
        case "missing":
            return f"key `{key}` is missing"
        case "dataclass_type":
            return f"`{key}` must be a table, [{key}]"
        case "greater_than":
            wanted = f"give more than {error['ctx']['gt']:g}"
        case "greater_than_equal":
            wanted = f"give {error['ctx']['ge']:g} or more"
        case "less_than_equal":
            wanted = f"give {error['ctx']['le']:.15g} at most"
        case "literal_error":
            wanted = f"give {error['ctx']['expected']}"
        case other:
            wanted = _WANTED.get(other, error["msg"])
    return f"`{key}` is {quoted(error['input'])}: {wanted}"
