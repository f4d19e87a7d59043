"""The last part of job `campaign`'s report: what was measured, and what a prediction says of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from afpjax.jobs.campaign.view_cells import Record, share
from afpjax.report.markup import Html, details, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import GAP, number, scaled
from afpjax.report.wording import join as listing

__all__ = ["FAULTS", "MEASURED", "speed", "struck"]

FAULTS = {
    "flip": ("bit flip", "bit flips"),
    "stuck-at-0": ("bit stuck at 0", "bits stuck at 0"),
    "stuck-at-1": ("bit stuck at 1", "bits stuck at 1"),
    "burst": ("burst of flipped bits", "bursts of flipped bits"),
    "zero": ("value set to zero", "values set to zero"),
    "random": ("value replaced by another", "values replaced by others"),
    "lost": ("lost packet", "lost packets"),
}
_DESIGNS = {
    "single": "Every cell got the faults that its interval needed, drawn without replacement.",
    "neyman": "After a pilot, faults were shared out to where outcomes vary most (Neyman).",
    "exhaustive": "Every fault there is was struck, so that only the images are a choice.",
    "bernoulli": "Every faulty bit is struck by itself, at the rate of its cell, in every mask.",
    "listed": "The faults were named one by one.",
}
_NOT_FINITE = {
    "detected": "An output that is infinite or NaN is seen to be wrong: the image is not right, "
    "and its class is not silently another.",
    "argmax": "Nobody looks whether an output is infinite or NaN: the image has the class that "
    "argmax makes of it, where NaN is above all numbers and the first one wins.",
}
_LISTED = 20  # places of a prediction that are listed


def struck(result: Result) -> str:
    """How many trials of what, and how many images met them."""
    design = result["design"]
    single, several = FAULTS.get(design.get("fault", ""), ("fault", "faults"))
    images = result.get("clean", result.get("data", {})).get("images", 0)
    trials, strata = design.get("trials", 0), design.get("strata", 1)
    met = f"each met by {'the same ' * (images > 1)}{_count(images, 'image')}" if images else ""
    where = listing([str(target) for target in result.get("targets", ())]) or "the network"
    if design["name"] == "bernoulli":
        what = f"masks of random {several}"
    elif design.get("faults_per_trial", 1) > 1:
        what = f"trials of {design['faults_per_trial']:,} {several} at once"
    else:
        what = several if trials != 1 else single
    kind = "listed " if design["name"] == "listed" else ""
    where = "" if kind else f" in {where}"
    parted = f" in {strata:,} cells" if strata > 1 and not kind else ""
    return f"{trials:,} {kind}{what}{where}{parted}{f', {met}' if met else ''}."


def _count(number_: int, what: str) -> str:
    return f"{number_:,} {what}{'s' * (number_ != 1)}"


def speed(result: Result) -> str:
    """Images times trials a second, beside the clean network."""
    found = result.get("throughput", {})
    faulty = found.get("inferences_per_second")
    clean = found.get("clean_inferences_per_second")
    if not faulty:
        return ""
    beside = f"; without faults, {clean:,.0f} images a second" if clean else ""
    return f" Speed: {faulty:,.0f} images × trials a second{beside}."


def method(result: Result) -> Block:
    """Everything that stands behind the numbers, as a list."""
    design, form = result["design"], result.get("format", {})
    items: list[object] = [_DESIGNS.get(design["name"], f"Design: {design['name']}.")]
    if "population" in design:
        items.append(
            f"{design['trials']:,} trials from {scaled(design['population'])} possible faults."
        )
    for target, text in design.get("estimand", {}).items():
        items.append(Html(f"<b>{html(target)}</b>: {html(text)}."))
    items += _intervals(design)
    items.append(
        "An image's class is changed against the same network without faults (SDC-1), whether "
        "that was right or not; images right are held against the labels."
    )
    if "not_finite" in design:
        items.append(_NOT_FINITE[design["not_finite"]])
    if form:
        items.append(f"Numbers are {form['kind']}, {form['bits']} bits.")
    if "throughput" in result and "passes" in result["throughput"]:
        items.append(
            f"{result['throughput']['passes']:,} passes of an image under faults.{speed(result)}"
        )
    items.append("Every number is in result.json and, table by table, in the CSV files beside it.")
    return Block(Html(f"<ul>{join(Html(f'<li>{html(item)}</li>') for item in items)}</ul>"))


def _intervals(design: Mapping[str, Any]) -> list[str]:
    confidence, level = design["confidence"], design.get("level", design["confidence"])
    text = f"Intervals ({design['interval']}) cover {100 * confidence:g}{GAP}% of the time"
    if level > confidence:
        text += (
            f"; cells stop as soon as theirs is narrow enough, and to cover all the same they are "
            f"computed at {100 * level:.3g}{GAP}%"
        )
    text += "."
    if "margin" in design and design["name"] != "listed":
        what = "accuracy" if design["name"] == "bernoulli" else "SDC rate"
        text += f" Wanted: {what} within ±{share(design['margin'], unit=False)} points."
    return [text]


def predicted(result: Result) -> Block:
    """What the loss's derivatives say, before anything is struck, beside what was measured."""
    records = sorted(result["vulnerability"], key=lambda record: -record["predicted"])
    measured = {_key(cell): cell for cell in result.get("cells", ())}
    both = [record for record in records if _key(record) in measured]
    order = sorted(both, key=lambda record: -measured[_key(record)]["sdc_rate"])
    ranks = {_key(record): place + 1 for place, record in enumerate(order)}
    rows = [
        (
            place + 1,
            record["layer"],
            record.get("bit", "all"),
            record.get("target", ""),
            number(record["predicted"]),
            *_beside(measured.get(_key(record)), ranks.get(_key(record))),
        )
        for place, record in enumerate(records[:_LISTED])
    ]
    head = ("", "layer", "bit", "target", "loss added", "measured", "its place")
    text = (
        "The loss that faults should add, from one backward pass and nothing struck "
        "(second order in the flips), ordered beside the SDC rate that was measured."
    )
    told = _agreement(result.get("vulnerability_correlation"))
    shown = details(f"The {len(rows)} highest of {len(records):,}", table(head, rows, (1, 2, 3)))
    return Block(Html(paragraph(text, told) + shown))


def _key(record: Record) -> tuple[object, ...]:
    return record["layer"], record.get("bit", "all"), record.get("target", "weights")


def _beside(cell: Record | None, place: int | None) -> Sequence[object]:
    return ("–", "–") if cell is None else (share(cell["sdc_rate"]), place)


def _agreement(found: object) -> str:
    """Spearman's rank correlation: a number, or one for each name."""
    if isinstance(found, int | float):
        return f" Rank correlation between the two: {_signed(found)}."
    if isinstance(found, Mapping):
        said = [f"{name} {_signed(v)}" for name, v in found.items() if isinstance(v, int | float)]
        return f" Rank correlation between the two: {listing(said)}." if said else ""
    return ""


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


MEASURED = (
    Part("What could be known before striking", ("vulnerability",), predicted),
    Part("How this was measured", ("design",), method),
)
