"""What job `campaign` says: how vulnerable the network is, where, and with what certainty."""

from collections.abc import Sequence

from markupsafe import Markup

from afpjax.jobs.campaign import view_layers, view_outcomes
from afpjax.jobs.campaign.cells import (
    CHANGED,
    LAYER,
    STRUCK,
    TARGETS,
    bit_name,
    estimated,
    highest_first,
    others,
    share,
    telling,
    where,
)
from afpjax.jobs.campaign.result import (
    ALL,
    CampaignResult,
    CellResult,
    Design,
    PublishedResult,
    PublishedShare,
)
from afpjax.jobs.shared import view as shared
from afpjax.jobs.shared.result import NumberFormat
from afpjax.report.view import Block, Bullets, Column, Details, Paragraph, Part, Table, Text, View
from afpjax.report.wording import GAP, join, number, percent, rate, scaled, short

__all__ = ["view"]

_FAULTS = {
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
_INTERVALS = {
    "wilson": "Wilson",
    "clopper-pearson": "Clopper-Pearson",
    "by image": "over images (the faults are given)",
    "two-way": "two-way (masks and images)",
}
_NOT_FINITE = {
    "detected": "An output that is infinite or NaN is seen to be wrong: the image is not right, "
    "and its class is not silently another.",
    "argmax": "Nobody looks whether an output is infinite or NaN: the image has the class that "
    "argmax makes of it, where NaN is above all numbers and the first one wins.",
}
_SHOWN = 12  # cells that the terminal has room for
_PREDICTED = 20  # cells of a prediction that are listed


def view(result: CampaignResult) -> View:
    """Which layers, bits and rates are the worst, how faults end, and what stands behind that."""
    told, published = measured(result), result.published
    several = f"{_SHOWN} of {len(result.cells)} cells are shown; cells.csv has all."
    return View(
        headline=headline(result),
        lead=[f"{told}{estimand(result.design)}"],
        parts=[
            Part("What others measured of these faults", beside_theirs(published)),
            Part("Which layers are vulnerable", view_layers.layers(result)),
            Part("Layer by layer and bit by bit", view_layers.layer_bits(result)),
            Part("Which bits are vulnerable", view_layers.bits(result)),
            Part("Rate by rate, device by device", view_layers.rates(result)),
            Part("The listed faults", view_outcomes.listed(result)),
            Part("How faults end", view_outcomes.endings(result)),
            Part("Which class becomes which", view_outcomes.confusion(result)),
            Part("The worst faults", view_outcomes.worst(result)),
            Part("What could be known before striking", predicted(result)),
            Part("How this was measured", [Bullets(method(result))]),
        ],
        summary=[
            most_vulnerable(result.cells),
            told,
            *([agreement(published)] if published else []),
            *([several] if len(result.cells) > _SHOWN else []),
        ],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


def headline(result: CampaignResult) -> Markup:
    """How likely a fault changes a class, and where it is worst."""
    if sites := [cell for cell in result.cells if cell.site]:
        worst = highest_first(sites)[0]
        return Markup(
            "Of {} listed faults, struck again, the worst changes the class of <b>{}</b> of the "
            "images: bit {} of a value in <b>{}</b> ({})."
        ).format(
            f"{len(sites):,}", estimated(worst.sdc_rate), worst.bit,
            short(worst.layer, 40), worst.target,
        )  # fmt: skip
    return _masks(result) if result.cells[0].rate is not None else _faults(result)


def _faults(result: CampaignResult) -> Markup:
    """Of a fault drawn from all there are, by target; and the layer and the bit that are worst."""
    design, targets = result.design, telling(result)
    one, many = _FAULTS.get(design.fault, ("fault", "faults"))
    what, count = f"One random {one} changes", design.faults_per_trial or 1
    if count > 1:
        what = f"{count:,} random {many} together change"
    elif design.name == "listed":
        what = f"A {one} of the list changes"
    chances = [
        Markup("<b>{}</b> in {}").format(
            estimated(struck.whole[0].sdc_rate), TARGETS[struck.target]
        )
        for struck in targets
    ]
    most = max(targets, key=lambda struck: struck.whole[0].sdc_rate.value)
    worst = [_highest(cells, result.format) for cells in (most.layers, most.bits) if len(cells) > 1]
    text = Markup("{} the class of an image with a chance of {}").format(
        what, Markup(join(chances))
    )
    if worst:
        among = f" among {TARGETS[most.target]}" if len(targets) > 1 else ""
        text += Markup("; it is highest{} in {}").format(among, Markup(" and in ").join(worst))
    return text + "."


def _highest(cells: Sequence[CellResult], form: NumberFormat) -> Markup:
    """`conv1 (38.3 %)`, `bit 15, the sign (10.7 %, not told apart from 2 others)`."""
    most = highest_first(cells)[0]
    name = short(most.layer, 40) if most.layer != ALL else bit_name(most.bit, form)
    return Markup("<b>{}</b> ({}{})").format(name, share(most.sdc_rate.value), others(cells))


def _masks(result: CampaignResult) -> Markup:
    """The worst cell at the rate that tells most."""
    ranked = [highest_first(struck.cells) for struck in telling(result)]
    cells = max(ranked, key=lambda cells: cells[0].sdc_rate.value)
    most = cells[0]
    bit = "" if most.bit == ALL else f"{bit_name(most.bit, result.format)} of "
    alone = "" if most.layer == ALL else Markup(" of <b>{}</b> alone").format(short(most.layer, 40))
    return Markup(
        "Struck at a rate of {}{} in {}{}{}{}, the network gives <b>{}</b> of the images another "
        "class and has {} right."
    ).format(
        rate(most.rate or 0.0),
        f" (that of {most.device})" if most.device else "",
        bit,
        TARGETS[most.target],
        alone,
        f", the worst of {len(cells)} cells{others(cells)}" if len(cells) > 1 else "",
        estimated(most.sdc_rate),
        percent(most.accuracy.value),
    )


def measured(result: CampaignResult) -> str:
    """What was struck and how often, what is right without faults, and how fast it was."""
    design, clean, speed = result.design, result.clean, result.throughput
    one, many = _FAULTS.get(design.fault, ("fault", "faults"))
    what = many if design.trials > 1 else one
    if (design.faults_per_trial or 1) > 1:
        what = f"trials of {design.faults_per_trial:,} {many} at once"
    elif design.name in ("bernoulli", "listed"):
        what = f"masks of random {many}" if design.name == "bernoulli" else f"listed {what}"
    targets = join(list(dict.fromkeys(cell.target for cell in result.cells)))
    parted = f", {design.strata:,} cells" if design.strata > 1 else ""
    return (
        f"{design.trials:,} {what} in {targets}{parted}, each met by the same {clean.images:,} "
        f"images, {percent(clean.accuracy)} of which are right without faults. Intervals are "
        f"{_INTERVALS.get(design.interval, design.interval)}, {100 * design.confidence:g}{GAP}%. "
        f"Speed: {speed.inferences_per_second:,.0f} images × trials a second; without faults, "
        f"{speed.clean_inferences_per_second:,.0f} images a second."
    )


def estimand(design: Design) -> str:
    """What a rate is a share of, where it is the same for all targets."""
    texts = set(design.estimand.values())
    return f" A rate here is the {texts.pop()}." if len(texts) == 1 else ""


def most_vulnerable(cells: Sequence[CellResult]) -> Table[CellResult]:
    """Cells by SDC rate: the whole network's first, then layers', then bits', then the rest."""

    def rank(cell: CellResult) -> int:
        layer, bit = cell.layer != ALL, cell.bit != ALL
        return layer + bit + (bit and not layer)

    rows = sorted(highest_first(cells), key=rank)[:_SHOWN]
    columns = [LAYER]
    for column in (Column("bit", lambda cell: cell.bit), Column("target", where, left=True)):
        # One that is the same in every row says nothing, but takes room.
        columns += [column] if len({column.cell(row) for row in rows}) > 1 else []
    columns += [STRUCK, CHANGED, Column("images right", lambda cell: percent(cell.accuracy.value))]
    return Table(columns, rows)


def agreement(found: PublishedResult) -> str:
    """What others measured of the same faults, in a few sentences."""
    whole, scores = found.whole, found.scores
    text = (
        f"Others struck these {found.faults:,} faults on {found.published_images:,} images, of "
        f"which the {found.images:,} here are taken for a sample: the class is another for "
        f"{_exact(whole.published_rate)} of their (fault, image) pairs, here for "
        f"{_exact(whole.sdc_rate.value)} ({_exact(whole.sdc_rate.low)} to "
        f"{_exact(whole.sdc_rate.high)}). Theirs is inside the interval for {found.bits_inside} of "
        f"{len(found.bits)} bits and for {found.layers_inside} of {len(found.layers)} layers."
    )
    if scores.rms is not None and scores.inside is not None:
        text += (
            f" Of {scores.faults:,} faults at least {scores.expected_images} images should be "
            "critical, and as many not: their standard scores have a root mean square of "
            f"{number(scores.rms)}, 1 if nothing but the images differs, and "
            f"{percent(scores.inside)} are within ±1.96."
        )
    return text


def _exact(fraction: float) -> str:
    """In percent with three digits, to be compared."""
    return f"{number(100 * fraction)}{GAP}%"


def beside_theirs(found: PublishedResult | None) -> list[Block]:
    """Their shares beside ours, bit by bit and layer by layer."""
    if found is None:
        return []

    def table(first: Column, parts: Sequence[PublishedShare]) -> Table[PublishedShare]:
        columns = [
            first,
            Column("theirs", lambda part: share(part.published_rate)),
            Column("here", lambda part: estimated(part.sdc_rate)),
            Column("inside", lambda part: "yes" if part.inside else "no"),
            Column("faults", lambda part: f"{part.faults:,}"),
        ]
        return Table(columns, parts)

    bits = table(Column("bit", lambda part: part.bit), found.bits[::-1])
    note = (
        "Intervals are over images: faults are the same on both sides, and those of a bit or a "
        f"layer share their images. Of logits, {percent(found.masked.published_rate)} were equal "
        f"to the bit there and {percent(found.masked.rate)} here, which depends on the order that "
        "sums are made in. faults.csv has every fault with its score."
    )
    return [
        Paragraph(agreement(found)),
        Details(f"Bit by bit ({len(found.bits)})", [bits]),
        Details(f"Layer by layer ({len(found.layers)})", [table(LAYER, found.layers)]),
        Paragraph(note, "note"),
    ]


def predicted(result: CampaignResult) -> list[Block]:
    """What the loss's derivatives say, before anything is struck, beside what was measured."""
    rows = result.vulnerability
    if not rows:
        return []
    order = sorted(rows, key=lambda row: -row.sdc_rate)
    places = [(place, row) for place, row in enumerate(rows[:_PREDICTED], 1)]
    columns = [
        Column("", lambda pair: pair[0]),
        Column("layer", lambda pair: pair[1].layer, left=True),
        Column("bit", lambda pair: pair[1].bit, left=True),
        Column("target", lambda pair: where(pair[1]), left=True),
        Column("loss added", lambda pair: number(pair[1].predicted)),
        Column("measured", lambda pair: share(pair[1].sdc_rate)),
        Column("its place", lambda pair: order.index(pair[1]) + 1),
    ]
    text = (
        "The loss that faults should add, from one backward pass and nothing struck (second order "
        "in the flips), ordered beside the SDC rate that was measured."
    )
    if ranks := result.vulnerability_correlation:
        said = [f"{rank.target} {rank.spearman:.2f}".replace("-", "−") for rank in ranks]
        text += f" Rank correlation between the two: {join(said)}."
    title = f"The {len(places)} highest of {len(rows):,}"
    return [Paragraph(text), Details(title, [Table(columns, places)])]


def method(result: CampaignResult) -> list[Text]:
    """Everything that stands behind the numbers."""
    design, form = result.design, result.format
    said: list[Text] = [_DESIGNS[design.name]]
    if design.population is not None:
        said.append(f"{design.trials:,} trials from {scaled(design.population)} possible faults.")
    said += [Markup("<b>{}</b>: {}.").format(*pair) for pair in design.estimand.items()]
    if design.level > design.confidence:
        said.append(
            "Cells stop as soon as their interval is narrow enough; to cover "
            f"{100 * design.confidence:g}{GAP}% of the time all the same, intervals are computed "
            f"at {100 * design.level:.3g}{GAP}%."
        )
    if design.margin is not None:
        what = "accuracy" if design.name == "bernoulli" else "SDC rate"
        said.append(f"Wanted: {what} within ±{share(design.margin, unit=False)} points.")
    said += [
        "An image's class is changed against the same network without faults (SDC-1), whether that "
        "was right or not; images right are held against the labels.",
        _NOT_FINITE[design.not_finite],
        f"Numbers are {form.kind}, {form.bits} bits.",
        f"{result.throughput.passes:,} passes of an image under faults.",
        "Every number is in result.json and, table by table, in the CSV files beside it.",
    ]
    return said
