"""Rows, their verdicts, and what is written of them."""

import io
import math

import pytest
from rich.console import Console

from benchmarks import table
from benchmarks.table import Row, as_json, versus
from benchmarks.timing import Timing


@pytest.mark.parametrize(
    ("ratio", "required", "aim", "less", "verdict"),
    [
        (0.84, 0.85, 0.95, False, "missed"),
        (0.85, 0.85, 0.95, False, "required"),
        (0.95, 0.85, 0.95, False, "aim"),
        (0.96, 0.95, 0.95, True, "missed"),
        (0.95, 0.95, 0.95, True, "aim"),
        (20.0, 25, None, True, "required"),
        (1.0, None, None, False, ""),
    ],
)
def test_verdicts(ratio, required, aim, less, verdict):
    assert Row("m", ratio, "", "", required, aim, less=less).verdict == verdict


def test_versus_is_the_rivals_time_over_ours():
    row = versus("m", Timing("a", (0.5, 0.25), 1), Timing("b", (2.0, 2.0), 1), "images", 3, 9)
    assert row.ratio == pytest.approx(6)  # of 4 and 8
    assert (row.rival, row.ours) == ("0.5 images/s", "2.67 images/s")
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
