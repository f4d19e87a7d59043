"""The first half of job `campaign`'s report: which layers, bits and rates are the worst."""

from collections.abc import Callable, Sequence
from typing import Any

from afpjax.jobs.campaign.view_cells import (
    COLOURS,
    TARGETS,
    Record,
    bit_axis,
    by_bit,
    by_layer,
    estimated,
    grid,
    setting_words,
    settings,
    share,
    targets,
    telling,
)
from afpjax.jobs.campaign.view_figures import SHOWN, Line, curves, heat, ranking
from afpjax.report.charts import device_look
from afpjax.report.markup import Html, details, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.style import MARKERS

__all__ = ["RATE_LABEL", "WHERE", "figures", "matrix", "none_seen", "title_of"]

RATE_LABEL = "images of another class (%)"
_MAPS = 6  # heat maps of one target: one for each rate, as far as there is room


def title_of(result: Result, target: str, more: str = "") -> str:
    """`Faults in the weights, rate 0.1`."""
    return f"Faults in {TARGETS.get(target, target)}{f', {more}' if more else ''}"


def figures(drawn: dict[str, bytes], shown: Sequence[Html], *more: object) -> Block:
    """Nothing where nothing was drawn."""
    if not shown:
        return Block(Html())
    kind = "pair" if len(shown) > 1 else "single"
    return Block(join([Html(f"<div class={kind}>{join(shown)}</div>"), *more]), drawn)


def layers(result: Result) -> Block:
    """Layers by SDC rate, the highest first."""
    drawn: dict[str, bytes] = {}
    shown, tables = [], []
    for target in targets(result):
        setting = telling(result, target)
        cells = sorted(by_layer(result, target, setting), key=lambda cell: -cell["sdc_rate"])
        if len(cells) < 2:
            continue
        title = title_of(result, target, setting_words(setting))
        some = f" The {SHOWN} highest of {len(cells)}." if len(cells) > SHOWN else ""
        top = cells[:SHOWN]
        svg = ranking(
            top, [c["layer"] for c in top], COLOURS.get(target, COLOURS["link"]), RATE_LABEL
        )
        drawn[f"layers-{target}.svg"] = svg
        shown.append(figure(svg, title, f"Bars are intervals.{some}"))
        tables.append(details(f"{title}: layer by layer ({len(cells)})", _layers(cells)))
    note = Html()
    if any("population" in cell for cell in result["cells"]):
        note = paragraph(
            "“Of all changes” is where the fault lay, if one strikes anywhere and changes a class: "
            "the layer's rate times its share of all possible faults.",
            kind="note",
        )
    return figures(drawn, shown, *tables, note)


def _layers(cells: Sequence[Record]) -> Html:
    columns: dict[str, Callable[[Record], object]] = {
        "layer": lambda cell: cell["layer"],
        "another class": lambda cell: estimated(cell, "sdc_rate"),
    }
    harm = sum(cell.get("population", 0) * cell["sdc_rate"] for cell in cells)
    if harm:
        columns["of all changes"] = lambda c: share(c.get("population", 0) * c["sdc_rate"] / harm)
    if "critical_rate" in cells[0]:
        columns["faults that change any image"] = lambda c: estimated(c, "critical_rate")
    columns["images right"] = lambda cell: estimated(cell, "accuracy")
    columns["struck"] = lambda cell: f"{cell['trials']:,}"
    if "population" in cells[0]:
        columns["possible"] = lambda cell: f"{cell.get('population', 0):,}"
    return table(list(columns), [[show(cell) for show in columns.values()] for cell in cells])


def layer_bits(result: Result) -> Block:
    """A heat map layer × bit for each target and rate."""
    drawn: dict[str, bytes] = {}
    shown, tables = [], []
    for target in targets(result):
        for number, setting in enumerate(settings(result, target)):
            cells = grid(result, target, setting)
            bits = sorted({cell["bit"] for cell in cells})
            names = list(dict.fromkeys(cell["layer"] for cell in cells))
            if len(bits) < 2 or not names or number >= _MAPS:
                continue
            found = {(cell["layer"], cell["bit"]): cell for cell in cells}
            title = title_of(result, target, setting_words(setting))
            svg = heat(matrix(found, names, bits), names, [str(b) for b in bits], bit_axis(result))
            drawn[f"layer-bit-{target}{f'-{number + 1}' if number else ''}.svg"] = svg
            shown.append(figure(svg, title, f"{RATE_LABEL[:-4]}; {none_seen(cells)}"))
            tables.append(details(f"{title}: numbers", _numbers(found, names, bits, "layer")))
    return figures(drawn, shown, *tables)


def none_seen(cells: Sequence[Record]) -> str:
    """What a cell of no changed class still leaves open."""
    open_ = [cell["sdc_interval"][1] for cell in cells if cell["sdc_rate"] == 0]
    if not open_:
        return "every cell has some."
    return f"0 is none seen, which leaves up to {share(max(open_))}."


def matrix(found: dict[Any, Record], rows: Sequence, columns: Sequence) -> list[list[Any]]:
    return [
        [found[row, column]["sdc_rate"] if (row, column) in found else None for column in columns]
        for row in rows
    ]


def _numbers(found: dict[Any, Record], rows: Sequence, columns: Sequence, first: str) -> Html:
    """The same cells as numbers, each above its interval."""

    def cell(row: object, column: object) -> Html:
        if (row, column) not in found:
            return html("–")
        return Html(estimated(found[row, column], "sdc_rate").replace(" <small", "<br><small"))

    lines = [(row, *(cell(row, column) for column in columns)) for row in rows]
    return table((f"{first} (% of images)", *columns), lines)


def bits(result: Result) -> Block:
    """SDC rate of every bit over all layers."""
    drawn: dict[str, bytes] = {}
    shown, tables = [], []
    lines = [
        Line(
            ", ".join(part for part in (target, setting_words(setting)) if part),
            [cell["bit"] for cell in cells],
            cells,
            *_look(target, place, setting),
        )
        for target in targets(result)
        for place, setting in enumerate(settings(result, target))
        if len(cells := by_bit(result, target, setting)) > 1
    ]
    if not lines:
        return Block(Html())
    svg = curves(lines, "sdc_rate", bit_axis(result), RATE_LABEL, rates=False)
    drawn["bits.svg"] = svg
    shown.append(figure(svg, "All layers together", "Bands are intervals."))
    for line in lines:
        rows = [
            (cell["bit"], estimated(cell, "sdc_rate"), estimated(cell, "accuracy"),
             f"{cell['trials']:,}")
            for cell in reversed(line.cells)
        ]  # fmt: skip
        head = ("bit", "another class", "images right", "struck")
        tables.append(details(f"Bit by bit: {line.name} ({len(rows)})", table(head, rows)))
    return figures(drawn, shown, *tables)


def _look(target: str, place: int, setting: tuple[Any, Any]) -> tuple[str, str]:
    """A target's own colour; where it is struck at several rates, one for each."""
    if setting == (None, None):
        return COLOURS.get(target, COLOURS["link"]), MARKERS[list(COLOURS).index(target)]
    return device_look(place)


WHERE = (
    Part("Which layers are vulnerable", ("cells",), layers),
    Part("Layer by layer and bit by bit", ("cells",), layer_bits),
    Part("Which bits are vulnerable", ("cells",), bits),
)
