"""One setting of an experiment: what it may be, and errors that say how to mend it."""

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_args, get_origin

from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import ImageSize, image_size

T = TypeVar("T")

SMALLEST = 1e-30  # of a number that is not 0: float32 has nothing normal below 1.2e-38
_WANTED = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Rule:
    """What a setting may be, beside its type."""

    help: str  # meaning, unit and allowed values, as `--help` shows them
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[str, ...] = ()
    path: bool = False  # a leading `~` is the user's home folder, `$NAME` an environment variable
    empty: str = "none"  # what an empty value means, as `--help` shows it
    metavar: str = ""  # what stands for the value in `--help`, where the type does not say it


def setting(default: T, help: str, **limits: Any) -> T:
    """A dataclass field with its `Rule`; typed as its default, so that checkers are content."""
    return cast(T, field(default=default, metadata={"rule": Rule(help, **limits)}))


def is_list(kind: Any) -> bool:
    """Whether a setting of this annotated type may hold several values."""
    return kind == ImageSize or get_origin(kind) is tuple


def item_types(kind: Any) -> tuple[type, ...]:
    """The types that one value of this setting may have: `tuple[int | str, ...]` -> (int, str)."""
    if kind == ImageSize:
        return (int,)
    item = get_args(kind)[0] if is_list(kind) else kind
    return get_args(item) or (item,)


def read_value(value: object, kind: Any, rule: Rule, where: str) -> Any:
    """`value` as the setting's type, or an `InputError` that names `where`.

    A whole number is taken for a number, and a bare value for a list of one; the size of an image
    is one number or two.
    """
    if not is_list(kind):
        return _read_item(value, item_types(kind), rule, where)
    items = value if isinstance(value, (list, tuple)) else [value]
    found = tuple(_read_item(item, item_types(kind), rule, where) for item in items)
    if kind != ImageSize:
        return found
    if len(found) not in (1, 2):
        raise InputError(f"{where}: needs one number, or two, rows and columns; got {len(found)}")
    return image_size(found[0], found[-1])


def from_words(words: Sequence[str], kind: Any) -> object:
    """The command line's words as a TOML file would have given them; what fits no type stays text.

    A list's values stand in words of their own or with commas between; an empty word is no value.
    A single value is the first word, and a switch without words is true. `read_value` then
    refuses what does not belong, in the same words for both.
    """
    if is_list(kind):
        values = [value.strip() for word in words for value in word.split(",")]
        return [_from_word(value, item_types(kind)) for value in values if value]
    if not words and kind is bool:
        return True
    return _from_word(words[0], item_types(kind))


def expanded(path: str) -> str:
    """The path with a leading `~` and environment variables filled in, where they are set."""
    return os.path.expandvars(os.path.expanduser(path)) if path[:1] in ("~", "$") else path


def unset_variable(path: str) -> str:
    """The environment variable that an expanded path still begins with, or nothing."""
    found = re.match(r"\$\{?(\w+)", path)
    return found[1] if found else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean \\`x\\`?` with the known word that is most like this one, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{found[0]}`?" if found else ""


def listed(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def toml_value(value: object) -> str:
    """A setting's value as TOML writes it, so that it reads back equal."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _read_item(value: object, types: tuple[type, ...], rule: Rule, where: str) -> Any:
    # bool is a subclass of int in Python, never in an experiment file.
    fits = type(value) in types or (type(value) is int and float in types)
    if not fits:
        wanted = listed(_WANTED[each] for each in types)
        raise InputError(f"{where}: needs {wanted}, got {_shown(value)}")
    if isinstance(value, str):
        return _read_text(value, rule, where)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = _as_float(value) if float in types else value
        _check_range(number, rule, where)
        return number
    return value


def _read_text(value: str, rule: Rule, where: str) -> str:
    # Python gives bytes of the command line that are no UTF-8 as lone surrogates.
    if any(ord(each) < 32 or ord(each) == 127 or 0xD800 <= ord(each) < 0xE000 for each in value):
        raise InputError(f"{where}: needs plain UTF-8 text, got {value!a}")
    if rule.choices and value not in rule.choices:
        hint = nearest(value, rule.choices)
        raise InputError(f"{where}: no choice {_shown(value)}, use {listed(rule.choices)}{hint}")
    return expanded(value) if rule.path else value


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def _check_range(value: int | float, rule: Rule, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: needs a finite number, got {value}")
    if isinstance(value, float) and 0 < abs(value) < SMALLEST:
        raise InputError(
            f"{where}: {_shown(value)} is nearer to 0 than {SMALLEST:g}, the least that single "
            "precision is sure to hold; give 0, or more than that"
        )
    low, high = (-math.inf if rule.low is None else rule.low), rule.high
    if not low <= value <= (math.inf if high is None else high):
        raise InputError(f"{where}: {_shown(value)} is outside {_limits(rule)}")


def _limits(rule: Rule) -> str:
    low, high = ("" if each is None else _plain(each) for each in (rule.low, rule.high))
    return f"[{low}, {high}]"


def range_text(rule: Rule) -> str:
    """The allowed range in words, `0 to 1`; empty where anything goes."""
    if rule.low is None or rule.high is None:
        return ""
    return f"{_plain(rule.low)} to {_plain(rule.high)}"


def _plain(number: int | float) -> str:
    if number != int(number):
        return repr(number)
    short = f"{number:g}"
    return short if abs(number) >= 1e9 and float(short) == number else str(int(number))


def _from_word(word: str, types: tuple[type, ...]) -> object:
    if bool in types and word in ("true", "false"):
        return word == "true"
    for each in (int, float):
        if each in types or (each is int and float in types):
            try:
                return each(word)
            except ValueError:
                continue
    return word


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, (str, bool, int, float)):
        text = toml_value(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return str(value)  # TOML's dates and times
