"""Every number of an experiment has two ends, and what lies beyond them is refused in one line."""

import random
from pathlib import Path

import pytest

from afpjax.config.config import all_settings, load
from afpjax.config.settings import SMALLEST, item_types
from afpjax.inputs.errors import InputError
from afpjax.run import main

NUMBERS = [name for name, (kind, _) in all_settings().items() if {int, float} & {*item_types(kind)}]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_both_ends(name):
    _, rule = all_settings()[name]
    assert rule.low is not None and rule.high is not None and rule.low < rule.high <= 10**15


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_beyond_the_ends_are_refused(name):
    """faults.trials = 1e23 was a traceback, online.theta = 1e-320 took all memory."""
    kind, rule = all_settings()[name]
    assert rule.low is not None and rule.high is not None
    draw = random.Random(name)
    beyond = [rule.high + 1, rule.high * 1000 + 1, rule.low - 1, -(10**23), 10**400]
    if float in item_types(kind):
        tiny = SMALLEST * draw.uniform(0.0, 0.99)
        beyond += [1e23, -1e300, float("inf"), float("nan"), 1e-320, -1e-320, tiny]
    for value in beyond:
        with pytest.raises(InputError, match=f"^--{name}: .{{1,99}} is (outside|nearer)|finite"):
            load(None, {name: [value] if kind not in (int, float) else value})


@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_themselves_are_taken(name):
    from afpjax.config.settings import read_value

    kind, rule = all_settings()[name]
    for end in (rule.low, rule.high):
        read = read_value(end, kind, rule, name)
        assert read == end or read == (end,)


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
