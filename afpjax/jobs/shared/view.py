"""What several jobs say in the same way: the network, its notes, and what its layers cost."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from afpjax.inputs.notes import covered
from afpjax.jobs.shared.result import CostResult, Estimate, ModelResult, NoteResult, plain
from afpjax.report.charts import cost_bars, costliest
from afpjax.report.render import pieces
from afpjax.report.view import Beside, Block, Chart, Column, Details, Table, Text
from afpjax.report.wording import Real, interval, number, percent, scaled, size

__all__ = ["COSTS", "cost_charts", "cost_tables", "coverage", "device", "device_totals"]
__all__ += ["estimated", "layer_table", "percents", "subject", "warnings"]

#: Attribute of a cost -> (heading with its unit, how a value reads).
COSTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "latency_ms": ("Latency, ms", number),
    "energy_mj": ("Energy, mJ", number),
    "bytes": ("Memory of weights and activations", size),
}


def subject(model: ModelResult, data: str = "") -> str:
    """Which network on which images."""
    name = os.path.basename(model.name)  # an ONNX file's is a path
    return f"{name} on {data}" if data else name


def warnings(notes: Sequence[NoteResult]) -> list[str]:
    """What has to be known before the answer is read."""
    return [note.text for note in notes]


def coverage(model: ModelResult) -> list[str]:
    """What of the network its layers are."""
    return [] if model.coverage is None else [covered(plain(model.coverage))]


def device(index: int, name: str) -> Markup:
    """A device's coloured number and its name; the name alone in a terminal."""
    return pieces().device(index, name)


def estimated(estimate: Estimate | None) -> Text | None:
    """A fraction and its interval, in percent."""
    if estimate is None:
        return None
    return pieces().estimate(percent(estimate.value), interval(estimate.bounds))


def percents(estimates: Sequence[Estimate]) -> tuple[list[float], list[float], list[float]]:
    """Values, and the lower and the upper ends of their intervals, for a figure."""
    values = [(100 * each.value, 100 * each.low, 100 * each.high) for each in estimates]
    value, low, high = zip(*values, strict=True)
    return list(value), list(low), list(high)


def device_totals(costs: Sequence[CostResult], devices: Sequence[str], key: str) -> dict[str, Real]:
    """Device -> the sum of a cost over its layers."""
    return {
        name: sum(getattr(cost, key) for cost in costs if cost.device == name) for name in devices
    }


def cost_tables(costs: Sequence[CostResult], devices: Sequence[str]) -> list[Details]:
    """A closed table for each quantity: layers down, devices across, the sum last.

    Memory has no sum: layers take turns in what they hold of activations.
    """
    layers = list(dict.fromkeys(cost.layer for cost in costs))
    made = []
    for key, (title, show) in COSTS.items():
        values = {(cost.layer, cost.device): getattr(cost, key) for cost in costs}
        rows: list[tuple[str, dict[str, Any]]] = [
            (layer, {name: values.get((layer, name)) for name in devices}) for layer in layers
        ]
        sums = device_totals(costs, devices, key)
        if key != "bytes":
            rows.append(("sum", sums))
        columns = [Column("layer", lambda row: row[0])]
        for index, name in enumerate(devices):
            columns.append(Column(device(index, name), _cell(name, show)))
        table = Table(columns, rows, strong=lambda row: row[0] == "sum")
        made.append(Details(f"{title}, layer by layer", [table]))
    return made


def _cell(name: str, show: Callable[[Any], str]) -> Callable[[Any], str | None]:
    return lambda row: None if row[1][name] is None else show(row[1][name])


def cost_charts(costs: Sequence[CostResult], devices: Sequence[str]) -> list[Block]:
    """Where the time and the energy go: bars, and the tables behind them."""
    every = len({cost.layer for cost in costs})
    charts = []
    for key, title in (("latency_ms", "Latency"), ("energy_mj", "Energy")):
        some = len(costliest(costs, devices, key))
        caption = f"The {some} costliest of {every} layers." if some < every else ""
        unit = COSTS[key][0].partition(", ")[2]
        svg = cost_bars(costs, devices, key, f"{title.lower()} ({unit})")
        charts.append(Chart(title.lower(), svg, title, caption))
    return [Beside(charts), *cost_tables(costs, devices)]


def layer_table(model: ModelResult) -> Details:
    """The layers as traced."""
    columns = [
        Column("layer", lambda layer: layer.name),
        Column("kind", lambda layer: layer.kind, left=True),
        Column("MACs", lambda layer: scaled(layer.macs)),
        Column("weights", lambda layer: scaled(layer.weights)),
        Column("neurons", lambda layer: scaled(layer.neurons)),
    ]
    return Details(f"Layer by layer ({len(model.layers)})", [Table(columns, model.layers)])
