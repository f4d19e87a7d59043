"""One setting of an experiment: what it may be, how it is read, and errors that say what to mend.

A section is a frozen dataclass of pydantic's, and a field of it says everything about a setting:

    bits: Annotated[Many[int], Range(0, 31)] = setting((0, 1, 2, 3), "bits that may flip")

A whole number is taken for a number, and a bare value for a list of one.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
)

from afpjax.config.jobs import When
from afpjax.inputs.errors import InputError, listed, nearest
from afpjax.inputs.image_size import ImageSize, image_size

T = TypeVar("T")

#: How sections are read: no value is turned into another type, no unknown key is taken.
STRICT = ConfigDict(strict=True, extra="forbid")
SMALLEST = 1e-30  # of a number that is not 0: float32 has nothing normal below 1.2e-38
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
}


class _Limit:
    """What every value of a setting is held against, one by one."""

    def refuse(self, value: Any) -> None:
        """Raise ValueError for a value that cannot be."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def checked(value: Any) -> Any:
            for item in value if isinstance(value, tuple) else (value,):
                self.refuse(item)
            return value

        function = {"type": "no-info", "function": checked}
        return {"type": "function-after", "function": function, "schema": handler(source)}


@dataclass(frozen=True)
class Range(_Limit):
    """The least and the greatest number that a setting may be, both included."""

    low: int | float
    high: int | float

    def refuse(self, value: Any) -> None:
        if not isinstance(value, int | float):
            return  # a name, where a number or a name may stand
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"needs a finite number, got {value}")
        if isinstance(value, float) and 0 < abs(value) < SMALLEST:
            raise ValueError(
                f"{_shown(value)} is nearer to 0 than {SMALLEST:g}, the least that single "
                "precision is sure to hold; give 0, or more than that"
            )
        if not self.low <= value <= self.high:
            raise ValueError(
                f"{_shown(value)} is outside [{_plain(self.low)}, {_plain(self.high)}]"
            )


@dataclass(frozen=True, init=False)
class OneOf(_Limit):
    """The words that a setting may be."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)

    def refuse(self, value: Any) -> None:
        if value not in self.words:
            hint = nearest(value, self.words)
            raise ValueError(f"no choice {_shown(value)}, use {listed(self.words)}{hint}")


def _several(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _sides(numbers: tuple[int, ...]) -> ImageSize:
    if len(numbers) not in (1, 2):
        raise ValueError(f"needs one number, or two, rows and columns; got {len(numbers)}")
    return image_size(numbers[0], numbers[-1])


def _plain_text(value: object) -> object:
    # Python gives bytes of the command line that are no UTF-8 as lone surrogates.
    if isinstance(value, str) and re.search("[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise ValueError(f"needs plain UTF-8 text, got {value!a}")
    return value


def _followed(path: str) -> str:
    followed = expanded(path)
    if unset := re.match(r"\$\{?(\w+)", followed):
        raise ValueError(
            f"{path} needs the environment variable {unset[1]}, which is not set; set it to the "
            "folder that it stands for, or give --{name} yourself"
        )
    return followed


Many = Annotated[tuple[T, ...], BeforeValidator(_several)]
Text = Annotated[str, BeforeValidator(_plain_text)]
#: A leading `~` is the user's home folder, and a leading `$NAME` an environment variable.
FilePath = Annotated[Text, AfterValidator(_followed)]
#: One number for a square image, or two, rows and columns.
Pixels = Annotated[
    ImageSize,
    GetPydanticSchema(
        lambda _, handler: handler.generate_schema(
            Annotated[Many[int], AfterValidator(_sides)]  # pyright: ignore[reportArgumentType]
        )
    ),
]


def setting(
    default: Any, help: str, *, empty: str = "none", metavar: str = "", when: Sequence[When] = ()
) -> Any:
    """A field of a section: its default, and its meaning and unit as `--help` shows them.

    `empty` is what an empty value means; `metavar` stands for the value in the help where the type
    does not say it; all of `when` must hold for the setting to matter, whatever the job.
    """
    extra: dict[str, Any] = {"empty": empty, "metavar": metavar, "when": tuple(when)}
    return Field(default, description=help, json_schema_extra=extra)


class Setting(NamedTuple):
    """What a section says of one of its fields."""

    default: Any
    help: str
    types: tuple[type, ...]  # that a value may have: `Many[int | str]` -> (int, str)
    many: bool  # several values may stand in a list
    range: Range | None
    choices: tuple[str, ...]
    empty: str
    metavar: str
    when: tuple[When, ...]

    @property
    def is_size(self) -> bool:
        """Whether it is an image's size, one number or two."""
        return self.many and not isinstance(self.default, tuple)


def settings_of(section: type[Any]) -> dict[str, Setting]:
    """Key -> setting, in the order of the file."""
    return {key: _setting_of(field) for key, field in section.__pydantic_fields__.items()}


def _setting_of(field: Any) -> Setting:
    kind = field.annotation
    size = kind == ImageSize
    many = size or get_origin(kind) is tuple
    item = int if size else _bare(get_args(kind)[0] if many else kind)
    types = tuple(map(_bare, get_args(item) or (item,)))
    limits = {type(limit): limit for limit in field.metadata}
    choices = limits[OneOf].words if OneOf in limits else ()
    extra = field.json_schema_extra
    return Setting(
        field.default, field.description, types, many, limits.get(Range), choices, **extra
    )


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def read(
    kind: Callable[..., T],
    values: Mapping[str, Any],
    said: Mapping[str, str] = MappingProxyType({}),
) -> T:
    """`kind(**values)`; what pydantic refuses is an `InputError`.

    `said[key]` is where a value was said, `FILE: section.key` or `--section.key`. What values are
    together says itself which they are.
    """
    try:
        return kind(**values)
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
    location = errors[0]["loc"]
    text = _said([error for error in errors if error["loc"][:2] == location[:2]])
    if not location or not said:
        raise InputError(text)
    where = said[str(location[0])]
    name = where.rpartition(" ")[2].lstrip("-")
    raise InputError(f"{where}: {text}".replace("{name}", name))


def _said(errors: Sequence[Any]) -> str:
    """What is wrong with one value; each type that it may have has an error of its own."""
    for error in errors:
        if error["type"] == "value_error":
            return str(error["ctx"]["error"])
    value = errors[0]["input"]
    if type(value) is int and errors[0]["type"] == "float_type":  # of more than 308 digits
        return "needs a finite number, got inf"
    return f"needs {listed(_WANTED[error['type']] for error in errors)}, got {_shown(value)}"


def from_words(words: Sequence[str], setting: Setting) -> object:
    """The command line's words as a TOML file would have given them; what fits no type stays text.

    A list's values stand in words of their own or with commas between; an empty word is no value.
    A single value is the first word, and a switch without words is true. What does not belong is
    refused later, in the same words for both.
    """
    if setting.many:
        values = [value.strip() for word in words for value in word.split(",")]
        return [_from_word(value, setting.types) for value in values if value]
    if not words and setting.types == (bool,):
        return True
    return _from_word(words[0], setting.types)


def _from_word(word: str, types: tuple[type, ...]) -> object:
    if bool in types and word in ("true", "false"):
        return word == "true"
    for number in (int, float):
        if number in types or float in types:
            try:
                return number(word)
            except ValueError:
                continue
    return word


def expanded(path: str) -> str:
    """The path with a leading `~` and environment variables filled in, where they are set."""
    return os.path.expandvars(os.path.expanduser(path)) if path[:1] in ("~", "$") else path


def toml_value(value: object) -> str:
    """A setting's value as TOML writes it, so that it reads back equal."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def range_text(limits: Range | None) -> str:
    """The allowed range in words, `0 to 1`; empty where anything goes."""
    return f"{_plain(limits.low)} to {_plain(limits.high)}" if limits else ""


def _plain(number: int | float) -> str:
    if number != int(number):
        return repr(number)
    short = f"{number:g}"
    return short if abs(number) >= 1e9 and float(short) == number else str(int(number))


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str | bool | int | float):
        text = toml_value(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return str(value)  # TOML's dates and times


def refuse_repeated(section: Any, name: str, *keys: str) -> None:
    """Raise `InputError` where a list of the section `name` has a value twice."""
    for key in keys:
        values = getattr(section, key)
        if len(set(values)) < len(values):
            raise InputError(f"{name}.{key}: list each once, got {toml_value(values)}")
