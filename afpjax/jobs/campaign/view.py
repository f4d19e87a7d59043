"""The report of job `campaign`: how vulnerable the network is, where, and with what certainty."""

from collections.abc import Sequence

from afpjax.jobs.campaign.view_cells import (
    TARGETS,
    Record,
    apart,
    bits_words,
    bounds,
    by_bit,
    by_layer,
    share,
    span,
    targets,
    telling,
    whole,
)
from afpjax.jobs.campaign.view_ends import ENDS
from afpjax.jobs.campaign.view_measured import FAULTS, MEASURED, speed, struck
from afpjax.jobs.campaign.view_published import PUBLISHED
from afpjax.jobs.campaign.view_rates import RATES
from afpjax.jobs.campaign.view_where import WHERE
from afpjax.report.markup import Html, html, join, paragraph
from afpjax.report.story import Result, Story
from afpjax.report.wording import GAP, percent, rate, short
from afpjax.report.wording import join as listing

__all__ = ["STORY"]


def answer(result: Result) -> Html:
    """How likely a fault changes a class, and where it is worst."""
    design, cells = result.get("design", {}), result.get("cells", ())
    if not cells:
        return html("How vulnerable the network is")
    if any("site" in cell for cell in cells):
        return _listed(cells)
    if any("rate" in cell for cell in cells):
        return _masks(result)
    most = max(targets(result), key=lambda target: whole(result, target)[0]["sdc_rate"])
    count = design.get("faults_per_trial", 1)
    fault, faults = FAULTS.get(design.get("fault", ""), ("fault", "faults"))
    one = f"One random {fault} changes"
    if count > 1:
        one = f"{count:,} random {faults} together change"
    if design.get("name") == "listed":
        one = f"A {fault} of the list changes"
    chances = listing([_chance(result, target) for target in targets(result)])
    return Html(
        f"{html(one)} the class of an image with a chance of {chances}{_worst(result, most)}."
    )


def _chance(result: Result, target: str) -> Html:
    (cell,) = whole(result, target)
    where = TARGETS.get(target, target)
    return Html(f"<b>{share(cell['sdc_rate'])}</b> {_small(cell)} in {html(where)}")


def _small(cell: Record) -> Html:
    return Html(f"<small class=nobr>{html(span(bounds(cell, 'sdc_rate')))}</small>")


def _worst(result: Result, target: str) -> Html:
    """`; it is highest in conv1 (38.3 %) and in bits 13, 14 and the sign, 15 (up to 10.7 %)`."""
    layers, bits = by_layer(result, target), by_bit(result, target)
    found = []
    if len(layers) > 1:
        worst = apart(layers)
        name = html(short(worst[0]["layer"], 40))
        found.append(Html(f"<b>{name}</b> ({share(worst[0]['sdc_rate'])}{_others(worst)})"))
    if len(bits) > 1:
        worst = apart(bits)
        few = worst if len(worst) < len(bits) else worst[:1]
        up_to = "up to " * (len(few) > 1)
        words = html(bits_words([cell["bit"] for cell in few], result))
        others = "" if few == worst else _others(worst)
        found.append(Html(f"<b>{words}</b> ({up_to}{share(few[0]['sdc_rate'])}{others})"))
    among = f" among {html(TARGETS.get(target, target))}" if len(targets(result)) > 1 else ""
    return Html(f"; it is highest{among} in {' and in '.join(found)}") if found else Html()


def _others(cells: Sequence[Record]) -> str:
    """How many have intervals that reach the highest one's."""
    count = len(cells) - 1
    return f", not told apart from {count} other{'s' * (count > 1)}" if count else ""


def _listed(cells: Sequence[Record]) -> Html:
    worst = max(cells, key=lambda cell: cell["sdc_rate"])
    count = f"Of the {len(cells):,} listed faults, struck again, the worst" if cells[1:] else (
        "The listed fault, struck again,"
    )  # fmt: skip
    return Html(
        f"{count} changes the class of <b>{share(worst['sdc_rate'])}</b> {_small(worst)} of the "
        f"images: bit {html(worst['bit'])} of a value in <b>{html(short(worst['layer'], 40))}</b> "
        f"({html(worst['target'])})."
    )


def _masks(result: Result) -> Html:
    """The highest cell at the rate that tells most."""
    options = []
    for target in targets(result):
        setting = telling(result, target)
        mine = [
            cell
            for cell in result["cells"]
            if (cell.get("rate"), cell.get("device")) == setting and cell["target"] == target
        ]
        options.append(apart(mine))
    worst = max(options, key=lambda cells: cells[0]["sdc_rate"])
    cell, close = worst[0], _others(worst)
    bits = "each faulty bit" if cell["bit"] == "all" else bits_words([cell["bit"]], result)
    alone = Html(f" of <b>{html(short(cell['layer'], 40))}</b> alone")
    place = alone if cell["layer"] != "all" else ""
    kind = "layer" if cell["bit"] == "all" else "place"
    most = f", the worst {kind}{close}," if place else ""
    device = f" (that of {html(cell['device'])})" if "device" in cell else ""
    return Html(
        f"Struck at a rate of {rate(cell['rate'])}{device} in {html(bits)} of "
        f"{html(TARGETS.get(cell['target'], cell['target']))}{place}{most} the network gives "
        f"<b>{share(cell['sdc_rate'])}</b> {_small(cell)} of the images another class and has "
        f"{percent(cell['accuracy'])} right."
    )


def lead(result: Result) -> Html:
    """What was struck and how often, what a rate is a share of, and how fast it was."""
    design, clean = result.get("design", {}), result.get("clean", {})
    if not design:
        return Html()
    estimands = dict.fromkeys(design.get("estimand", {}).values())
    shares = "".join(f" A rate here is the {html(text)}." for text in estimands if text)
    if len(estimands) > 1:
        shares = f" What a rate is a share of: see {MEASURED[-1].title.lower()}."
    right = (
        f" Without faults {percent(clean['accuracy'])} of {clean['images']:,} images are right."
        if "accuracy" in clean
        else ""
    )
    kind = {
        "wilson": "Wilson",
        "clopper-pearson": "Clopper-Pearson",
        "by image": "over images (the faults are given)",
    }.get(design["interval"], "two-way (masks and images)")
    intervals = f" Intervals are {kind}, {100 * design['confidence']:g}{GAP}%."
    body = [struck(result), Html(shares), right, intervals, speed(result)]
    return paragraph(join(body))


STORY = Story(answer, lead, (*PUBLISHED, *WHERE, *RATES, *ENDS, *MEASURED))
