"""Another tool's figures for a device, in place of the built-in model's.

Read are CNNParted's layer tables (`No.;Layer;Latency [ms];Energy [mJ]`).
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from afpjax.hardware.tables import CostTables
from afpjax.inputs.errors import InputError, quoted, shortened
from afpjax.inputs.files import CSV, parsed
from afpjax.inputs.toml_tables import need
from afpjax.network.layers import LayerGraph

LAYER_COLUMN, LATENCY_COLUMN, ENERGY_COLUMN = "Layer", "Latency [ms]", "Energy [mJ]"


class LayerRow(NamedTuple):
    """One layer's cost for one image."""

    name: str
    latency_ms: float
    energy_mj: float


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
        raise InputError(
            f"layer table: row `{shortened(row)}` names no layer of the network; take it out"
        )
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
