"""Parts of job `campaign`'s page that say how faults end, and which of them end worst."""

import shlex
from collections import Counter
from collections.abc import Sequence

from afpjax.jobs.campaign import charts
from afpjax.jobs.campaign.cells import (
    CHANGED,
    LAYER,
    RIGHT,
    StruckCells,
    highest_first,
    share,
    site,
    telling,
    where,
)
from afpjax.jobs.campaign.result import CampaignResult, CellResult, Confusion, WorstFault
from afpjax.report.view import Beside, Block, Bullets, Chart, Column, Details, Paragraph, Table

#: Field of `Endings` -> heading, and what it means.
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
_FAULT = Column("fault", lambda row: site(row.site))


def listed(result: CampaignResult) -> list[Block]:
    """Every fault that was named, and the images whose class it changed."""
    cells = highest_first([cell for cell in result.cells if cell.site])
    if not cells:
        return []
    blocks: list[Block] = [Table([_FAULT, CHANGED, RIGHT], cells)]
    if result.changed:
        columns = [
            _FAULT,
            Column("image", lambda row: row.image),
            Column("class", lambda row: f"{row.before} → {row.after}"),
        ]
        title = f"Images whose class changed ({len(result.changed):,})"
        blocks.append(Details(title, [Table(columns, result.changed)]))
    return blocks


def endings(result: CampaignResult) -> list[Block]:
    """Shares that sum to one as bars; every outcome as a table."""
    drawn, tables = [], []
    for struck in telling(result):
        first, cells = _rows(struck)
        if not cells:
            continue
        if len(cells) <= _ROWS:
            names = [str(cell.site or first.cell(cell)) for cell in cells]
            svg = charts.ends([cell.endings for cell in cells], names)
            drawn.append(Chart(f"endings-{struck.target}", svg, struck.title))
        columns = [first]
        for key, (name, _) in _OUTCOMES.items():
            columns.append(Column(name, lambda cell, key=key: share(getattr(cell.endings, key))))
        tables.append(Details(f"{struck.title}: every outcome", [Table(columns, cells)]))
    meaning = Bullets([f"{name}: {text}." for name, text in _OUTCOMES.values()])
    return [Beside(drawn), *tables, Details("What the outcomes mean", [meaning])] if tables else []


def _rows(struck: StruckCells) -> tuple[Column, Sequence[CellResult]]:
    """Named faults, or the whole with its layers, or else with its bits; and what names them."""
    if struck.sites:
        return _FAULT, struck.sites
    if struck.layers:
        return LAYER, [*struck.whole, *struck.layers]
    return Column("bit", lambda cell: cell.bit), [*struck.whole, *struck.bits]


def confusion(result: CampaignResult) -> list[Block]:
    """Which class a changed image had, and which it got."""
    pairs = sorted(result.confusion, key=lambda pair: -pair.count)
    if not pairs:
        return []
    total, first, sinks = sum(pair.count for pair in pairs), pairs[0], Counter[int]()
    for pair in pairs:
        sinks[pair.after] += pair.count
    sink, most = sinks.most_common(1)[0]
    text = (
        f"Of {total:,} changed classes, {share(most / total)} end in class {sink}; the most "
        f"frequent change is from class {first.before} to class {first.after} "
        f"({share(first.count / total)}). Counted as struck: a cell counts by its trials."
    )
    columns = [
        Column("from → to", lambda pair: f"{pair.before} → {pair.after}"),
        Column("times", lambda pair: f"{pair.count:,}"),
        Column("of all", lambda pair: share(pair.count / total)),
    ]
    shown = pairs[:_PAIRS]
    table = Details(f"The {len(shown)} most frequent changes", [Table(columns, shown)])
    return [Paragraph(text), *_confusion_map(pairs, total), table]


def _confusion_map(pairs: Sequence[Confusion], total: int) -> list[Block]:
    """From class to class, where there are few."""
    classes = range(1 + max(max(pair.before, pair.after) for pair in pairs))
    if len(classes) > _CLASSES:
        return []
    found = {(pair.before, pair.after): pair.count / total for pair in pairs}
    values = [
        [None if after == before else found.get((before, after), 0.0) for after in classes]
        for before in classes
    ]
    names = [str(index) for index in classes]
    svg = charts.heat(values, names, names, "class under the fault", "class without it")
    return [Chart("confusion", svg, "From class to class", "Share of all changed classes.")]


def worst(result: CampaignResult) -> list[Block]:
    """The faults that changed most images, and how to strike them again."""
    faults = result.worst
    if not faults:
        return []
    blocks: list[Block] = []
    alone = [
        fault.sites[0]
        for fault in faults
        if fault.same_in_every_image and fault.sites and len(fault.sites) == 1
    ][:_COMMAND_SITES]
    if alone:
        command = (
            "python -m afpjax.run campaign --config config.toml --out again --campaign.design "
            f"listed --campaign.sites {' '.join(map(shlex.quote, alone))}"
        )
        blocks.append(Paragraph("The worst, struck again in this run's folder:"))
        blocks.append(Paragraph(command, "command"))
    if not all(fault.same_in_every_image for fault in faults):
        note = (
            "A trial that is not named by one site draws its faults from its cell, its number and "
            "the seed: the same experiment and seed strikes it again."
        )
        blocks.append(Paragraph(note, "note"))

    def named(fault: WorstFault) -> str:
        """By sites, or by its trial where it has none or one for each image."""
        same = fault.same_in_every_image and fault.sites
        return site(" ".join(fault.sites or ())) if same else f"trial {fault.trial:,}"

    columns = [
        Column("images changed", lambda fault: share(fault.sdc_rate)),
        Column("layer", lambda fault: fault.layer, left=True),
        Column("bit", lambda fault: fault.bit, left=True),
        Column("struck", where, left=True),
        Column("fault", named, left=True),
    ]
    return [*blocks, Details(f"The {len(faults)} worst", [Table(columns, faults)])]
