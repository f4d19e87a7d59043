"""What a job prints when it is done: a table for people, and the notes that belong to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.jobs.shared.records import Record

_TITLES = {
    "weights": "faults in weights",
    "activations": "faults in activations",
    "both": "faults in both",
}


def comparison(result: Mapping[str, Any]) -> RenderableType:
    """Three tools by three kinds of fault, best accuracy bold; then how it was searched."""
    table = Table(box=None, pad_edge=False)
    table.add_column("mapping by")
    for head in ("images right, 95 % interval", "latency, ms", "energy, mJ"):
        table.add_column(head, justify="right")
    for scenario, title in _TITLES.items():
        rows = [row for row in result["table"] if row["scenario"] == scenario]
        table.add_row(Text(title, style="bold"))
        for row in rows:
            style = "bold" if row["accuracy"] == max(each["accuracy"] for each in rows) else ""
            table.add_row(f"  {row['tool']}", *_figures(row), style=style)
    return Group(table, Text(), *map(Text, _notes(result)))


def costs(records: Sequence[Record], devices: Sequence[str]) -> RenderableType:
    """The whole network on each device, layers summed."""
    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    for head in ("latency, ms", "energy, mJ", "memory, kB"):
        table.add_column(head, justify="right")
    for device in devices:
        own = [record for record in records if record["device"] == device]
        sums = [sum(float(record[key]) for record in own) for key in ("latency_ms", "energy_mj")]
        memory = sum(record["bytes"] for record in own) / 1e3
        table.add_row(device, *(f"{value:.4g}" for value in sums), f"{memory:,.0f}")
    return table


def _figures(row: Record) -> list[str]:
    low, high = row["accuracy_interval"]
    accuracy = f"{100 * row['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return [accuracy, f"{float(row['latency_ms']):.4g}", f"{float(row['energy_mj']):.4g}"]


def _notes(result: Mapping[str, Any]) -> list[str]:
    clean, search = result["clean"], result["search"]
    how = (
        f"all {search['evaluations']:,} mappings were tried"
        if search["method"] == "enumeration"
        else f"{search['evaluations']:,} mappings tried in {search['generations']} generations"
    )
    notes = [
        f"Without faults: {100 * clean['accuracy']:.1f} % of {clean['images']:,} held-out images. "
        f"Under both faults, {how}; {len(result['front'])} on the front."
    ]
    notes += [_advantage(row) for row in result["advantages"] if row["scenario"] == "both"]
    if result["faults"]["strategy"] == "layerwise":
        notes.append(
            "Warning: the search summed drops of layers struck alone (faults.strategy = "
            "layerwise); these do not add up. In the table all layers are struck."
        )
    return notes


def _advantage(row: Record) -> str:
    low, high = row["difference_interval"]
    return (
        f"AFarePart against {row['over']}, both faults, same draws: "
        f"{100 * row['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]."
    )
