"""What job `serve` prints: how requests ended, how fast, and every device's fate."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.jobs.shared.records import Record


def summary(result: Mapping[str, Any]) -> RenderableType:
    """Devices first, then accuracy by what was lost, then speed."""
    parts = [_devices(result["devices"], result["throughput"]["devices"]), Text()]
    if result["throughput"]["losses"]:
        parts += [_by_lost(result["by_lost"]), Text()]
    return Group(*parts, *map(Text, _notes(result)))


def _devices(rows: Sequence[Record], ended: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    for head in ("process, MB", "model, MB", "killed at, s", "found lost at, s"):
        table.add_column(head, justify="right")
    for row in (one | end for one, end in zip(rows, ended, strict=True)):
        ends = (f"{row[key]:.2f}" if key in row else "" for key in ("killed_at", "lost_at"))
        figures = f"{row['memory_mb']:.0f}", f"{row['model_mb']:.3g}"
        table.add_row(row["device"], *figures, *ends, style="bold" if "lost_at" in row else "")
    return table


def _by_lost(rows: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("lost")
    for head in ("answered", "images right", "predicted, 95 % interval"):
        table.add_column(head, justify="right")
    for row in rows:
        lost = ", ".join(row["lost"]) or "none"
        table.add_row(lost, str(row["answered"]), _percent(row["accuracy"]), _predicted(row))
    return table


def _notes(result: Mapping[str, Any]) -> list[str]:
    latency, planned = result["latency_ms"], result["predicted_cost"]
    asked = f"{result['requests']:,} images asked for, {result['answered']:,} answered"
    notes = [f"{asked}, {result['refused']:,} refused{_why(result['refusals'])}."]
    notes += [
        f"{_percent(result['accuracy'])} of the answers are right; predicted {_predicted(result)}.",
        f"{result['fps']:.1f} images per second here; latency "
        f"{latency['p50']:.1f} ms (median), {latency['p95']:.1f} (95 %), {latency['p99']:.1f} "
        "(99 %).",
        f"The cost model has {planned['fps']:.4g} images per second and {planned['latency_ms']:.4g}"
        f" ms for {planned['hardware']}, the hardware that was planned for.",
    ]
    if "refused_because" in result:
        notes.append(f"Refused because: {result['refused_because']}.")
    if "http" in result:
        http = result["http"]
        notes.append(f"Over HTTP: {http['requests']:,} images, {http['answered']:,} answered.")
    return notes


def _why(refusals: Sequence[Record]) -> str:
    reasons = [f"{each['count']:,} for `{each['reason']}`" for each in refusals]
    return f" ({', '.join(reasons)})" if reasons else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _predicted(row: Mapping[str, Any]) -> str:
    low, high = (100 * each for each in row["predicted_interval"])
    return f"{_percent(row['predicted'])} [{low:.1f}, {high:.1f}]"
