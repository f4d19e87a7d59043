"""What job `distribute` says: what is left of the accuracy when devices disappear."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from afpjax.jobs.distribute import charts, parts
from afpjax.jobs.distribute.charts import Series, look, ordered
from afpjax.jobs.distribute.parts import (
    BEST,
    LOST,
    MEMORY,
    METHOD,
    RIGHT,
    SETS,
    THRESHOLD,
    WORST,
    all_numbers,
    at,
    groups,
    lost,
    points_of,
    row_of,
    settings,
    share,
)
from afpjax.jobs.distribute.result import (
    DistributeResult,
    KeptBeside,
    MethodResult,
    StabilityResult,
    ThresholdGain,
    ThresholdsResult,
)
from afpjax.jobs.shared import view as shared
from afpjax.report.render import pieces
from afpjax.report.style import INK, METHODS, TOOLS
from afpjax.report.view import (
    Beside,
    Block,
    Bullets,
    Chart,
    Column,
    Details,
    Paragraph,
    Part,
    Table,
    View,
)
from afpjax.report.wording import GAP, number, percent

__all__ = ["stability_note", "view"]

_COLUMNS = 3  # losses that a terminal has room for
_CURVES = 9  # losses whose curve is drawn; the numbers have all
_WHOLE = 0.9995  # of the network's weights: every method is full replication
_MORE = Column("RobustDiCE more by", lambda row: points_of(row.difference))


def view(result: DistributeResult) -> View:
    """What every method keeps, at which memory and cost, and what RobustDiCE's parts are worth."""
    losses = losses_table(result)
    return View(
        headline=headline(result),
        lead=[_LEAD],
        parts=[
            Part("What is left when devices are lost", lost_devices(result, losses)),
            Part("Robustness against memory", curve(result)),
            Part("Thresholds chosen by search", search(result)),
            Part("Which neurons live where", parts.placement(result.placement)),
            Part("What each importance score is worth", parts.scores(result)),
            Part("Scores on one scale", parts.scales(result)),
            Part("What stands in for a lost neuron", parts.substitutes(result)),
            Part("When devices fail by chance", parts.expected(result)),
            Part("Bit-flips and lost devices together", parts.flips(result)),
            Part("Memory, energy and throughput", parts.resources(result)),
            Part("How this was measured", [Bullets([*parts.method(result), *_notes(result)[1:]])]),
        ],
        summary=[losses, *_notes(result)],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


_LEAD = (
    "The neurons of every layer are shared out over several devices. RobustDiCE groups neurons of "
    "like importance, deals each group out over the devices and fills it up with replicas: what a "
    "lost device takes with it is then also elsewhere. More replicas take more memory, and keep "
    "more of the accuracy."
)


def headline(result: DistributeResult) -> Markup:
    """What RobustDiCE keeps with a device lost, at which memory, beside LOP."""
    setting = result.setting
    own = result.method("robustdice", setting) or at(result.methods, setting)[0]
    text = Markup(
        "With {} of {} devices lost, {} has <b>{}</b> of the images right ({} with none lost) "
        "where a device holds up to {} of the weights"
    ).format(
        own.failed, own.devices, look(own.method).name, shared.estimated(own.accuracy),
        percent(result.clean.accuracy.value), _memory(own),
    )  # fmt: skip
    lop = result.method("lop", setting)
    if lop is not None and lop is not own:
        text += Markup("; contiguous slices without replicas (LOP) have <b>{}</b> with {}").format(
            shared.estimated(lop.accuracy), share(lop.memory)
        )
        if lop.difference is not None and lop.difference.low <= 0 <= lop.difference.high:
            text += "; these images do not tell the two apart"
    return text + "."


def losses_table(result: DistributeResult) -> Table[Any]:
    """A row for each method on each number of devices: its memory, and accuracy by loss."""
    rows: dict[tuple[int, str], dict[int, MethodResult]] = {}
    for devices in dict.fromkeys(row.devices for row in result.methods):
        for row in ordered(row for row in result.methods if row.devices == devices):
            rows.setdefault((devices, row.method), {})[row.failed] = row

    def first(row: dict[int, MethodResult]) -> MethodResult:
        """With the fewest lost."""
        return row[min((lost for lost in row if lost), default=0)]

    def kept(lost: int) -> Callable[[dict[int, MethodResult]], Markup | None]:
        """In per cent, for a terminal's width."""
        return lambda row: _whole_bounds(row[lost].accuracy) if lost in row else None

    columns = [
        Column("method", lambda row: look(first(row).method).name),
        Column("memory", lambda row: _memory(first(row))),
        *(Column(f"{failed} lost", kept(failed)) for failed in _losses(result)[:_COLUMNS]),
        Column("RobustDiCE more by", lambda row: points_of(first(row).difference), page_only=True),
    ]
    return Table(
        columns,
        list(rows.values()),
        strong=lambda row: first(row).method == "robustdice",
        group=lambda row: f"{first(row).devices} devices",
    )


def _losses(result: DistributeResult) -> list[int]:
    return sorted({row.failed for row in result.methods})


def _memory(row: MethodResult) -> Markup:
    """With where other images to score on would put it."""
    if row.memory_interval is None:
        return Markup(share(row.memory))
    low, high = (100 * bound for bound in row.memory_interval)
    return pieces().estimate(share(row.memory), f"[{low:.0f},{GAP}{high:.0f}]")


def _whole_bounds(accuracy: Any) -> Markup:
    low, high = (100 * bound for bound in accuracy.bounds)
    return pieces().estimate(f"{100 * accuracy.value:.1f}", f"[{low:.0f},{GAP}{high:.0f}]")


def _notes(result: DistributeResult) -> list[str]:
    """What the command prints below its table."""
    notes = [
        f"Per cent of {result.data.images:,} images right, the mean over which devices are lost, "
        f"with 95 % intervals; {100 * result.clean.accuracy.value:.1f} with none lost. Memory: "
        "what the fullest device holds of the network's weights and biases."
    ]
    notes += [stability_note(row) for row in result.stability or ()]
    if hidden := _losses(result)[_COLUMNS:]:
        notes.append(f"More than {_COLUMNS} lost (up to {hidden[-1]}): methods.csv has them.")
    if result.search and result.search.gain:
        best = _widest(result.search.gain)
        ends = (best.difference.value, *best.difference.bounds)
        gain, low, high = (100 * end for end in ends)
        notes.append(
            f"Searched thresholds keep at best {gain:+.1f} points [{low:.1f}, {high:.1f}] against "
            f"a constant one of no less memory, {share(best.memory)} of the weights."
        )
    speed = result.throughput
    notes.append(
        f"Speed: {speed.inferences_per_second:,.0f} images × sets of lost devices a second over "
        f"{speed.passes:,} passes of an image; with no device lost, "
        f"{speed.clean_inferences_per_second:,.0f} images a second."
    )
    return notes


def stability_note(row: StabilityResult) -> str:
    """How much a placement depends on the images that neurons were scored on."""
    low, high = (100 * bound for bound in row.memory.bounds)
    return (
        f"Other images to score on, as many as these {row.images:,}, would put RobustDiCE's "
        f"memory on {row.devices} devices at {low:.0f} to {high:.0f} % (95 %, {row.halvings} "
        f"halvings of the images); placements from two halves agree on {share(row.overlap)} of "
        f"what they hold ({share(row.overlap_lowest)} to {share(row.overlap_highest)})."
    )


def lost_devices(result: DistributeResult, losses: Table[Any]) -> list[Block]:
    """The table, a figure for each number of devices, and behind them all numbers."""
    figures, tables = [], []
    columns = [METHOD, LOST, RIGHT, *WORST, *BEST, SETS, _MORE]
    optimistic = Column(
        "where the least important fail",
        lambda row: None if row.optimistic is None else percent(row.optimistic),
    )
    for devices in dict.fromkeys(row.devices for row in result.methods):
        rows = [row for row in result.methods if row.devices == devices]
        svg = charts.rows(
            groups(rows, lambda row: row_of(row, share(row.memory), row.optimistic)),
            result.clean.accuracy.value,
            "memory",
        )
        caption = ""
        if (count := len(settings(rows))) > parts.LOSSES:
            caption = f"The first {parts.LOSSES} of {count} losses."
        figures.append(Chart(f"methods-{devices}", svg, f"{devices} devices", caption))
        table = [row for setting in settings(rows) for row in at(rows, setting)]
        tables.append(all_numbers([*columns, optimistic], table, f"{devices} devices: all numbers"))
    return [Paragraph(_READ_LOSSES), losses, Beside(figures), Paragraph(_READ, "note"), *tables]


_READ_LOSSES = (
    "Per cent of the images right, the mean over the sets of so many lost devices, with 95\u00a0% "
    "intervals. Memory is what the fullest device holds of the network's weights and biases: "
    "compare accuracies with it in view; its brackets are for other images to score neurons on. "
    "RobustDiCE more by: points that it keeps more than this method with the fewest devices lost, "
    "on the same images; where the interval holds zero these images do not tell the two apart."
)
_READ = (
    "In the figures bands are 95\u00a0% intervals, thin uprights the worst and the best set, "
    "dashed is no device lost; a diamond is LOP where the devices with the least important neurons "
    "fail, as its paper has it."
)


def curve(result: DistributeResult) -> list[Block]:
    """One figure for each number of devices and of those lost, the numbers behind it."""
    figures, found = [], result.search
    rows = [row for setting in settings(result.curve or ()) for row in at(result.curve, setting)]
    for setting in settings(rows)[:_CURVES]:
        series = []
        for name in dict.fromkeys(row.method for row in at(rows, setting)):
            own = [row for row in at(rows, setting) if row.method == name]
            way = look(name) if own[0].threshold is not None else look(name)._replace(line="")
            series.append(Series(*way, own))
        if found and found.front and (found.devices, found.failed) == setting:
            series.append(Series("Searched thresholds", INK, "*", "", found.front))
        svg = charts.over_memory(series, result.clean.accuracy.value, from_zero=True)
        figures.append(Chart(f"curve-{setting[0]}-{setting[1]}", svg, lost(setting)))
    if not figures:
        return []
    table = all_numbers([METHOD, LOST, THRESHOLD, MEMORY, RIGHT, _MORE], rows)
    return [Paragraph(_READ_CURVE), Beside(figures), *_advantage(rows), table]


_READ_CURVE = (
    "Smaller thresholds make smaller clusters and more replicas, which takes more memory. Lines "
    "join the thresholds that were tried, bands and uprights are 95\u00a0% intervals, the dotted "
    "line is no device lost. Points by themselves are methods without thresholds; stars, where "
    "there are any, have thresholds of their own in each layer or group of layers (see below)."
)


def _advantage(rows: Sequence[KeptBeside]) -> list[Block]:
    """How often RobustDiCE keeps more, or less, than another method of equal memory."""
    paired = [(row, row.difference) for row in rows if row.difference is not None]

    def counts(name: str) -> Callable[[tuple[int, int]], str | None]:
        def cell(setting: tuple[int, int]) -> str | None:
            gaps = [
                gap
                for row, gap in paired
                if (row.method, row.setting) == (name, setting) and row.memory < _WHOLE
            ]
            more, less = sum(gap.low > 0 for gap in gaps), sum(gap.high < 0 for gap in gaps)
            return f"{more} more, {less} less of {len(gaps)}" if gaps else None

        return cell

    names = dict.fromkeys(row.method for row in ordered(row for row, _ in paired))
    columns = [
        Column("RobustDiCE beside", lost),
        *(Column(look(name).name, counts(name)) for name in names),
    ]
    note = (
        "At how many thresholds RobustDiCE, at the same memory, keeps more or less for certain "
        "(the difference on the same images has an interval without zero); thresholds that "
        "replicate everything are left out."
    )
    return [Table(columns, settings(rows)), Paragraph(note, "note")] if names else []


def search(result: DistributeResult) -> list[Block]:
    """Both fronts, what is gained at equal memory, and the thresholds."""
    found, clean = result.search, result.clean.accuracy.value
    if found is None:
        return []
    where = "each layer"
    if found.groups != len(result.placement):
        where = f"each of {found.groups} groups of layers"
    how = (
        f"A threshold for {where}, searched for {lost((found.devices, found.failed))} "
        f"({found.objective}) on {found.images:,} images, {found.evaluations:,} times a placement "
        "with a set of devices lost. What the search found was measured again on images that it "
        "never saw."
    )
    series = [
        Series("searched", TOOLS["fault-unaware"], "*", "-", found.front),
        Series("the same for all layers", METHODS[0], "o", "--", found.constant),
    ]
    svg = charts.over_memory([one for one in series if one.points], clean)
    caption = f"Bands are 95{GAP}% intervals; dotted: no device lost."
    chart = Chart("search", svg, lost((found.devices, found.failed)), caption)
    return [
        Paragraph(how),
        Beside([*_gains(found.gain, clean), chart]),
        _thresholds(found.front, "Thresholds searched"),
        _thresholds(found.constant, "Thresholds the same for all layers"),
    ]


def _gains(gain: Sequence[ThresholdGain], clean: float) -> list[Block]:
    """What searched thresholds keep more at no more memory than each constant one."""
    if not gain:
        return []
    best = _widest(gain)

    def regained(row: ThresholdGain) -> str | None:
        gone = clean - row.constant
        part = 100 * row.difference.value / gone if gone > 0 else None
        return None if part is None else f"{part:.0f}{GAP}%".replace("-", "−")

    columns = [
        MEMORY,
        Column("searched", lambda row: percent(row.searched)),
        Column("constant", lambda row: percent(row.constant)),
        Column("gain, points", lambda row: points_of(row.difference)),
        Column("of the loss", regained),
    ]
    above = sum(row.difference.low > 0 for row in gain)
    below = sum(row.difference.high < 0 for row in gain)
    note = (
        f"At no more memory than a constant threshold. Of {len(gain)} memories compared, the "
        f"gain's interval lies above zero at {above} and below it at {below}; in bold the widest "
        "gain. Of the loss: how much of what the constant threshold loses is not lost."
    )
    return [Table(columns, gain, strong=lambda row: row is best), Paragraph(note, "note")]


def _widest(gain: Sequence[ThresholdGain]) -> ThresholdGain:
    return max(gain, key=lambda row: row.difference.value)


def _thresholds(rows: Sequence[ThresholdsResult], title: str) -> Details:
    """All thresholds in order; one where they are the same."""

    def values(row: ThresholdsResult) -> Markup:
        own = row.thresholds if row.threshold is None else [row.threshold]
        return Markup("<span class=sites>{}</span>").format(" ".join(f"{t:.3g}" for t in own))

    columns = [
        MEMORY,
        RIGHT,
        Column("on the search's images", lambda row: percent(row.search_accuracy)),
        Column("energy, J/image", lambda row: number(row.energy_j)),
        Column("images a second", lambda row: number(row.fps)),
        Column("thresholds", values, left=True),
    ]
    return all_numbers(columns, sorted(rows, key=lambda row: row.memory), title)
