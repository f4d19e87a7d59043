"""Files of other tools' figures for layers: read and checked, not yet matched with a network.

Read are CNNParted's layer tables (`No.;Layer;Latency [ms];Energy [mJ]`) and Timeloop's
`timeloop-mapper.stats.txt` (its Summary Stats), one file for each layer.
"""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

from afpjax.hardware.schema import need
from afpjax.inputs.errors import quoted
from afpjax.inputs.files import CSV, parsed, read_text

LAYER_COLUMN, LATENCY_COLUMN, ENERGY_COLUMN = "Layer", "Latency [ms]", "Energy [mJ]"


class LayerRow(NamedTuple):
    """One layer's cost for one image."""

    name: str
    latency_ms: float
    energy_mj: float


class TimeloopStats(NamedTuple):
    """One layer's summary as Timeloop printed it."""

    cycles: int
    energy_uj: float
    utilization: float  # active lanes / all lanes
    computes: int

    def row(self, name: str, *, clock_mhz: float) -> LayerRow:
        """The layer's cost at a clock (Timeloop counts cycles only)."""
        return LayerRow(name, self.cycles / (clock_mhz * 1e3), self.energy_uj * 1e-3)


def read_layer_table(path: Path) -> tuple[LayerRow, ...]:
    """CNNParted's table, in its order. InputError: unreadable, a column missing, a bad number."""
    return parsed(path, "layer_table", CSV, lambda content: _layer_rows(content, path))


def _layer_rows(content: bytes, path: Path) -> tuple[LayerRow, ...]:
    lines = csv.DictReader(content.decode("utf-8-sig").splitlines(), delimiter=";")
    columns = [(name or "").strip() for name in lines.fieldnames or ()]
    for name in (LAYER_COLUMN, LATENCY_COLUMN, ENERGY_COLUMN):
        need(
            name in columns,
            f"layer_table: {path}: no column `{name}`; "
            "give a table `No.;Layer;Latency [ms];Energy [mJ]`",
        )
    lines.fieldnames = columns
    rows = tuple(
        LayerRow(
            (line[LAYER_COLUMN] or "").strip(),
            _cost(line[LATENCY_COLUMN], path, lines.line_num, LATENCY_COLUMN),
            _cost(line[ENERGY_COLUMN], path, lines.line_num, ENERGY_COLUMN),
        )
        for line in lines
    )
    need(len(rows) > 0, f"layer_table: {path}: the table has no rows")
    return rows


def read_timeloop_stats(path: Path) -> TimeloopStats:
    """The Summary Stats of `timeloop-mapper.stats.txt`. InputError: unreadable, a line missing."""
    _, found, summary = read_text(path, "", CSV).partition("Summary Stats")
    need(bool(found), f"{path.name}: no `Summary Stats`; give Timeloop's stats.txt")
    number = r"([-+.\deE]+)"
    return TimeloopStats(
        cycles=round(_summary(summary, rf"^Cycles:\s*{number}\s*$", "Cycles", path)),
        energy_uj=_summary(summary, rf"^Energy:\s*{number}\s*uJ\s*$", "Energy in uJ", path),
        utilization=_summary(summary, rf"^Utilization:\s*{number}\s*(%?)", "Utilization", path),
        # Older versions say MACCs.
        computes=round(
            _summary(summary, rf"^\s*(?:Computes|MACCs)\s*=\s*{number}\s*$", "Computes", path)
        ),
    )


def _cost(text: str | None, path: Path, line: int, column: str) -> float:
    """A cost is a finite number >= 0: a table with a negative latency has been published."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    good = math.isfinite(value) and value >= 0
    need(
        good,
        f"layer_table: {path}, line {line}: `{column}` is {quoted(text)}: "
        "give a number, zero or more",
    )
    return value


def _summary(summary: str, pattern: str, what: str, path: Path) -> float:
    found = re.search(pattern, summary, flags=re.MULTILINE)
    try:
        value = float(found.group(1)) if found else math.nan
    except ValueError:
        value = math.nan
    good = math.isfinite(value) and value >= 0
    need(good, f"{path.name}: no `{what}` of zero or more under Summary Stats")
    percent = found is not None and found.groups()[1:] == ("%",)
    return value / 100 if percent else value
