"""One setting: reading, refusing, and writing it."""

import tomllib
from typing import Annotated, Any

import pytest
from pydantic.dataclasses import dataclass

from afpjax.config.settings import (
    STRICT,
    Many,
    OneOf,
    Pixels,
    Range,
    Text,
    from_words,
    range_text,
    read,
    setting,
    settings_of,
    toml_value,
)
from afpjax.inputs.errors import InputError, listed, nearest

BIG = Range(-(10**30), 10**30)


@dataclass(frozen=True, config=STRICT)
class Section:
    whole: Annotated[int, BIG] = setting(0, "any whole number")
    number: Annotated[float, Range(0.01, 0.5)] = setting(0.1, "a number")
    switch: bool = setting(True, "a switch")
    text: Text = setting("", "any text")
    kind: Annotated[str, OneOf("fixed", "float32", "bfloat16")] = setting("fixed", "a word")
    shares: Annotated[Many[float], Range(0, 1)] = setting((), "shares")
    bits: Many[int] = setting((), "bits")
    layers: Many[int | Text] = setting((), "names and numbers")
    size: Annotated[Pixels, Range(0, 64)] = setting(32, "a size")


def value_of(key: str, value: object) -> Any:
    return getattr(read(Section, {key: value}, {key: "here"}), key)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("whole", 2**80, 2**80),
        ("number", 0.5, 0.5),
        ("switch", False, False),
        ("text", "x", "x"),
        ("shares", 0.5, (0.5,)),
        ("shares", [0, 1.0], (0.0, 1.0)),
        ("shares", [], ()),
        ("layers", [4, "conv1"], (4, "conv1")),
        ("size", 49, 49),
        ("size", [49, 49], 49),
        ("size", [49, 10], (49, 10)),
        ("size", (10, 49), (10, 49)),
    ],
)
def test_reads_what_fits(key, value, expected):
    found = value_of(key, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("whole", "3", 'needs a whole number, got "3"'),
        ("whole", 3.0, "needs a whole number, got 3.0"),
        ("whole", True, "needs a whole number, got true"),
        ("whole", -(10**1000), "-1000"),
        ("switch", 1, "needs true or false, got 1"),
        ("text", 1, "needs text, got 1"),
        ("text", "x\ny", "needs plain UTF-8 text, got 'x\\ny'"),
        ("text", "a\udcff", "needs plain UTF-8 text, got 'a\\udcff'"),
        ("kind", "float", 'no choice "float", use fixed, float32 or bfloat16; did you mean `f'),
        ("layers", ["x", 0.5], "needs a whole number or text, got 0.5"),
        ("shares", [0.5, 1.5], "1.5 is outside [0, 1]"),
        ("shares", 1e-320, "1e-320 is nearer to 0 than 1e-30"),
        ("number", 0, "0.0 is outside [0.01, 0.5]"),
        ("number", float("nan"), "needs a finite number, got nan"),
        ("number", 10**400, "needs a finite number, got inf"),
        ("size", [], "needs one number, or two, rows and columns; got 0"),
        ("size", [1, 2, 3], "needs one number, or two, rows and columns; got 3"),
        ("size", [49, 1.5], "needs a whole number, got 1.5"),
        ("size", [49, -1], "-1 is outside [0, 64]"),
    ],
)
def test_refuses_what_does_not_fit(key, value, message):
    with pytest.raises(InputError) as caught:
        value_of(key, value)
    assert str(caught.value).startswith(f"here: {message}")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["-3"], "whole", -3),
        (["3"], "text", "3"),
        (["1e-3"], "number", 0.001),
        (["-1e-3", "0.5"], "shares", [-0.001, 0.5]),
        (["1,2", "3", ",4,"], "bits", [1, 2, 3, 4]),
        ([""], "shares", []),
        (["conv1,conv2", "3"], "layers", ["conv1", "conv2", 3]),
        (["49", "10"], "size", [49, 10]),
        (["a,b"], "text", "a,b"),
        (["false"], "switch", False),
        ([], "switch", True),
        (["yes"], "switch", "yes"),
        (["9" * 5000], "whole", "9" * 5000),
    ],
)
def test_words_become_what_a_file_would_have_given(words, key, expected):
    found = from_words(words, settings_of(Section)[key])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    ["", "plain", 'q"uo\\te', "é – 中", "#[x]", "a\x7fb", True, 0, -(2**40), 0.1, 1e300, 5e-324],
)
def test_toml_value_reads_back(value):
    assert tomllib.loads(f"x = {toml_value([value])}")["x"] == [value]


def test_ranges_and_names_in_words():
    assert range_text(Range(0.0, 1.0)) == "0 to 1"
    assert range_text(Range(1e-9, 10**12)) == "1e-09 to 1e+12"
    assert range_text(Range(0, 2**32 - 1)) == "0 to 4294967295"
    assert range_text(None) == ""
    assert nearest("populaton", ["population", "generations"]) == "; did you mean `population`?"
    assert nearest("xyz", ["population"]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"
