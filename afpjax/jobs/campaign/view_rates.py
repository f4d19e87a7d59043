"""Job `campaign` over the rates of its masks, or on the devices that have them."""

from afpjax.jobs.campaign.view_cells import (
    COLOURS,
    TARGETS,
    by_layer,
    estimated,
    setting_words,
    settings,
    targets,
    telling,
    whole,
)
from afpjax.jobs.campaign.view_figures import Line, curves, heat, ranking
from afpjax.jobs.campaign.view_where import RATE_LABEL, figures, matrix, none_seen, title_of
from afpjax.report.charts import device_look
from afpjax.report.markup import Html, details, figure, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import rate

__all__ = ["RATES"]

_RIGHT = "images right (%)"
_LINES = 5  # layers that curves are drawn of


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
    return figures(drawn, shown, *tables)


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
    for key, label in (("accuracy", _RIGHT), ("sdc_rate", RATE_LABEL)):
        svg = curves(lines, key, "chance that a faulty bit is struck", label, rates=True)
        title = f"{title_of(result, target)}: {label[:-4]}"
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
    svg = heat(matrix(found, names, options), names, columns, across)
    caption = f"{RATE_LABEL[:-4]}; {none_seen(cells)}"
    return [("layer-rate", svg, figure(svg, title_of(result, target), caption))]


def _devices(result: Result, target: str) -> list[tuple[str, bytes, Html]]:
    """All layers on one device: a row each."""
    cells = [cell for cell in whole(result, target) if "device" in cell]
    if not cells:
        return []
    svg = ranking(cells, [cell["device"] for cell in cells], COLOURS.get(target, ""), RATE_LABEL)
    return [("devices", svg, figure(svg, title_of(result, target), "Bars are intervals."))]


def _settings(result: Result, target: str) -> Html:
    """Every cell of a target that is not one bit's."""
    cells = [*whole(result, target), *by_layer(result, target)]
    rows = [
        (cell["layer"], setting_words((cell["rate"], cell.get("device"))),
         estimated(cell, "sdc_rate"), estimated(cell, "accuracy"), f"{cell['trials']:,}")
        for cell in cells
    ]  # fmt: skip
    head = ("layer", "struck at", "another class", "images right", "masks")
    return details(f"{title_of(result, target)}: every cell", table(head, rows, (1,)))


RATES = (Part("Rate by rate, device by device", ("cells",), rates),)
