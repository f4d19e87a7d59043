"""Every number of an experiment has two ends, and what lies beyond them is refused in one line."""

import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from afpjax.config.config import all_settings, load, sections
from afpjax.config.settings import SMALLEST
from afpjax.inputs.errors import InputError
from afpjax.run import main

NUMBERS = [name for name, s in all_settings().items() if {int, float} & {*s.types}]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_two_ends_which_are_taken_and_nothing_beyond_them(name):
    """faults.trials = 1e23 was a traceback, online.theta = 1e-320 took all memory."""
    setting = all_settings()[name]
    section, _, key = name.partition(".")
    assert setting.range is not None and setting.range.low < setting.range.high <= 10**15
    low, high = setting.range.low, setting.range.high
    kind = sections()[section]
    for end in (low, high):
        values: dict[str, object] = {"bits": 16} if name == "format.frac" else {}
        values |= {"path": "x", "resize": 16384} if section == "data" else {}
        try:
            found = getattr(kind(**values | {key: end}), key)
        except ValidationError as error:  # what must go with others
            assert f" {section}." in str(error)
        else:
            assert found in (end, (end,))
    draw = random.Random(name)
    beyond = [high + 1, high * 1000 + 1, low - 1, -(10**23), 10**400]
    if float in setting.types:
        tiny = SMALLEST * draw.uniform(0.0, 0.99)
        beyond += [1e23, -1e300, float("inf"), float("nan"), 1e-320, -1e-320, tiny]
    for value in beyond:
        with pytest.raises(InputError, match=f"^--{name}: .{{1,99}} is (outside|nearer)|finite"):
            load(None, {name: value})


@pytest.mark.parametrize(
    "words",
    [
        ("profile", "--model.name", "vgg16_bn", "--model.width", "16"),
        ("campaign", "--model.name", "alexnet", "--model.image_size", "64", "--model.width", "16"),
        ("importance", "--model.image_size", "16384"),
    ],
)
def test_what_no_memory_holds_is_refused_with_its_estimate(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--out", "run"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "GB" in line and not list(Path().iterdir())
