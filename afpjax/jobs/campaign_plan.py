"""What a campaign would take, before it begins: `--dry-run`."""

from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.faults.evaluate import Evaluator
from afpjax.faults.sites import Fault, Site

_SHOWN = 5  # layers that are named


class Plan(NamedTuple):
    """Trials in all cells together, where they stop as early as they can, and at most."""

    cells: int
    least: int
    most: int
    images: int


def shown(plan: Plan, evaluator: Evaluator, worst: Sequence[tuple[str, float]]) -> RenderableType:
    """The plan as a table; times from a few faults struck now; `worst` layers with their loss."""
    rate = _rate(evaluator)
    table = Table(box=None, pad_edge=False)
    table.add_column("a campaign of")
    for head in ("at least", "at most"):
        table.add_column(head, justify="right")
    rows = (
        ("cells", plan.cells, plan.cells),
        ("trials (faults or masks)", plan.least, plan.most),
        ("images for each", plan.images, plan.images),
        ("forward passes of an image", plan.least * plan.images, plan.most * plan.images),
    )
    for name, least, most in rows:
        table.add_row(name, f"{least:,}", f"{most:,}")
    times = (_time(trials * plan.images / rate) for trials in (plan.least, plan.most))
    table.add_row(f"time, at {rate:,.0f} passes a second", *times)
    if not worst:
        return table
    names = ", ".join(f"{name} ({loss:.2g})" for name, loss in worst[:_SHOWN])
    return Group(table, Text(f"\nOne random bit is expected to add most loss (nats) in {names}."))


def _rate(evaluator: Evaluator) -> float:
    """Passes per second of one weight fault in each layer, once compiled."""
    layers = evaluator.quantized.layers
    for element in range(2):  # the first round compiles
        start = monotonic()
        evaluator.under(
            [
                Fault.at(Site(place, min(element, layer.weights - 1), 0))
                for place, layer in enumerate(layers)
            ]
        )
    return len(layers) * evaluator.count / max(monotonic() - start, 1e-6)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
