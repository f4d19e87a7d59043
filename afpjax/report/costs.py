"""Layers × devices: latency, energy and memory as tables, for every job that has costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from afpjax.report.markup import Html, details, device, table
from afpjax.report.wording import Real, number, size

__all__ = ["COSTS", "cost_tables", "totals"]

#: key -> (title, how a value reads)
COSTS: Mapping[str, tuple[str, Callable[[Real], str]]] = {
    "latency_ms": ("Latency, ms", number),
    "energy_mj": ("Energy, mJ", number),
    "bytes": ("Memory of weights and activations", size),
}


def cost_tables(records: Sequence[Mapping[str, Any]], devices: Sequence[str]) -> list[Html]:
    """One closed table per quantity: layers down, devices across, the sum last.

    Memory has no sum: layers take turns in what they hold of activations.
    """
    layers = list(dict.fromkeys(record["layer"] for record in records))
    found = []
    for key, (title, show) in COSTS.items():
        values = {(r["layer"], r["device"]): r[key] for r in records if key in r}
        if not values:
            continue
        rows: list[list[object]] = [
            [layer, *(_shown(values.get((layer, name)), show) for name in devices)]
            for layer in layers
        ]
        if key != "bytes":
            sums = totals(records, devices, key)
            last = (Html(f"<b>{show(sums[name])}</b>") for name in devices)
            rows.append([Html("<b>sum</b>"), *last])
        head = ["layer", *(device(index, name) for index, name in enumerate(devices))]
        found.append(details(f"{title}, layer by layer", table(head, rows)))
    return found


def totals(
    records: Sequence[Mapping[str, Any]], devices: Sequence[str], key: str
) -> dict[str, Real]:
    """Device -> the sum of `key` over its layers."""
    return {d: sum(r.get(key, 0) for r in records if r["device"] == d) for d in devices}


def _shown(value: Real | None, show: Callable[[Real], str]) -> str:
    return "–" if value is None else show(value)
