"""The second half of job `campaign`'s report: how faults end, and the faults that end worst."""

import shlex
from collections import Counter
from collections.abc import Sequence

from afpjax.jobs.campaign.view_cells import TARGETS as WHERE_STRUCK
from afpjax.jobs.campaign.view_cells import (
    Record,
    by_bit,
    by_layer,
    estimated,
    setting_words,
    share,
    targets,
    telling,
    whole,
)
from afpjax.jobs.campaign.view_figures import ends, heat
from afpjax.report.markup import Html, details, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import rate

__all__ = ["ENDS"]

#: Key -> heading, and what it means.
_OUTCOMES = {
    "masked": ("masked", "no logit moved"),
    "tolerable": ("tolerable", "logits moved, class kept, its probability within 10 %"),
    "sdc1": ("SDC-1", "another class than without the fault"),
    "sdc5": ("SDC-5", "the fault-free class is not among the five highest"),
    "sdc10": ("SDC-10 %", "the fault-free class's probability is off by more than 10 % of itself"),
    "sdc20": ("SDC-20 %", "the same by more than 20 %"),
    "non_finite": ("not finite", "a logit is infinite or not a number, so the fault is seen"),
}
_CLASSES = 20  # up to which the confusion is a heat map
_PAIRS = 15
_COMMAND_SITES = 5  # faults that the command has
_ROWS = 60  # bars that the figure of endings has room for


def endings(result: Result) -> Block:
    """Shares that sum to one as bars; every outcome as a table."""
    drawn: dict[str, bytes] = {}
    shown, tables = [], []
    for target in targets(result):
        setting = telling(result, target)
        cells, name = _parted(result, target, setting)
        if not cells or "masked" not in cells[0]:
            continue
        words = setting_words(setting)
        where = WHERE_STRUCK.get(target, target)
        title = f"Faults in {where}{f', {words}' if words else ''}"
        if len(cells) <= _ROWS:
            svg = ends(cells, [str(cell[name]) for cell in cells])
            drawn[f"endings-{target}.svg"] = svg
            shown.append(figure(svg, title))
        rows = [
            (cell[name], *(share(cell[key]) if key in cell else "–" for key in _OUTCOMES))
            for cell in cells
        ]
        head = (name, *(words for words, _ in _OUTCOMES.values()))
        tables.append(details(f"{title}: every outcome", table(head, rows)))
    if not tables:
        return Block(Html())
    items = "".join(f"<li><b>{name}</b>: {text}.</li>" for name, text in _OUTCOMES.values())
    meaning = details("What the outcomes mean", Html(f"<ul>{items}</ul>"))
    figures = Html(f"<div class={'pair' if len(shown) > 1 else 'single'}>{join(shown)}</div>")
    return Block(join([figures, *tables, meaning]), drawn)


def _parted(result: Result, target: str, setting: tuple) -> tuple[Sequence[Record], str]:
    """The whole and its layers (or bits), or the listed faults; and the key that names them."""
    listed = [c for c in result["cells"] if "site" in c and c["target"] == target]
    if listed:
        return listed, "site"
    together = whole(result, target, setting)
    if layers := by_layer(result, target, setting):
        return [*together, *layers], "layer"
    return [*together, *by_bit(result, target, setting)], "bit"


def confusion(result: Result) -> Block:
    """Which class a changed image had, and which it got."""
    pairs = sorted(result["confusion"], key=lambda pair: -pair["count"])
    total = sum(pair["count"] for pair in pairs)
    sinks = Counter[int]()
    for pair in pairs:
        sinks[pair["to"]] += pair["count"]
    sink, most = sinks.most_common(1)[0]
    first = pairs[0]
    text = (
        f"Of {total:,} changed classes, {share(most / total)} end in class {sink}; the most "
        f"frequent change is from class {first['from']} to class {first['to']} "
        f"({share(first['count'] / total)}). Counted as struck: a cell counts by its trials."
    )
    rows = [
        (f"{pair['from']} → {pair['to']}", f"{pair['count']:,}", share(pair["count"] / total))
        for pair in pairs[:_PAIRS]
    ]
    listing = table(("from → to", "times", "of all"), rows)
    classes = 1 + max(max(pair["from"], pair["to"]) for pair in pairs)
    if classes > _CLASSES:
        return Block(join([paragraph(text), listing]))
    found = {(pair["from"], pair["to"]): pair["count"] / total for pair in pairs}
    names = [str(index) for index in range(classes)]
    values = [
        [None if row == column else found.get((row, column), 0) for column in range(classes)]
        for row in range(classes)
    ]
    svg = heat(values, names, names, "class under the fault", "class without it")
    shown = figure(svg, "From class to class", "Share of all changed classes.")
    most_frequent = details(f"The {len(rows)} most frequent changes", listing)
    return Block(join([paragraph(text), shown, most_frequent]), {"confusion.svg": svg})


def worst(result: Result) -> Block:
    """The faults that changed most images, and how to strike them again."""
    rows = [
        (share(each["sdc_rate"]), each["layer"], each["bit"], _target(each), _sites(each))
        for each in result["worst"]
    ]
    head = ("images changed", "layer", "bit", "struck", "fault")
    listing = table(head, rows, words=(1, 2, 3, 4))
    same = [each for each in result["worst"] if each.get("same_in_every_image")]
    again = [_command(same)] if same else []
    if len(same) < len(rows):
        again.append(
            paragraph(
                "A trial that is not named by one site draws its faults from its cell, its number "
                "and the seed: the same experiment and seed strikes it again.",
                kind="note",
            )
        )
    return Block(join([*again, details(f"The {len(rows)} worst", listing)]))


def _target(each: Record) -> str:
    return f"{each['target']}, rate {rate(each['rate'])}" if "rate" in each else each["target"]


def _sites(each: Record) -> Html:
    """Its site, or its trial's number where it has none or one for each image."""
    if each.get("same_in_every_image"):
        return Html(f"<span class=sites>{html(' '.join(each['sites']))}</span>")
    return html(f"trial {each['trial']:,}")


def _command(faults: Sequence[Record]) -> Html:
    """The worst of them struck again, in the experiment of this run's folder."""
    alone = [each["sites"][0] for each in faults if len(each["sites"]) == 1][:_COMMAND_SITES]
    if not alone:
        return Html()
    text = (
        "python -m afpjax.run campaign --config config.toml --out again "
        "--campaign.design listed --campaign.sites "
    )
    sites = " ".join(shlex.quote(site) for site in alone)
    count = "The worst fault" if len(alone) == 1 else f"The {len(alone)} worst"
    told = paragraph(f"{count}, struck again in this run's folder:")
    return Html(f"{told}<p class=command>{html(text + sites)}</p>")


def listed(result: Result) -> Block:
    """Every listed fault, and the images whose class it changed."""
    cells = [cell for cell in result["cells"] if "site" in cell]
    if not cells:
        return Block(Html())
    rows = [
        (Html(f"<span class=sites>{html(cell['site'])}</span>"), estimated(cell, "sdc_rate"),
         estimated(cell, "accuracy"))
        for cell in sorted(cells, key=lambda cell: -cell["sdc_rate"])
    ]  # fmt: skip
    shown = table(("fault", "another class", "images right"), rows)
    changed = [
        (Html(f"<span class=sites>{html(each['site'])}</span>"), each["image"],
         f"{each['before']} → {each['after']}")
        for each in result.get("changed", ())
    ]  # fmt: skip
    if not changed:
        return Block(shown)
    more = details(
        f"Images whose class changed ({len(changed):,})",
        table(("fault", "image", "class"), changed),
    )
    return Block(join([shown, more]))


ENDS = (
    Part("The listed faults", ("cells",), listed),
    Part("How faults end", ("cells",), endings),
    Part("Which class becomes which", ("confusion",), confusion),
    Part("The worst faults", ("worst",), worst),
)
