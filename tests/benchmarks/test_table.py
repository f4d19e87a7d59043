"""Rows, their verdicts, and what is written of them."""

import io
import math

import pytest
from rich.console import Console

from benchmarks import table
from benchmarks.table import Row, as_json, number, versus
from benchmarks.timing import Timing


@pytest.mark.parametrize(
    ("ratio", "less", "verdict"),
    [
        (0.84, False, "missed"),
        (0.85, False, "required"),
        (0.95, False, "aim"),
        (0.96, True, "missed"),
        (0.95, True, "aim"),
    ],
)
def test_verdicts(ratio, less, verdict):
    limits = (0.95, 0.95) if less else (0.85, 0.95)
    assert Row("m", ratio, "", "", *limits, less=less).verdict == verdict


def test_no_verdict_without_limits_and_one_with_a_requirement_alone():
    assert Row("m", 0.4, "", required=0.5, aim=0.3, less=True).verdict == "required"
    assert Row("m", 1.0, "").verdict == ""
    assert Row("m", 30.0, "", required=25, less=True).verdict == "missed"
    assert Row("m", 20.0, "", required=25, less=True).verdict == "required"


@pytest.mark.parametrize(
    ("value", "text"), [(0.04567, "0.0457"), (12.34, "12.3"), (999.4, "999"), (23272.4, "23,272")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_versus_is_the_rivals_time_over_ours():
    row = versus("m", Timing("a", (0.5, 0.25), 1), Timing("b", (2.0, 2.0), 1), "images", 3, 9)
    assert row.ratio == pytest.approx(6)  # of 4 and 8
    assert (row.rival, row.ours) == ("0.5 images/s", "2.67 images/s")
    assert row.verdict == "required"
    assert row.figures["ours"]["best_per_second"] == 4


def test_the_table_shows_every_figure():
    rows = [
        Row("first of them", 3.21, "9 x/s", "3 x/s", 3, 5),
        Row("second", 1.9, "", required=2.5, less=True, unit="GB"),
    ]
    out = io.StringIO()
    Console(file=out, width=120).print(table.table("what", rows))
    for word in ("first of them", "9 x/s", "3 x/s", "3.21", "≥ 3", "≥ 5", "1.9 GB", "≤ 2.5"):
        assert word in out.getvalue()


def test_json_has_no_nan():
    with pytest.raises(ValueError):
        as_json({}, {"a": [Row("m", math.nan, "")]}, [])


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("before")
    table.write(path, "after")
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]
