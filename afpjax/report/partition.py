"""The report of job `partition`: what the fault-aware mapping is worth, and what it looks like."""

from collections.abc import Mapping, Sequence
from typing import Any

from afpjax.report import figures
from afpjax.report.figures import TOOL_NAMES
from afpjax.report.markup import (
    Html,
    details,
    device,
    figure,
    html,
    join,
    paragraph,
    range_bar,
    scroll,
    table,
)
from afpjax.report.partition_detail import DETAIL
from afpjax.report.story import Block, Part, Result, Story
from afpjax.report.strip import strip
from afpjax.report.wording import (
    change,
    change_words,
    interval,
    number,
    percent,
    points,
    scaled,
)
from afpjax.report.wording import (
    join as listed,
)

__all__ = ["STORY", "find_row"]

SCENARIOS = {
    "weights": "Faults in weights",
    "activations": "Faults in activations",
    "both": "Faults in weights and activations",
}


def find_row(result: Result, tool: str, scenario: str = "both") -> Mapping[str, Any] | None:
    """The table's row for this tool and scenario, if it is there."""
    for row in result.get("table", ()):
        if row["tool"] == tool and row["scenario"] == scenario:
            return row
    return None


def answer(result: Result) -> Html:
    """The whole result in a sentence."""
    ours, other = find_row(result, "afarepart"), find_row(result, "fault-unaware")
    if ours is None or other is None:
        return html("Where each layer of the network should run")
    latency = change_words(ours["latency_ms"], other["latency_ms"], "latency")
    energy = change_words(ours["energy_mj"], other["energy_mj"], "energy")
    low, high = (interval(row["accuracy_interval"]) for row in (ours, other))
    return Html(
        f"AFarePart keeps <b>{percent(ours['accuracy'])}</b> <small>{low}</small> of images right "
        f"under weight and activation faults, where the fault-unaware mapping keeps "
        f"<b>{percent(other['accuracy'])}</b> <small>{high}</small>; "
        f"it costs <b>{latency}</b> and <b>{energy}</b>."
    )


def lead(result: Result) -> Html:
    """What a newcomer must know to read the rest."""
    devices = len(result.get("devices", ()))
    text = (
        "Each layer of the network runs on one of "
        f"{devices or 'several'} accelerators, and these flip bits at different rates. "
        "Each tool below chose a device for every layer; then the layers were struck by random "
        "bit flips, and the images that the network still got right were counted. "
    )
    clean = result.get("clean", {}).get("accuracy")
    without = f"Without faults it gets {percent(clean)} right. " if clean is not None else ""
    return paragraph(text, without, _verdict(result))


def _verdict(result: Result) -> str:
    """Whether the intervals tell AFarePart from the baselines."""
    ours = find_row(result, "afarepart")
    if ours is None:
        return ""
    words: dict[str, list[str]] = {"above": [], "below": [], "level": []}
    for tool in ("fault-unaware", "cnnparted"):
        if row := find_row(result, tool):
            (low, high), (start, end) = ours["accuracy_interval"], row["accuracy_interval"]
            where = "above" if low > end else "below" if high < start else "level"
            words[where].append({"cnnparted": "CNNParted's"}.get(tool, "the fault-unaware one's"))
    said = {
        "above": "its interval lies above {}",
        "below": "its interval lies below {}",
        "level": "its interval overlaps {}, so this run does not tell them apart",
    }
    parts = [text.format(listed(words[key])) for key, text in said.items() if words[key]]
    return f"AFarePart: {'; '.join(parts)}." if parts else ""


def comparison(result: Result) -> Block:
    """Three tools, three scenarios: accuracy with its interval, and what it costs."""
    clean = result.get("clean", {}).get("accuracy")
    body = ""
    for scenario, title in SCENARIOS.items():
        rows = [row for tool in TOOL_NAMES if (row := find_row(result, tool, scenario))]
        if rows:
            body += f"<tr class=group><th colspan=4 scope=rowgroup>{html(title)}</th></tr>"
            body += "".join(_comparison_row(row, result, clean) for row in rows)
    head = (
        "<th scope=col>mapping by<th scope=col class=acc>images right"
        "<th scope=col>latency<br>ms<th scope=col>energy<br>mJ"
    )
    note = (
        "Bars: 95 % interval on a scale from 0 to 100 %, black mark the estimate"
        + (", grey mark the network without faults" if clean is not None else "")
        + ". Small figures: change from the fault-unaware mapping."
    )
    grid = (
        f'<table class="compare wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    return Block(join([scroll(Html(grid)), paragraph(note, kind="note")]))


def _comparison_row(row: Mapping[str, Any], result: Result, clean: float | None) -> str:
    other = find_row(result, "fault-unaware", row["scenario"])
    bar = range_bar(row["accuracy_interval"], row["accuracy"], row["tool"], clean)

    def cost(key: str) -> str:
        apart = change(row[key], other[key]) if other and other is not row else ""
        return f"<td>{number(row[key])}{f'<br><small>{apart}</small>' if apart else ''}</td>"

    return (
        f"<tr{' class=ours' if row['tool'] == 'afarepart' else ''}>"
        f"<td>{TOOL_NAMES[row['tool']]}</td>"
        f"<td class=acc>{percent(row['accuracy'])} "
        f"<small>{interval(row['accuracy_interval'])}</small>{bar}</td>"
        f"{cost('latency_ms')}{cost('energy_mj')}</tr>"
    )


def devices(result: Result) -> Block:
    """The devices: how often they err, what the whole network would cost there, what they got."""
    names, costs = result["devices"], result.get("costs", ())
    mapping = result["selected"]["mapping"]
    macs = [layer["macs"] for layer in result["model"]["layers"]]
    rows = []
    for index, name in enumerate(names):
        own = [record for record in costs if record["device"] == name]
        mine = [m for m, where in zip(macs, mapping, strict=True) if where == index]
        rows.append(
            (
                device(index, name),
                *(_rate(result, key, index) for key in ("weight_rate", "activation_rate")),
                *(
                    number(sum(r[key] for r in own)) if own else "–"
                    for key in ("latency_ms", "energy_mj")
                ),
                len(mine),
                f"{100 * sum(mine) / (sum(macs) or 1):.0f}\u00a0%",
            )
        )
    head = ("device", "weight bit flips", "activation bit flips", "whole net, ms")
    head += ("whole net, mJ", "layers", "MACs")
    rows_html = table([Html(h.replace(" ", "<br>", 1)) for h in head], rows)
    note = "Flips: chance per faulty bit. Layers and MACs: what AFarePart's mapping runs there."
    return Block(join([rows_html, paragraph(note, kind="note")]))


def _rate(result: Result, key: str, index: int) -> str:
    rates = result.get("faults", {}).get(key, ())
    return number(rates[index]) if index < len(rates) else "–"


def mapping(result: Result) -> Block:
    """Which layer runs where: three strips above each other, and the layers by name."""
    layers = result["model"]["layers"]
    rows: dict[str, Sequence[int]] = {}
    for tool in ("cnnparted", "fault-unaware"):
        if (row := find_row(result, tool)) and "mapping" in row:
            rows[TOOL_NAMES[tool]] = row["mapping"]
    rows["AFarePart"] = result["selected"]["mapping"]
    loss = _losses(result)
    worst = [max(loss.get((layer["name"], d), 0.0) for d in result["devices"]) for layer in layers]
    picture = strip([layer["macs"] for layer in layers], worst if loss else [], rows)
    legend = paragraph(
        join([device(i, name) for i, name in enumerate(result["devices"])], " &ensp; ")
    )
    return Block(join([legend, picture, _layer_table(result, loss)]))


def _losses(result: Result) -> dict[tuple[str, str], float]:
    """(layer, device) -> accuracy lost when that layer alone is struck at that device's rates."""
    clean = result.get("clean", {}).get("accuracy")
    if clean is None:
        return {}
    return {(r["layer"], r["device"]): clean - r["alone"] for r in result.get("sensitivity", ())}


def _layer_table(result: Result, loss: Mapping[tuple[str, str], float]) -> Html:
    chosen, layers = result["selected"], result["model"]["layers"]
    flips = {record["layer"]: record for record in chosen.get("flips", ())}
    total = sum(layer["macs"] for layer in layers) or 1
    rows = []
    for layer, where in zip(layers, chosen["mapping"], strict=True):
        name = result["devices"][where]
        share = 100 * layer["macs"] / total
        bar = Html(f'{share:.1f}\u00a0%<span class=share style="width:{share / 16:.2f}rem"></span>')
        row = [layer["name"], layer["kind"], device(where, name), bar]
        if loss:
            row.append(points(loss[layer["name"], name]) if (layer["name"], name) in loss else "–")
        if flips:
            record = flips.get(layer["name"], {})
            row += [scaled(record[key]) if key in record else "–" for key in _FLIPS]
        rows.append(row)
    head = ["layer", "kind", "device", "MACs"] + ["loss alone, points"] * bool(loss)
    head += [f"flips in {key}" for key in _FLIPS] * bool(flips)
    note = "Loss alone: accuracy lost when only this layer is struck, on its device. " * bool(loss)
    note += "Flips: mean per fault draw (weights) and per image (activations)." * bool(flips)
    return details(
        f"Layer by layer: the {len(layers)} layers of the chosen mapping",
        table(head, rows),
        paragraph(note, kind="note"),
    )


_FLIPS = ("weights", "activations")


def front(result: Result) -> Block:
    """Every trade-off that the search found."""
    baselines = [row for tool in ("cnnparted", "fault-unaware") if (row := find_row(result, tool))]
    svg = figures.front(result["front"], result.get("selected"), baselines)
    count = len(result["front"])
    text = paragraph(
        f"Each dot is one of {count} mappings that no other found mapping beats in latency, energy "
        "and accuracy at once. " if count > 1 else "One mapping beats every other that was found. ",
        "The star is the one chosen: the most accurate within the latency and energy that the "
        "settings allow on top of the fault-unaware mapping.",
    )  # fmt: skip
    ordered = sorted(result["front"], key=lambda point: point["latency_ms"])
    rows = [
        (
            number(point["latency_ms"]),
            number(point["energy_mj"]),
            f"{percent(point['accuracy'])} {interval(point['accuracy_interval'])}",
            _runs(point["mapping"]),
        )
        for point in ordered
    ]
    head = ("latency, ms", "energy, mJ", "images right", "devices, first layer to last")
    shown = figure(svg, "Latency, energy and accuracy under faults")
    more = details(f"The {count} mappings", table(head, rows))
    return Block(join([text, shown, more]), {"front.svg": svg})


def _runs(mapping: Sequence[int]) -> str:
    """[0, 0, 0, 1] -> `1×3 2`: device numbers as in the legend, repeats counted."""
    runs: list[list[int]] = []
    for where in mapping:
        if runs and runs[-1][0] == where:
            runs[-1][1] += 1
        else:
            runs.append([where, 1])
    return " ".join(f"{where + 1}×{n}" if n > 1 else str(where + 1) for where, n in runs)


STORY = Story(
    answer,
    lead,
    (
        Part("Three tools, three kinds of fault", ("table",), comparison),
        Part("Which layer runs where", ("selected", "model", "devices"), mapping),
        Part("The devices", ("devices", "selected", "model"), devices),
        Part("Every trade-off found", ("front",), front),
        *DETAIL,
    ),
)
