"""What was measured, as a table for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.timing import Timing, speedup


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, usually a ratio, and what it has to be."""

    measure: str
    ratio: float
    ours: str
    rival: str = ""
    required: float | None = None
    aim: float | None = None
    less: bool = False  # whether less is better
    unit: str = ""  # of `ratio`, where it is none
    figures: Mapping[str, Any] = field(default_factory=dict)  # more for the JSON file

    @property
    def verdict(self) -> str:
        """Which limit the figure keeps: "aim", "required", "missed", or "" where there is none."""
        for name, limit in (("aim", self.aim), ("required", self.required)):
            if limit is not None and (self.ratio <= limit if self.less else self.ratio >= limit):
                return name
        return "missed" if self.required is not None or self.aim is not None else ""


def versus(
    measure: str,
    ours: Timing,
    rival: Timing,
    unit: str,
    required: float | None = None,
    aim: float | None = None,
) -> Row:
    """How many times faster ours is than a rival, with both rates in units per second."""
    return Row(
        measure,
        speedup(ours, rival),
        f"{number(ours.rate)} {unit}/s",
        f"{number(rival.rate)} {unit}/s",
        required,
        aim,
        figures={"ours": ours.figures(), "rival": rival.figures()},
    )


def number(value: float) -> str:
    """Three digits, without an exponent where a person would write none."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


_COLOURS = {"aim": "green", "required": "yellow", "missed": "red", "": "default"}


def table(title: str, rows: Sequence[Row]) -> Table:
    """The rows for a terminal; a ratio is green at its aim, yellow at what is required."""
    made = Table(title=title, title_justify="left")
    made.add_column("measure", ratio=1)
    for name in ("rival's", "ours", "ratio", "required", "aim"):
        made.add_column(name, justify="right")
    for row in rows:
        colour, unit = _COLOURS[row.verdict], f" {row.unit}" if row.unit else ""
        figure = f"[{colour}]{number(row.ratio)}{unit}[/]"
        made.add_row(
            row.measure, row.rival, row.ours, figure, _limit(row, "required"), _limit(row, "aim")
        )
    return made


def _limit(row: Row, name: str) -> str:
    limit = getattr(row, name)
    return "" if limit is None else f"{'≤' if row.less else '≥'} {number(limit)}"


def as_json(
    machine: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], notes: Sequence[str]
) -> str:
    """Machine, notes, and the rows of each measure by its name."""
    measures = {
        name: [asdict(row) | {"verdict": row.verdict} for row in found]
        for name, found in rows.items()
    }
    whole = {"machine": machine, "notes": list(notes), "measures": measures}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: Path, text: str) -> None:
    """Whole or not at all: a run that is stopped leaves the measures before it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
