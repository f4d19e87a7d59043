"""What job `partition` chose: the mapping layer by layer, and the front that it was chosen from."""

from collections.abc import Mapping, Sequence

from afpjax.report import figures
from afpjax.report.markup import Html, details, device, estimate, figure, join, paragraph, table
from afpjax.report.story import Block, Result
from afpjax.report.strip import strip
from afpjax.report.tools import TOOL_NAMES, find_row
from afpjax.report.wording import Real, number, points, scaled
from afpjax.report.wording import join as listed

__all__ = ["front", "mapping"]

_FLIPS = ("weights", "activations")


def mapping(result: Result) -> Block:
    """Which layer runs where: three strips above each other, and the layers by name."""
    layers = result["model"]["layers"]
    loss = _losses(result)
    worst = [max(loss.get((layer["name"], d), 0.0) for d in result["devices"]) for layer in layers]
    picture = strip(
        [layer["macs"] for layer in layers],
        worst if loss else [],
        _strips(result),
        len(result["devices"]),
    )
    legend = paragraph(
        join([device(i, name) for i, name in enumerate(result["devices"])], " &ensp; ")
    )
    note = paragraph(
        "From the first layer on the left to the last; faults in weights and activations.",
        kind="note",
    )
    return Block(join([legend, picture, note, _layer_table(result, loss)]))


def _strips(result: Result) -> dict[str, Sequence[int]]:
    """The tools' mappings by name; tools that chose the same share a strip."""
    chosen = {}
    for tool in ("cnnparted", "fault-unaware"):
        row = find_row(result, tool)
        if row and "mapping" in row:
            chosen[TOOL_NAMES[tool]] = row["mapping"]
    chosen[TOOL_NAMES["afarepart"]] = result["selected"]["mapping"]
    shared: dict[tuple[int, ...], list[str]] = {}
    for name, devices in chosen.items():
        shared.setdefault(tuple(devices), []).append(name)
    return {listed(names): devices for devices, names in shared.items()}


def _losses(result: Result) -> dict[tuple[str, str], Real]:
    """(layer, device) -> accuracy lost when that layer alone is struck at that device's rates.

    Against the fault-free accuracy on the same images, those of the search.
    """
    clean = result.get("clean", {}).get("search_accuracy")
    if clean is None:
        return {}
    return {(r["layer"], r["device"]): clean - r["alone"] for r in result.get("sensitivity", ())}


def _layer_table(result: Result, loss: Mapping[tuple[str, str], Real]) -> Html:
    chosen, layers = result["selected"], result["model"]["layers"]
    flips = {record["layer"]: record for record in chosen.get("flips", ())}
    total = sum(layer["macs"] for layer in layers) or 1
    rows = []
    for layer, where in zip(layers, chosen["mapping"], strict=True):
        name = result["devices"][where]
        share = 100 * layer["macs"] / total
        bar = Html(f'{share:.1f}\u00a0%<span class=share style="width:{share / 16:.2f}rem"></span>')
        row = [layer["name"], device(where, name), layer["kind"], bar]
        if loss:
            row.append(points(loss[layer["name"], name]) if (layer["name"], name) in loss else "–")
        if flips:
            record = flips.get(layer["name"], {})
            row += [scaled(record[key]) if key in record else "–" for key in _FLIPS]
        rows.append(row)
    head = ["layer", "device", "kind", "MACs"] + ["loss alone, points"] * bool(loss)
    head += [f"flips in {key}" for key in _FLIPS] * bool(flips)
    note = "Loss alone: accuracy lost when only this layer is struck, on its device. " * bool(loss)
    note += "Flips: mean per fault draw (weights) and per image (activations)." * bool(flips)
    return details(
        f"AFarePart's mapping, layer by layer ({len(layers)})",
        table(head, rows, words=(1, 2, 3)),
        *[paragraph(note, kind="note")] * bool(note),
    )


def front(result: Result) -> Block:
    """Every trade-off that the search found."""
    baselines = [row for tool in ("cnnparted", "fault-unaware") if (row := find_row(result, tool))]
    svg = figures.front(result["front"], result.get("selected"), baselines)
    count = len(result["front"])
    text = (
        f"Each dot is one of {count} mappings found; measured afterwards, none of them beats "
        "another in latency, energy and accuracy alike. "
        if count > 1
        else "The dot is the one mapping found that, measured afterwards, none beats. "
    )
    if "selected" in result:
        text += (
            "The star is AFarePart's choice: on the search's own images under new fault draws, the "
            "most accurate within the latency and energy allowed over the fault-unaware mapping "
            "(if none is within, the one closest to that)."
        )
    shown = figure(svg, "Accuracy, latency and energy with faults in weights and activations")
    return Block(join([paragraph(text), shown, _front_table(result)]), {"front.svg": svg})


def _front_table(result: Result) -> Html:
    chosen = result.get("selected", {}).get("mapping")
    ordered = sorted(result["front"], key=lambda point: point["latency_ms"])
    rows = [
        (
            ("★ " if point["mapping"] == chosen else "") + number(point["latency_ms"]),
            number(point["energy_mj"]),
            estimate(point, "accuracy"),
            _runs(point["mapping"]),
        )
        for point in ordered
    ]
    head = ("latency, ms", "energy, mJ", "images right", "devices, first layer to last")
    note = "★: the one chosen. 2×5: device 2 for five layers in a row."
    summary = "The mapping" if len(rows) == 1 else f"The {len(rows)} mappings"
    return details(summary, table(head, rows, words=(3,)), paragraph(note, kind="note"))


def _runs(mapping: Sequence[int]) -> str:
    """[0, 0, 0, 1] -> `1×3 2`: device numbers as in the legend, repeats counted."""
    runs: list[list[int]] = []
    for where in mapping:
        if runs and runs[-1][0] == where:
            runs[-1][1] += 1
        else:
            runs.append([where, 1])
    return " ".join(f"{where + 1}×{n}" if n > 1 else str(where + 1) for where, n in runs)
