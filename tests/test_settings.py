"""One setting: reading, refusing, and writing it."""

import tomllib

import pytest

from afpjax.config.settings import (
    Rule,
    from_words,
    listed,
    nearest,
    range_text,
    read_value,
    toml_value,
)
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import ImageSize

NUMBERS = tuple[float, ...]
SHARE = Rule("a share", low=0.0, high=1.0)
ANY = Rule("anything")


@pytest.mark.parametrize(
    ("value", "kind", "rule", "expected"),
    [
        (3, int, ANY, 3),
        (3, float, ANY, 3.0),
        (True, bool, ANY, True),
        ("x", str, ANY, "x"),
        (0.5, NUMBERS, SHARE, (0.5,)),
        ([0, 1.0], NUMBERS, SHARE, (0.0, 1.0)),
        ([], NUMBERS, SHARE, ()),
        ([4, "conv1"], tuple[int | str, ...], ANY, (4, "conv1")),
        (2**80, int, Rule("big", low=0), 2**80),
        (49, ImageSize, ANY, 49),
        ([49], ImageSize, ANY, 49),
        ([49, 49], ImageSize, ANY, 49),
        ([49, 10], ImageSize, ANY, (49, 10)),
        ((10, 49), ImageSize, ANY, (10, 49)),
    ],
)
def test_reads_what_fits(value, kind, rule, expected):
    found = read_value(value, kind, rule, "here")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "rule", "message"),
    [
        ("3", int, ANY, 'here: needs a whole number, got "3"'),
        (3.0, int, ANY, "here: needs a whole number, got 3.0"),
        (True, int, ANY, "here: needs a whole number, got true"),
        (1, bool, ANY, "here: needs true or false, got 1"),
        (1, str, ANY, "here: needs text, got 1"),
        ([1], int, ANY, "here: needs a whole number, got a list"),
        ({"a": 1}, str, ANY, "here: needs text, got a table"),
        (["x", 0.5], tuple[int | str, ...], ANY, "here: needs a whole number or text, got 0.5"),
        (1.5, NUMBERS, SHARE, "here: 1.5 is outside [0, 1]"),
        (-0.1, float, SHARE, "here: -0.1 is outside [0, 1]"),
        (0.0, float, Rule("", low=0.01, high=0.5), "here: 0.0 is outside [0.01, 0.5]"),
        (0.6, float, Rule("", low=0.01, high=0.5), "here: 0.6 is outside [0.01, 0.5]"),
        (-1, int, Rule("", low=0), "here: -1 is outside [0, ]"),
        (1e-320, float, SHARE, "here: 1e-320 is nearer to 0 than 1e-30"),
        (10**23, int, Rule("", low=1, high=10**6), "here: 1000000000000"),
        (float("nan"), float, ANY, "here: needs a finite number, got nan"),
        (10**400, float, ANY, "here: needs a finite number, got inf"),
        ([], ImageSize, ANY, "here: needs one number, or two, rows and columns; got 0"),
        ([1, 2, 3], ImageSize, ANY, "here: needs one number, or two, rows and columns; got 3"),
        ([49, 1.5], ImageSize, ANY, "here: needs a whole number, got 1.5"),
        ([49, -1], ImageSize, Rule("", low=0, high=64), "here: -1 is outside [0, 64]"),
        ("x\ny", str, ANY, "here: needs plain UTF-8 text, got 'x\\ny'"),
        ("a\udcff", str, ANY, "here: needs plain UTF-8 text, got 'a\\udcff'"),
    ],
)
def test_refuses_what_does_not_fit(value, kind, rule, message):
    with pytest.raises(InputError) as caught:
        read_value(value, kind, rule, "here")
    assert str(caught.value).startswith(message)


def test_a_wrong_choice_is_told_the_nearest_one():
    rule = Rule("", choices=("fixed", "float32", "bfloat16"))
    with pytest.raises(InputError, match=r"use fixed, float32 or bfloat16; did you mean `float32`"):
        read_value("float", str, rule, "format.kind")


def test_a_refusal_of_a_long_value_stays_short():
    with pytest.raises(InputError) as caught:
        read_value(-(10**1000), int, Rule("", low=0), "here")
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("words", "kind", "expected"),
    [
        (["3"], int, 3),
        (["-3"], int, -3),
        (["3"], str, "3"),
        (["1e-3"], float, 0.001),
        (["-1e-3", "0.5"], NUMBERS, [-0.001, 0.5]),
        (["1,2", "3", ",4,"], tuple[int, ...], [1, 2, 3, 4]),
        (["1, 2"], tuple[int, ...], [1, 2]),
        ([""], NUMBERS, []),
        (["conv1,conv2", "3"], tuple[int | str, ...], ["conv1", "conv2", 3]),
        (["49", "10"], ImageSize, [49, 10]),
        (["a,b"], str, "a,b"),
        (["false"], bool, False),
        ([], bool, True),
        (["yes"], bool, "yes"),
        (["x"], int, "x"),
        (["9" * 5000], int, "9" * 5000),
    ],
)
def test_words_become_what_a_file_would_have_given(words, kind, expected):
    found = from_words(words, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    ["", "plain", 'q"uo\\te', "é – 中", "#[x]", "a\x7fb", True, 0, -(2**40), 0.1, 1e300, 5e-324],
)
def test_toml_value_reads_back(value):
    assert tomllib.loads(f"x = {toml_value([value])}")["x"] == [value]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SHARE, "0 to 1"),
        (Rule("", low=1e-9, high=10**12), "1e-09 to 1e+12"),
        (Rule("", low=0, high=2**32 - 1), "0 to 4294967295"),
        (ANY, ""),
    ],
)
def test_range_in_words(rule, text):
    assert range_text(rule) == text


def test_nearest_and_listed():
    assert nearest("populaton", ["population", "generations"]) == "; did you mean `population`?"
    assert nearest("xyz", ["population"]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"
