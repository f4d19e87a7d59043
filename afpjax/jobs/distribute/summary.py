"""What job `distribute` prints: what every method keeps when devices are lost, at which memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.jobs.shared.records import Record

_NAMES = {
    "robustdice": "RobustDiCE",
    "topk": "top-k replicas",
    "randomk": "random-k replicas",
    "random": "random replicas",
    "lop": "LOP",
    "cdc": "CDC",
    "cdc-safe-spare": "CDC, safe spare",
    "replication": "replication",
}
_LOSSES = 3  # columns of lost devices that a terminal has room for


def summary(result: Mapping[str, Any]) -> RenderableType:
    """A row for each number of devices and method: its memory, and accuracy by devices lost."""
    rows = result["methods"]
    losses = sorted({row["failed"] for row in rows})[:_LOSSES]
    table = Table(box=None, pad_edge=False)
    for name in ("devices", "method"):
        table.add_column(name, no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    for lost in losses:
        table.add_column(f"{lost} lost", justify="right")
    for (devices, method), found in _by_method(rows).items():
        memory = _memory(next(iter(found.values())))
        cells = [_right(found[lost]) if lost in found else "" for lost in losses]
        name = Text(_NAMES.get(method, method))
        table.add_row(str(devices), name, memory, *cells)
    return Group(table, Text(), *map(Text, _notes(result, losses)))


def _by_method(rows: Sequence[Record]) -> dict[tuple[int, str], dict[int, Record]]:
    """Rows by devices lost, methods in the order of their names."""
    places = list(_NAMES)
    counts = list(dict.fromkeys(row["devices"] for row in rows))

    def order(row: Record) -> tuple[int, int]:
        known = row["method"] in places
        return counts.index(row["devices"]), places.index(row["method"]) if known else len(places)

    found: dict[tuple[int, str], dict[int, Record]] = {}
    for row in sorted(rows, key=order):
        found.setdefault((row["devices"], row["method"]), {})[row["failed"]] = row
    return found


def _memory(row: Record) -> str:
    share = f"{100 * float(row['memory']):.0f} %"
    if "memory_interval" not in row:
        return share
    low, high = (100 * float(each) for each in row["memory_interval"])
    return f"{share} [{low:.0f}, {high:.0f}]"


def _right(row: Record) -> str:
    low, high = (100 * float(each) for each in row["accuracy_interval"])
    return f"{100 * float(row['accuracy']):.1f} [{low:.0f}, {high:.0f}]"


def _notes(result: Mapping[str, Any], losses: Sequence[int]) -> list[str]:
    notes = [
        f"Per cent of {result['data']['images']:,} images right, the mean over which devices are "
        f"lost, with 95 % intervals; {100 * float(result['clean']['accuracy']):.1f} with none "
        "lost. Memory: what the fullest device holds of the network's weights and biases."
    ]
    notes += map(stability_note, result.get("stability", ())[:1])
    if hidden := {row["failed"] for row in result["methods"]} - set(losses):
        notes.append(f"More than {max(losses)} lost (up to {max(hidden)}): methods.csv has them.")
    notes += _gains(result)
    speed = result.get("throughput", {})
    if speed.get("inferences_per_second"):
        notes.append(
            f"{speed['inferences_per_second']:,.0f} images x sets of lost devices a second; with "
            f"none lost {speed['clean_inferences_per_second']:,.0f} images a second."
        )
    return notes


def stability_note(row: Record) -> str:
    """How much a placement depends on the images that neurons were scored on."""
    low, high = (100 * float(each) for each in row["memory_interval"])
    return (
        f"Other images to score on, as many as these {row['images']:,}, would put RobustDiCE's "
        f"memory on {row['devices']} devices at {low:.0f} to {high:.0f} % (95 %, "
        f"{row['halvings']} halvings of the images); placements from two halves agree on "
        f"{100 * float(row['overlap']):.0f} % of what they hold."
    )


def _gains(result: Mapping[str, Any]) -> list[str]:
    """What searched thresholds keep more than constant ones, where that is widest."""
    gain = result.get("search", {}).get("gain", ())
    if not gain:
        return []
    best = max(gain, key=lambda row: row["difference"])
    low, high = (100 * float(each) for each in best["difference_interval"])
    return [
        "Searched thresholds keep at best "
        f"{100 * float(best['difference']):+.1f} points [{low:.1f}, {high:.1f}] against a constant "
        f"one of no less memory, {100 * float(best['memory']):.0f} % of the weights."
    ]
