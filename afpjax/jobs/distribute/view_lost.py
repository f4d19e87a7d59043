"""Job `distribute`: what every method keeps when devices are lost, the paper's Figure 2."""

from collections.abc import Sequence

from afpjax.jobs.distribute.view_rows import Row, bars
from afpjax.jobs.distribute.view_words import (
    Record,
    at,
    close,
    compared,
    device_keys,
    difference,
    find,
    first,
    in_text,
    lost,
    method_look,
    method_name,
    one_of,
    ordered,
    settings,
    share,
)
from afpjax.report.markup import Html, details, estimate, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import GAP, percent
from afpjax.report.wording import join as listing

__all__ = ["LOST"]

_LOSSES = 8  # that a figure has room for
_HEAD = ("method", "lost", "images right", "worst", "lost then", "best", "lost then ", "sets")


def methods(result: Result) -> Block:
    """One figure for each number of devices, and behind it its rows as numbers."""
    records, clean = result["methods"], result.get("clean", {}).get("accuracy")
    drawn, shown, tables = {}, [], []
    for devices in dict.fromkeys(record["devices"] for record in records):
        mine = [record for record in records if record["devices"] == devices]
        groups = {lost(each): _rows(at(mine, each)) for each in settings(mine)[:_LOSSES]}
        drawn[f"methods-{devices}.svg"] = bars(groups, clean, "memory")
        title = f"{devices} devices"
        caption = _caption(mine, len(settings(mine)))
        shown.append(figure(drawn[f"methods-{devices}.svg"], title, caption))
        tables.append(details(f"{title}: all numbers ({len(mine)})", _table(mine)))
    grid = Html(f"<div class=grid>{join(shown)}</div>")
    return Block(join([paragraph(_how(result)), grid, _beside(result), *tables]), drawn)


def _rows(records: Sequence[Record]) -> list[Row]:
    return [
        Row(
            method_name(record["method"]),
            record,
            method_look(record["method"])[0],
            share(record["memory"]),
            record.get("optimistic"),
        )
        for record in ordered(records)
    ]


def _caption(records: Sequence[Record], losses: int) -> str:
    """What stands in this figure alone."""
    said = []
    if any("optimistic" in record for record in records):
        said.append("Diamond: LOP where the devices with the least important neurons fail.")
    if losses > _LOSSES:
        said.append(f"The first {_LOSSES} of {losses} losses.")
    return " ".join(said)


def _how(result: Result) -> str:
    sampled = any(record.get("sampled") for record in result["methods"])
    over = "a sample of the sets" if sampled else "all sets"
    clean = "; dashed: no device lost" if "accuracy" in result.get("clean", {}) else ""
    text = (
        f"Bars are means over {over} of so many lost devices; thick lines: 95\u00a0% intervals, "
        f"thin uprights: the worst and the best set{clean}. Memory is what the fullest device "
        "holds of the network's weights and biases: compare accuracies with it in view."
    )
    if any(record["method"].startswith("cdc") for record in result["methods"]):
        text += (
            " Of CDC's devices the last is a spare that holds sums of the others' neurons; "
            "“safe spare”: only the others fail, as its authors presume."
        )
    return text


def _beside(result: Result) -> Html:
    """RobustDiCE against every other method on equal images, for one lost device or the fewest."""
    setting = first(result["methods"])
    own = find(result["methods"], "robustdice", setting)
    others = [r for r in ordered(at(result["methods"], setting)) if "difference_interval" in r]
    if own is None or not others:
        return Html()
    same = [_against(record) for record in others if close(record, own)]
    rest = [_against(record, memory=True) for record in others if not close(record, own)]
    memory = f"at the same memory ({percent(own['memory'])})"
    found = [
        Html(f"<li>{where}: {html(listing(each))}</li>")
        for where, each in ((memory, same), ("at another memory", rest))
        if each
    ]
    return Html(
        f"{paragraph(f'With {one_of(setting)} lost, on the same images RobustDiCE keeps')}"
        f"<ul>{join(found)}</ul>"
    )


def _against(record: Record, memory: bool = False) -> str:
    """`28.2 points [25.7, 30.7] more than top-k replication`."""
    name = in_text(record["method"])
    return compared(record, f"{name} ({share(record['memory'])})" if memory else name)


def _table(records: Sequence[Record]) -> Html:
    gaps = any("difference_interval" in record for record in records)
    best = any("optimistic" in record for record in records)
    head = [*_HEAD, "memory"] + ["optimistic"] * best
    head += ["RobustDiCE keeps more by, points"] * gaps
    rows = []
    for record in [row for each in settings(records) for row in ordered(at(records, each))]:
        cells: list[object] = [method_name(record["method"]), record["failed"]]
        cells += [estimate(record, "accuracy"), estimate(record, "accuracy_worst")]
        cells += [device_keys(record.get("worst_failed", ()))]
        cells += [estimate(record, "accuracy_best"), device_keys(record.get("best_failed", ()))]
        cells += [_sets(record), percent(record["memory"])]
        cells += [estimate(record, "optimistic")] * best
        cells += [_gap(record)] * gaps
        rows.append(cells)
    note = paragraph("Devices are numbered from 1 here, from 0 in the CSV files.", kind="note")
    return join([table(head, rows, words=(4, 6)), note])


def _sets(record: Record) -> str:
    if "sets" not in record:
        return "–"
    return f"{record['sets']:,}{' drawn' * bool(record.get('sampled'))}"


def _gap(record: Record) -> Html:
    """In points, without the unit."""
    if "difference_interval" not in record:
        return html("–")
    value, _, limits = difference(record).replace(f"{GAP}points", "").partition(" ")
    return Html(f"{value} <small class=nobr>{limits}</small>")


LOST = (Part("What is left when devices are lost", ("methods",), methods),)
