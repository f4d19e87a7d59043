"""Other tools' figures for a device, in place of the built-in model's.

Read are CNNParted's layer tables (`No.;Layer;Latency [ms];Energy [mJ]`) and Timeloop's
`timeloop-mapper.stats.txt` (its Summary Stats), one file for each layer.
"""

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from afpjax.errors import InputError
from afpjax.hardware.schema import need
from afpjax.hardware.tables import CostTables
from afpjax.network.layers import LayerGraph

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
    lines = csv.DictReader(_read(path).splitlines(), delimiter=";")
    columns = [(name or "").strip() for name in lines.fieldnames or ()]
    for name in (LAYER_COLUMN, LATENCY_COLUMN, ENERGY_COLUMN):
        need(
            name in columns,
            f"{path.name}: no column `{name}`; give a table `No.;Layer;Latency [ms];Energy [mJ]`",
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
    need(len(rows) > 0, f"{path.name}: the table has no rows")
    return rows


def read_timeloop_stats(path: Path) -> TimeloopStats:
    """The Summary Stats of `timeloop-mapper.stats.txt`. InputError: unreadable, a line missing."""
    _, found, summary = _read(path).partition("Summary Stats")
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


def replace_column(
    tables: CostTables,
    device_index: int,
    graph: LayerGraph,
    rows: Sequence[LayerRow],
    *,
    batch: int = 1,
) -> CostTables:
    """The tables with one device's latencies and energies taken from `rows` (one image; x batch).

    Rows are matched by name: a row means the layer whose name it bears, the module that its ONNX
    path leads to (`/features/features.3/squeeze/Conv` means `features.3.squeeze`), or the innermost
    part of the path that is a layer's name. Where no row matches any layer, as many rows as layers
    are taken in order.
    InputError: no such device, a row without a layer, a layer without a row or with two.
    """
    devices = tables.latency_ms.shape[1]
    need(0 <= device_index < devices, f"no device {device_index}: the tables have {devices}")
    ordered = _in_order_of(graph, rows)
    latency = np.array(tables.latency_ms)
    energy = np.array(tables.energy_mj)
    latency[:, device_index] = [batch * row.latency_ms for row in ordered]
    energy[:, device_index] = [batch * row.energy_mj for row in ordered]
    return tables._replace(latency_ms=jnp.asarray(latency), energy_mj=jnp.asarray(energy))


def _in_order_of(graph: LayerGraph, rows: Sequence[LayerRow]) -> list[LayerRow]:
    matched: dict[str, LayerRow] = {}
    strangers = []
    for row in rows:
        layer = _layer_of(row.name, graph.names)
        if layer is None:
            strangers.append(row.name)
            continue
        need(layer not in matched, f"layer table: two rows for layer `{layer}`")
        matched[layer] = row
    if not matched:
        need(
            len(rows) == len(graph.layers),
            f"layer table: {len(rows)} rows, none named after a layer, for {len(graph.layers)}"
            " layers; name the rows after the layers or give one per layer in order",
        )
        return list(rows)
    for row in strangers:
        raise InputError(f"layer table: row `{row}` names no layer of the network; take it out")
    for name in graph.names:
        need(name in matched, f"layer table: no row for layer `{name}`; add one")
    return [matched[name] for name in graph.names]


def _layer_of(row: str, names: Sequence[str]) -> str | None:
    parts = row.strip("/").split("/")
    for exact in (row, _module(parts[:-1])):
        if exact in names:
            return exact
    return next((part for part in reversed(parts) if part in names), None)


def _module(scopes: Sequence[str]) -> str:
    """The module that nested ONNX scopes lead to, as its parameters are named.

    A child of a list bears the list's own name again: layer1, layer1.0, conv1 is layer1.0.conv1.
    """
    path = ""
    for scope in scopes:
        owner, _, child = scope.rpartition(".")
        inside = bool(owner) and f".{path}".endswith(f".{owner}")
        path = ".".join(filter(None, (path, child if inside else scope)))
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error.__class__.__name__})") from None


def _cost(text: str | None, path: Path, line: int, column: str) -> float:
    """A cost is a finite number >= 0: a table with a negative latency has been published."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    good = math.isfinite(value) and value >= 0
    need(good, f"{path.name}, line {line}: `{column}` is {text!r}: give a number, zero or more")
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
