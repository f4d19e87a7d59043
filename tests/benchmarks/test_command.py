"""`python -m benchmarks`: what it refuses, and what it makes of a measure."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from afpjax.network import compiler
from benchmarks import __main__ as command
from benchmarks import rivals
from benchmarks.agreement import Disagrees
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def add_measure(monkeypatch):
    """Adds a measure of the given name and function."""
    monkeypatch.setattr(compiler, "keep_memory", lambda: None, raising=False)

    def add(name, measure):
        module = ModuleType(f"benchmarks.{name}")
        vars(module)["measure"] = measure
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(command.MEASURES, name, "for a test")

    return add


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("throughputs", "no measure `throughputs`; there are throughput, single, "),
        ("nsga2 nothing", "no measure `nothing`; there are "),
        ("--repeat 0 nsga2", "--repeat: 0 rounds; give at least 1"),
        ("--repeat few", "argument --repeat: invalid int value: 'few'"),
        ("--out nowhere/at/all.json", "--out nowhere/at/all.json: there is no such folder"),
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, words, line):
    try:
        status = command.main(words.split())
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr()
    assert status == 2 and said.out == ""
    assert said.err.startswith(f"benchmarks: error: {line}") and said.err.count("\n") == 1


@pytest.mark.parametrize("name", command.MEASURES)
def test_every_measure_can_be_imported_without_its_rivals(name):
    assert callable(import_module(f"benchmarks.{name}").measure)


def test_rows_and_notes_reach_the_screen_and_the_file(add_measure, tmp_path, capsys):
    def measure(effort):
        assert (effort.rounds, effort.quick) == (5, True)
        yield "somebody is not installed"
        yield Row("a figure", 4.5, "9/s", "2/s", 3, 5)

    add_measure("fake", measure)
    out = tmp_path / "out.json"
    assert command.main(["fake", "fake", "--quick", "--repeat", "5", "--out", str(out)]) == 0
    said, read = capsys.readouterr(), json.loads(out.read_text())
    assert said.err.startswith("benchmarks: somebody is not installed\n")
    assert "a figure" in said.out and "4.5" in said.out
    assert read["notes"][0] == "somebody is not installed"
    assert [row["ratio"] for row in read["measures"]["fake"]] == [4.5]
    assert read["machine"]["rounds"] == 5 and read["machine"]["versions"]["jax"]


def test_our_own_wrong_answers_are_status_1_and_others_are_still_measured(
    add_measure, tmp_path, capsys
):
    def wrong(effort):
        yield from ()
        raise Disagrees("3 of 8 images get another class")

    add_measure("wrong", wrong)
    add_measure("right", lambda effort: iter([Row("a figure", 1.0, "")]))
    out = tmp_path / "out.json"
    assert command.main(["wrong", "right", "--out", str(out)]) == 1
    assert "3 of 8 images get another class" in capsys.readouterr().err
    assert json.loads(out.read_text())["measures"]["right"]


def test_a_missing_rival_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"no {name}", name="torch.nn")

    monkeypatch.setattr(rivals, "import_module", missing)
    with pytest.raises(
        rivals.NotInstalled, match=r"^torch is not installed: .*`plain`.* pip install -e"
    ):
        rivals.load("plain")


def test_a_mistake_in_a_rivals_module_is_not_taken_for_a_missing_package():
    with pytest.raises(ModuleNotFoundError):
        rivals.load("no_such_rival")
