"""What job `online` prints when it is done."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.jobs.shared.records import Record

_NAMES = {
    "never": "never moved",
    "online": "online (AFarePart)",
    "safest": "safest, no search",
    "stored": "stored, no search",
    "oracle": "oracle",
}


def summary(result: Mapping[str, Any]) -> RenderableType:
    """The policies by trace: accuracy, time with too much lost, what it costs, switches."""
    table = Table(box=None, pad_edge=False)
    table.add_column("environment, policy", no_wrap=True)
    for head in ("images right", "time above theta", "latency, ms", "energy, mJ", "switches"):
        table.add_column(head, justify="right")
    for name in dict.fromkeys(row["trace"] for row in result["policies"]):
        table.add_row(Text("all environments" if name == "all" else name, style="bold"))
        for row in (row for row in result["policies"] if row["trace"] == name):
            style = "bold" if row["policy"] == "online" else ""
            table.add_row(f"  {_NAMES[row['policy']]}", *_figures(row), style=style)
    return Group(table, Text(), *map(Text, _notes(result)))


def _figures(row: Record) -> list[str]:
    return [
        f"{100 * row['accuracy']:.1f} %",
        f"{100 * row['above']:.1f} %",
        f"{row['latency_ms']:.4g}",
        f"{row['energy_mj']:.4g}",
        f"{row['switches']:.1f}",
    ]


def _notes(result: Mapping[str, Any]) -> list[str]:
    stream, watch = result["stream"], result["watch"]
    kind = "labelled canaries" if stream["labels"] else "images beside a clean reference"
    return [
        f"theta: {100 * result['theta']:g} points of accuracy; {stream['canaries']} {kind} in "
        f"each batch of {stream['batch']}; {stream['seeds']} seeds.",
        f"False alarms: at most {watch['false_alarms_per_hour']:g} an hour at {stream['fps']:g} "
        f"images per second, one in {watch['alarm']:,.0f} batches on average.",
        *(
            f"Measured, {row['environment']}: {row['alarms']} alarms in {row['batches']:,} batches "
            f"of which {100 * row['failing']:.1f} % of the canaries fail."
            for row in result["false_alarms"]
        ),
    ]
