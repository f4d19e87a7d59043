"""Parts of job `campaign`'s page that say which layers, bits and rates are the worst."""

from collections.abc import Sequence

from markupsafe import Markup

from afpjax.jobs.campaign import charts
from afpjax.jobs.campaign.cells import (
    CHANGED,
    COLOURS,
    LAYER,
    RIGHT,
    STRUCK,
    TARGETS,
    StruckCells,
    bit_axis,
    by_target,
    estimated,
    highest_first,
    share,
    telling,
    where,
)
from afpjax.jobs.campaign.charts import Line
from afpjax.jobs.campaign.result import CampaignResult, CellResult
from afpjax.report.charts import device_look
from afpjax.report.style import MARKERS
from afpjax.report.view import Beside, Block, Chart, Column, Details, Paragraph, Table
from afpjax.report.wording import rate

_OTHER_CLASS = "images of another class"
_AXIS = f"{_OTHER_CLASS} (%)"
_RATES_AXIS = "chance that a faulty bit is struck"
_BARS, _BANDS = "Bars are intervals.", "Bands are intervals."
_MAPS = 6  # heat maps of one target: one for each rate, as far as there is room
_LINES = 5  # layers that curves are drawn of


def layers(result: CampaignResult) -> list[Block]:
    """Layers by SDC rate, the highest first."""
    drawn, tables = [], []
    for struck in telling(result):
        cells = highest_first(struck.layers)
        if len(cells) < 2:
            continue
        top = cells[: charts.SHOWN]
        some = f" The {len(top)} highest of {len(cells)}." if len(top) < len(cells) else ""
        svg = charts.ranking(top, [cell.layer for cell in top], COLOURS[struck.target], _AXIS)
        drawn.append(Chart(f"layers-{struck.target}", svg, struck.title, f"{_BARS}{some}"))
        title = f"{struck.title}: layer by layer ({len(cells)})"
        tables.append(Details(title, _layer_by_layer(cells)))
    return [Beside(drawn), *tables] if drawn else []


def _layer_by_layer(cells: Sequence[CellResult]) -> list[Block]:
    """Single faults also with what a layer's faults, of which there are so many, do of all harm."""
    harm = {cell.layer: (cell.population or 0) * cell.sdc_rate.value for cell in cells}
    every = sum(harm.values()) or 1
    if cells[0].population is None:
        return [Table([LAYER, CHANGED, RIGHT, STRUCK], cells)]
    columns = [
        LAYER,
        CHANGED,
        Column("of all changes", lambda cell: share(harm[cell.layer] / every)),
        Column("faults that change any image", lambda cell: estimated(cell.critical_rate)),
        RIGHT,
        STRUCK,
        Column("possible", lambda cell: f"{cell.population:,}"),
    ]
    note = (
        "“Of all changes” is where the fault lay, if one strikes anywhere and changes a class: the "
        "layer's rate times its share of all possible faults."
    )
    return [Table(columns, cells), Paragraph(note, "note")]


def layer_bits(result: CampaignResult) -> list[Block]:
    """A heat map layer × bit for each target and rate."""
    drawn, tables = [], []
    for target, options in by_target(result).items():
        for number, struck in enumerate(options[:_MAPS]):
            cells = struck.grid
            names = list(dict.fromkeys(layer for layer, _ in cells))
            bits = sorted({int(bit) for _, bit in cells})
            if len(bits) < 2:
                continue
            values = [[_rate(cells.get((name, bit))) for bit in bits] for name in names]
            svg = charts.heat(values, names, [str(bit) for bit in bits], bit_axis(result.format))
            name = f"layer-bit-{target}{f'-{number + 1}' if number else ''}"
            drawn.append(Chart(name, svg, struck.title, _map_caption(list(cells.values()))))
            columns = [Column("layer (% of images)", lambda layer: layer)]
            for bit in bits:
                columns.append(Column(str(bit), lambda x, b=bit, c=cells: _stacked(c.get((x, b)))))
            tables.append(Details(f"{struck.title}: numbers", [Table(columns, names)]))
    return [Beside(drawn), *tables] if drawn else []


def _rate(cell: CellResult | None) -> float | None:
    return None if cell is None else cell.sdc_rate.value


def _stacked(cell: CellResult | None) -> Markup | None:
    """A rate above its interval."""
    text = estimated(cell.sdc_rate if cell else None)
    return text and text.replace(Markup(" <small"), Markup("<br><small"))


def _map_caption(cells: Sequence[CellResult]) -> str:
    """With what a cell of no changed class still leaves open."""
    left = [cell.sdc_rate.high for cell in cells if cell.sdc_rate.value == 0]
    none = (
        f"0 is none seen, which leaves up to {share(max(left))}" if left else "every one has some"
    )
    return f"{_OTHER_CLASS}; {none}."


def bits(result: CampaignResult) -> list[Block]:
    """SDC rate of every bit over all layers: a target in its colour, or a colour for each rate."""
    lines = []
    for place, (target, options) in enumerate(by_target(result).items()):
        for number, struck in enumerate(options):
            cells, single = struck.bits, struck.cells[0].rate is None
            if len(cells) > 1:
                look = (COLOURS[target], MARKERS[place]) if single else device_look(number)
                lines.append(Line(where(cells[0]), [int(c.bit) for c in cells], cells, *look))
    if not lines:
        return []
    svg = charts.curves(lines, "sdc_rate", bit_axis(result.format), _AXIS, rates=False)
    columns = [Column("bit", lambda cell: cell.bit), CHANGED, RIGHT, STRUCK]
    tables = [
        Details(f"Bit by bit: {line.name} ({len(line.cells)})", [Table(columns, line.cells[::-1])])
        for line in lines
    ]
    return [Beside([Chart("bits", svg, "All layers together", _BANDS)]), *tables]


def rates(result: CampaignResult) -> list[Block]:
    """Masks over the rates that they strike at, or on the devices whose rates these are."""
    drawn, tables = [], []
    for target, options in by_target(result).items():
        if options[0].cells[0].rate is None:
            return []
        drawn += [*_curves(target, options), *_map(target, options), *_devices(target, options)]
        cells = [cell for struck in options for cell in [*struck.whole, *struck.layers]]
        columns = [LAYER, Column("struck at", where, left=True), CHANGED, RIGHT, STRUCK]
        tables.append(Details(f"Faults in {TARGETS[target]}: every cell", [Table(columns, cells)]))
    return [Beside(drawn), *tables] if drawn else []


def _curves(target: str, options: Sequence[StruckCells]) -> list[Chart]:
    """Over the rates: all layers together, or the layers that fare worst at the highest rate."""
    if len(options) < 2 or options[0].cells[0].device is not None:
        return []
    ordered = sorted(options, key=lambda struck: struck.cells[0].rate or 0.0)
    about = _BANDS
    if whole := [cell for struck in ordered for cell in struck.whole]:
        chosen = {TARGETS[target]: whole}
    else:
        worst = highest_first(ordered[-1].layers)[:_LINES]
        every = [cell for struck in ordered for cell in struck.layers]
        chosen = {c.layer: [each for each in every if each.layer == c.layer] for c in worst}
        about = f"The {len(worst)} layers that fare worst."
    lines = [
        Line(name, [cell.rate or 0.0 for cell in cells], cells, *device_look(place))
        for place, (name, cells) in enumerate(chosen.items())
    ]
    made = []
    for name, key, words in (
        ("accuracy", "accuracy", "images right"),
        ("sdc", "sdc_rate", _OTHER_CLASS),
    ):
        svg = charts.curves(lines, key, _RATES_AXIS, f"{words} (%)", rates=True)
        title = f"Faults in {TARGETS[target]}: {words}"
        made.append(Chart(f"rates-{name}-{target}", svg, title, about))
    return made if lines else []


def _map(target: str, options: Sequence[StruckCells]) -> list[Chart]:
    """Layer × rate, or layer × device."""
    cells = [cell for struck in options for cell in struck.layers]
    names = list(dict.fromkeys(cell.layer for cell in cells))
    if len(names) < 2 or len(options) < 2:
        return []
    found = {(cell.layer, cell.setting): cell for cell in cells}
    settings = [struck.cells[0].setting for struck in options]
    values = [[_rate(found.get((name, setting))) for setting in settings] for name in names]
    columns = [device or rate(chance or 0.0) for chance, device in settings]
    across = "device" if settings[0][1] else _RATES_AXIS
    svg = charts.heat(values, names, columns, across)
    title = f"Faults in {TARGETS[target]}"
    return [Chart(f"layer-rate-{target}", svg, title, _map_caption(cells))]


def _devices(target: str, options: Sequence[StruckCells]) -> list[Chart]:
    """All layers on one device: a row each."""
    cells = [cell for struck in options for cell in struck.whole if cell.device]
    if not cells:
        return []
    svg = charts.ranking(cells, [cell.device or "" for cell in cells], COLOURS[target], _AXIS)
    return [Chart(f"devices-{target}", svg, f"Faults in {TARGETS[target]}", _BARS)]
