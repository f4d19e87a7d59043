"""The first half of job `campaign`'s report: which layers, bits and rates are the worst."""

from collections.abc import Callable, Sequence
from typing import Any

from afpjax.report.campaign_cells import (
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
    whole,
)
from afpjax.report.campaign_figures import SHOWN, Line, curves, heat, ranking
from afpjax.report.drawing import device_look
from afpjax.report.markup import Html, details, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.style import MARKERS
from afpjax.report.wording import rate

__all__ = ["WHERE"]

_RATE = "images of another class (%)"
_RIGHT = "images right (%)"
_MAPS = 6  # heat maps of one target: one for each rate, as far as there is room
_LINES = 5  # layers that curves are drawn of


def _title(result: Result, target: str, more: str = "") -> str:
    """`Faults in the weights, rate 0.1`."""
    return f"Faults in {TARGETS.get(target, target)}{f', {more}' if more else ''}"


def _figures(drawn: dict[str, bytes], shown: Sequence[Html], *more: object) -> Block:
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
        title = _title(result, target, setting_words(setting))
        some = f" The {SHOWN} highest of {len(cells)}." if len(cells) > SHOWN else ""
        top = cells[:SHOWN]
        svg = ranking(top, [c["layer"] for c in top], COLOURS.get(target, COLOURS["link"]), _RATE)
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
    return _figures(drawn, shown, *tables, note)


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
            title = _title(result, target, setting_words(setting))
            svg = heat(_matrix(found, names, bits), names, [str(b) for b in bits], bit_axis(result))
            drawn[f"layer-bit-{target}{f'-{number + 1}' if number else ''}.svg"] = svg
            shown.append(figure(svg, title, f"{_RATE[:-4]}; {_none(cells)}"))
            tables.append(details(f"{title}: numbers", _numbers(found, names, bits, "layer")))
    return _figures(drawn, shown, *tables)


def _none(cells: Sequence[Record]) -> str:
    """What a cell of no changed class still leaves open."""
    open_ = [cell["sdc_interval"][1] for cell in cells if cell["sdc_rate"] == 0]
    if not open_:
        return "every cell has some."
    return f"0 is none seen, which leaves up to {share(max(open_))}."


def _matrix(found: dict[Any, Record], rows: Sequence, columns: Sequence) -> list[list[Any]]:
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
    svg = curves(lines, "sdc_rate", bit_axis(result), _RATE, rates=False)
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
    return _figures(drawn, shown, *tables)


def _look(target: str, place: int, setting: tuple[Any, Any]) -> tuple[str, str]:
    """A target's own colour; where it is struck at several rates, one for each."""
    if setting == (None, None):
        return COLOURS.get(target, COLOURS["link"]), MARKERS[list(COLOURS).index(target)]
    return device_look(place)


def rates(result: Result) -> Block:
    """Accuracy and SDC rate over the rates, or on the devices."""
    if all("rate" not in cell for cell in result["cells"]):
        return Block(Html())
    drawn: dict[str, bytes] = {}
    shown, tables = [], []
    for target in targets(result):
        for part in (_curves, _map, _devices):
            for name, svg, shown_as in part(result, target):
                drawn[f"{name}-{target}.svg"] = svg
                shown.append(shown_as)
        tables.append(_settings(result, target))
    return _figures(drawn, shown, *tables)


def _curves(result: Result, target: str) -> list[tuple[str, bytes, Html]]:
    """Over the rates: all layers together, or the layers that fare worst."""
    if len(settings(result, target)) < 2 or any(s[1] for s in settings(result, target)):
        return []
    if together := whole(result, target):
        chosen = {TARGETS.get(target, target): together}
    else:
        worst = sorted(
            by_layer(result, target, telling(result, target)), key=lambda cell: -cell["sdc_rate"]
        )[:_LINES]
        every = by_layer(result, target)
        chosen = {
            cell["layer"]: [each for each in every if each["layer"] == cell["layer"]]
            for cell in worst
        }
    if not chosen:
        return []
    lines = []
    for place, (name, cells) in enumerate(chosen.items()):
        ordered = sorted(cells, key=lambda cell: cell["rate"])
        lines.append(Line(name, [c["rate"] for c in ordered], ordered, *device_look(place)))
    about = "Bands are intervals." if together else f"The {len(lines)} layers that fare worst."
    made = []
    for key, label in (("accuracy", _RIGHT), ("sdc_rate", _RATE)):
        svg = curves(lines, key, "chance that a faulty bit is struck", label, rates=True)
        title = f"{_title(result, target)}: {label[:-4]}"
        made.append((f"rates-{key.removesuffix('_rate')}", svg, figure(svg, title, about)))
    return made


def _map(result: Result, target: str) -> list[tuple[str, bytes, Html]]:
    """Layer × rate, or layer × device."""
    cells = by_layer(result, target)
    options = settings(result, target)
    if len({cell["layer"] for cell in cells}) < 2 or len(options) < 2:
        return []
    names = list(dict.fromkeys(cell["layer"] for cell in cells))
    found = {(cell["layer"], (cell["rate"], cell.get("device"))): cell for cell in cells}
    columns = [device or rate(chance) for chance, device in options if chance is not None]
    across = "device" if options[0][1] else "chance that a faulty bit is struck"
    svg = heat(_matrix(found, names, options), names, columns, across)
    caption = f"{_RATE[:-4]}; {_none(cells)}"
    return [("layer-rate", svg, figure(svg, _title(result, target), caption))]


def _devices(result: Result, target: str) -> list[tuple[str, bytes, Html]]:
    """All layers on one device: a row each."""
    cells = [cell for cell in whole(result, target) if "device" in cell]
    if not cells:
        return []
    svg = ranking(cells, [cell["device"] for cell in cells], COLOURS.get(target, ""), _RATE)
    return [("devices", svg, figure(svg, _title(result, target), "Bars are intervals."))]


def _settings(result: Result, target: str) -> Html:
    """Every cell of a target that is not one bit's."""
    cells = [*whole(result, target), *by_layer(result, target)]
    rows = [
        (cell["layer"], setting_words((cell["rate"], cell.get("device"))),
         estimated(cell, "sdc_rate"), estimated(cell, "accuracy"), f"{cell['trials']:,}")
        for cell in cells
    ]  # fmt: skip
    head = ("layer", "struck at", "another class", "images right", "masks")
    return details(f"{_title(result, target)}: every cell", table(head, rows, (1,)))


WHERE = (
    Part("Which layers are vulnerable", ("cells",), layers),
    Part("Layer by layer and bit by bit", ("cells",), layer_bits),
    Part("Which bits are vulnerable", ("cells",), bits),
    Part("As faults get more frequent", ("cells",), rates),
)
