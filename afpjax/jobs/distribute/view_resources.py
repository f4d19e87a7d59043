"""Job `distribute`: what every method costs a device, the paper's Table II."""

from collections.abc import Mapping

from afpjax.jobs.distribute.view_paper import RESOURCES, of_model
from afpjax.jobs.distribute.view_words import Record, method_name, ordered
from afpjax.report.markup import Html, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import Real, change, number, percent

__all__ = ["COSTS"]

#: key -> heading, and its place in the paper's rows.
_COLUMNS = {
    "memory_mb": ("MB", 2),
    "energy_j": ("J/image", 0),
    "fps": ("images/s", 1),
}


def resources(result: Result) -> Block:
    """Memory, energy and throughput by method and number of devices."""
    records = ordered(result["resources"])
    paper = RESOURCES.get(of_model(result), {})
    whole = {r["devices"]: r for r in records if r["method"] == "replication"}
    columns = {key: head for key, head in _COLUMNS.items() if any(key in row for row in records)}
    rows = []
    for record in records:
        full = whole.get(record["devices"])
        cells: list[object] = [method_name(record["method"]), record["devices"]]
        for key, (_, place) in columns.items():
            cells.append(_cell(record, key, full))
            cells += [_paper(paper, record, place)] * bool(paper)
        cells += [percent(record["memory"]) if "memory" in record else "–"]
        rows.append(cells)
    head = ["method", "devices"]
    for title, _ in columns.values():
        head += [title] + ["paper's"] * bool(paper)
    head += ["of the weights"]
    return Block(join([paragraph(_how(result, bool(whole), bool(paper))), table(head, rows)]))


def _cell(record: Record, key: str, full: Record | None) -> Html:
    """The value, and below it how far it is from full replication on as many devices."""
    if key not in record:
        return html("–")
    value = html(number(record[key]))
    if full is None or full is record or key not in full:
        return value
    return Html(f"{value}<br><small class=nobr>{html(change(record[key], full[key]))}</small>")


def _paper(
    paper: Mapping[tuple[str, int], tuple[Real, Real, Real]], record: Record, place: int
) -> str:
    """Full replication costs the same however many devices there are."""
    method = record["method"]
    found = paper.get((method, 0 if method == "replication" else record["devices"]))
    return number(found[place]) if found else "–"


def _how(result: Result, whole: bool, paper: bool) -> str:
    board = result.get("board", {})
    where = f": {board['name']}" if "name" in board else ""
    link = f" over {board['link']}" if "link" in board else ""
    batch = f", in batches of {board['batch']:,}" if board.get("batch", 1) > 1 else ""
    count = f", {board['images']:,} images{batch}" if "images" in board else ""
    text = (
        f"From a model of the boards, not measured{where}{link}{count}. Memory (MB) is the "
        "fullest device's, energy (J/image) the hungriest device's, throughput that of all, with "
        "no device lost."
    )
    if whole:
        text += " Small figures: the change from full replication on as many devices."
    if paper:
        text += " The paper's figures were measured on ImageNet-1K images, at thresholds not given."
    return text


COSTS = (Part("Memory, energy and throughput", ("resources",), resources),)
