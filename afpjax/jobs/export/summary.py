"""What job `export` prints: every device's file, and how well the whole agrees with afpjax."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.jobs.distribute.summary import stability_note
from afpjax.jobs.shared.records import Record


def summary(result: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    table.add_column("file")
    for head in ("layers", "weights, kB", "activations, kB", "sends, kB"):
        table.add_column(head, justify="right")
    for row in result["parts"]:
        sent = sum(send["bytes"] for send in result["sends"] if send["from"] == row["device"])
        sizes = (row["weight_bytes"], row["activation_bytes"], sent / result["batch"])
        figures = (f"{size / 1e3:,.1f}" for size in sizes)
        table.add_row(row["device"], row["file"], str(row["layers"]), *figures)
    return Group(table, Text(), *map(Text, _notes(result)))


def _notes(result: Mapping[str, Any]) -> list[str]:
    if "agreement" not in result:
        return []
    agreed = result["agreement"]
    notes = [
        f"onnxruntime on {agreed['images']:,} test images: the same class as afpjax for "
        f"{100 * agreed['top1']:.2f} %, logits differ by at most "
        f"{agreed['largest_difference']:.1e} of their range; {100 * agreed['accuracy']:.1f} % "
        f"right, afpjax {100 * agreed['afpjax_accuracy']:.1f} %."
    ]
    notes += map(stability_note, result.get("stability", ()))
    return notes + ([_lost(result["lost"])] if "lost" in result else [])


def _lost(rows: Sequence[Record]) -> str:
    worst = min(rows, key=lambda row: row["accuracy"])
    alike = min(row["alike"] for row in rows)
    return (
        f"With one device lost, onnxruntime is right or wrong where afpjax is for at least "
        f"{100 * alike:.2f} % of the images; {100 * worst['accuracy']:.1f} % right without "
        f"{worst['device']}, the worst to lose."
    )
