"""What job `partition` says: what the fault-aware mapping is worth, and what it looks like."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import groupby

from markupsafe import Markup

from afpjax.jobs.partition import charts, format_view, trade_off
from afpjax.jobs.partition.charts import TOOL_NAMES
from afpjax.jobs.partition.result import LearntResult, PartitionResult, Point, Row
from afpjax.jobs.shared import view as shared
from afpjax.report.render import pieces
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
from afpjax.report.wording import change, costs_words, number, percent, points, rate, scaled
from afpjax.report.wording import join as listed

SCENARIOS = {
    "weights": "Faults in weights",
    "activations": "Faults in activations",
    "both": "Faults in weights and activations",
}
_RATES = {
    "weights": ("weight_rate",),
    "activations": ("activation_rate",),
    "both": ("weight_rate", "activation_rate"),
}
_LINKS = {
    "bits": "of the bits flip",
    "zero": "of the packets are lost, and read as zeros",
    "last": "of the packets are lost, and read as the last value that arrived",
    "resent": "of the packets are lost, and sent again",
}
_COUNTED = {3: "Three", 4: "Four"}
_OWNERS = {"afarepart": "AFarePart's", "surrogate": "the surrogate's"}
_LEARNS = (
    " by NSGA-II, and the surrogate for the same by learning from few measurements what each layer "
    "is worth on each device"
)
_NUMBERED = 28  # layers up to which a strip's block is wide enough for its number on a phone


def view(result: PartitionResult) -> View:
    """The comparison, the mapping, the front, and what stands behind them."""
    table, told = comparison(result), trade_off.sentence(result.curve)
    formats, first = format_view.part(result.formats), format_view.sentence(result.formats)
    return View(
        headline=headline(result),
        lead=[lead(result)],
        parts=[
            *(formats if first else []),
            *trade_off.part(result.curve, result.clean.accuracy),
            Part(
                f"{_COUNTED[len(result.tools)]} tools, three kinds of fault",
                [table, Paragraph(_COMPARED, "note")],
            ),
            Part("Which layer runs where", mapping(result)),
            *([] if first else formats),
            Part("The devices", devices(result)),
            Part("Every trade-off found", front(result)),
            Part("When faults get more frequent", sweep(result)),
            Part("Which layers are fragile", sensitivity(result)),
            Part(
                "What each layer costs",
                [
                    Paragraph("From the device model: one layer, one batch, links not included."),
                    *shared.cost_tables(result.costs, result.devices),
                ],
            ),
            Part("How this was measured", method(result)),
        ],
        summary=[
            *([first, format_view.table(result.formats)] if first and result.formats else []),
            *([told] if told else []),
            table,
            *summary(result),
        ],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


def headline(result: PartitionResult) -> Markup:
    """The whole result in a sentence, true whichever tool is ahead; what more costs buy first."""
    ours, other = result.row(result.best), result.row("fault-unaware")
    costs = costs_words(
        (ours.latency_ms, ours.energy_mj),
        (other.latency_ms, other.energy_mj),
        ("latency", "energy"),
    )
    said = (format_view.sentence(result.formats), trade_off.sentence(result.curve))
    told = " ".join(text for text in said if text)
    return Markup(
        "{}When bits flip in weights and activations, {} mapping gets <b>{}</b> of images "
        "right and the fault-unaware mapping <b>{}</b>; {} costs <b>{}</b>."
    ).format(
        f"{told} " if told else "",
        _OWNERS[result.best],
        shared.estimated(ours.accuracy),
        shared.estimated(other.accuracy),
        _OWNERS[result.best],
        costs,
    )


def lead(result: PartitionResult) -> str:
    """What a newcomer must know to read the rest."""
    text = (
        "A mapping says which layer of the network runs on which of "
        f"{len(result.devices)} accelerators; each flips bits at its own rate. CNNParted "
        "(neighbouring layers together) and the fault-unaware search look for little latency and "
        "energy, AFarePart also for accuracy under faults"
        f"{_LEARNS if 'surrogate' in result.tools else ''}. "
        f"Without faults the network gets {percent(result.clean.accuracy)} right. "
    )
    if link := result.faults.link:
        text += (
            f"On the way from one device to another a share of {rate(link.rate)} "
            f"{_LINKS[link.kind]}. "
        )
    return text + verdict(result)


def verdict(result: PartitionResult) -> str:
    """Whether the intervals tell the best tool from the baselines."""
    ours = result.row(result.best)
    said = {
        "above": "gets more images right than {} (the 95 % intervals are apart)",
        "below": "gets fewer images right than {} (the 95 % intervals are apart)",
        "level": "may differ from {} by chance alone (the 95 % intervals overlap)",
        "same": "is the same as {}",
    }
    owners: dict[str, list[str]] = {}
    for tool, owner in (
        ("fault-unaware", "the fault-unaware mapping"),
        ("cnnparted", "CNNParted's"),
    ):
        owners.setdefault(_standing(ours, result.row(tool)), []).append(owner)
    parts = [text.format(listed(owners[key])) for key, text in said.items() if key in owners]
    return f"{_begun(_OWNERS[result.best])} mapping {'; it '.join(parts)}."


def _begun(text: str) -> str:
    """As the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _standing(ours: Row, other: Row) -> str:
    if list(ours.mapping) == list(other.mapping):
        return "same"
    if ours.accuracy.low > other.accuracy.high:
        return "above"
    return "below" if ours.accuracy.high < other.accuracy.low else "level"


_COMPARED = (
    "Brackets and bars: 95 % interval, bars from 0 to 100 %; the grey mark is the network without "
    "faults. Small figures: change from the fault-unaware mapping. AFarePart searched anew for "
    "each kind of fault."
)


def comparison(result: PartitionResult) -> Table[Row]:
    """The tools in three scenarios: accuracy with its interval, and what it costs."""

    def bar(row: Row) -> Markup:
        one = row.accuracy
        return pieces().range(one.low, one.high, one.value, row.tool, result.clean.accuracy)

    def cost(key: str, row: Row) -> Markup:
        value, other = getattr(row, key), getattr(result.row("fault-unaware", row.scenario), key)
        small = change(value, other) if row.tool != "fault-unaware" else ""
        return pieces().estimate(number(value), small)

    columns = [
        Column("mapping by", lambda row: TOOL_NAMES[row.tool]),
        Column("images right", lambda row: shared.estimated(row.accuracy), left=True),
        Column("", bar, page_only=True),
        Column("latency, ms", partial(cost, "latency_ms")),
        Column("energy, mJ", partial(cost, "energy_mj")),
    ]
    return Table(
        columns,
        [result.row(tool, scenario) for scenario in SCENARIOS for tool in result.tools],
        strong=lambda row: row.tool == result.best,
        group=lambda row: SCENARIOS[row.scenario],
        kind="wide",
    )


def summary(result: PartitionResult) -> list[str]:
    """What the command prints below the table."""
    how = _tried(result)
    said = [
        f"Without faults: {percent(result.clean.accuracy)} of {result.clean.images:,} held-out "
        f"images. {how} {len(result.front)} on the front."
    ]
    for row in result.advantages:
        if row.scenario == "both":
            low, high = (f"{100 * bound:+.1f}" for bound in row.difference.bounds)
            ours = TOOL_NAMES[row.tool or "afarepart"]
            said.append(
                f"{ours} against {row.over}, both faults, same draws: "
                f"{100 * row.difference.value:+.1f} points [{low}, {high}]."
            )
    if result.faults.strategy == "layerwise":
        said.append(f"Warning: {_LAYERWISE}")
    return said


_LAYERWISE = (
    "the search summed the losses of layers with faults in one at a time (faults.strategy = "
    "layerwise), which do not add up; everything shown has faults in all layers together."
)


def _tried(result: PartitionResult) -> str:
    search = result.search
    if search.method == "enumeration":
        return f"All {search.evaluations:,} mappings were tried: there are few enough."
    return (
        f"The search is genetic (NSGA-II): {search.generations:,} generations, "
        f"{search.evaluations:,} different mappings tried."
    )


def devices(result: PartitionResult) -> list[Block]:
    """The devices: how often they err, what the whole network would cost there, what they got."""
    faults, names = result.faults, result.devices
    latency, energy = (
        shared.device_totals(result.costs, names, key) for key in ("latency_ms", "energy_mj")
    )
    chosen = Counter(result.selected.mapping)
    rows = list(
        zip(range(len(names)), names, faults.weight_rate, faults.activation_rate, strict=True)
    )
    columns = [
        Column("device", lambda row: shared.device(row[0], row[1])),
        Column("weight flips", lambda row: rate(row[2])),
        Column("activation flips", lambda row: rate(row[3])),
        Column("whole net, ms", lambda row: number(latency[row[1]])),
        Column("whole net, mJ", lambda row: number(energy[row[1]])),
        Column("its layers", lambda row: chosen[row[0]]),
    ]
    note = (
        "Flips: chance that a faulty bit flips (the likeliest, where bits differ). Its layers: how "
        "many of them the selected mapping puts there."
    )
    return [Table(columns, rows), Paragraph(note, "note")]


def mapping(result: PartitionResult) -> list[Block]:
    """Which layer runs where: three strips above each other, and the layers by name."""
    layers, names = result.model.layers, result.devices
    loss = {
        (r.layer, r.device): result.clean.search_accuracy - r.alone.value
        for r in result.sensitivity
    }
    worst = [max(loss[layer.name, name] for name in names) for layer in layers]
    macs = [layer.macs for layer in layers]
    few = len(layers) <= _NUMBERED
    tallest = number(100 * max(macs) / (sum(macs) or 1), 2)
    drawn = [pieces().bars("Work (multiply-accumulates, MACs)", macs, f"tallest {tallest} %", few)]
    if max(worst) > 0:
        title = "Accuracy lost with faults in it alone, worst device"
        drawn.append(pieces().bars(title, worst, f"tallest {points(max(worst))} points", few))
    for tools, chosen in _strips(result):
        drawn.append(pieces().mapping_strip(tools, chosen, len(names), few))
    key = Markup(" &ensp; ").join(shared.device(i, name) for i, name in enumerate(names))
    note = "From the first layer on the left to the last; faults in weights and activations."
    return [
        Paragraph(key),
        Markup('<div class="strip">{}</div>').format(Markup("").join(drawn)),
        Paragraph(note, "note"),
        layers_of(result, loss),
    ]


def _strips(result: PartitionResult) -> list[tuple[str, Sequence[int]]]:
    """The tools' mappings by name; tools that chose the same share a strip."""
    shared_by: dict[tuple[int, ...], list[str]] = {}
    for tool in ("cnnparted", "fault-unaware"):
        shared_by.setdefault(tuple(result.row(tool).mapping), []).append(TOOL_NAMES[tool])
    if result.best != "afarepart":
        mine = tuple(result.row("afarepart").mapping)
        shared_by.setdefault(mine, []).append(TOOL_NAMES["afarepart"])
    shared_by.setdefault(tuple(result.selected.mapping), []).append(TOOL_NAMES[result.best])
    return [(listed(tools), chosen) for chosen, tools in shared_by.items()]


def layers_of(result: PartitionResult, loss: dict[tuple[str, str], float]) -> Details:
    """The selected mapping, layer by layer."""
    chosen, layers = result.selected, result.model.layers
    flips = {record.layer: record for record in chosen.flips or ()}
    total = sum(layer.macs for layer in layers) or 1
    home = {layer.name: index for layer, index in zip(layers, chosen.mapping, strict=True)}

    def name_of(layer: str) -> str:
        return result.devices[home[layer]]

    columns = [
        Column("layer", lambda layer: layer.name),
        Column(
            "device", lambda layer: shared.device(home[layer.name], name_of(layer.name)), left=True
        ),
        Column("kind", lambda layer: layer.kind, left=True),
        Column("MACs", lambda layer: pieces().share(100 * layer.macs / total), left=True),
        Column("loss alone, points", lambda layer: points(loss[layer.name, name_of(layer.name)])),
        Column("flips in weights", lambda layer: scaled(flips[layer.name].weights)),
        Column("flips in activations", lambda layer: scaled(flips[layer.name].activations)),
    ]
    note = (
        "Loss alone: accuracy lost with faults in this layer only, on its device. Flips: mean per "
        "fault draw (weights) and per image (activations)."
    )
    title = f"{_begun(_OWNERS[result.best])} mapping, layer by layer ({len(layers)})"
    return Details(title, [Table(columns, layers), Paragraph(note, "note")])


def front(result: PartitionResult) -> list[Block]:
    """Every trade-off that the search found."""
    baselines = [result.row(tool) for tool in ("cnnparted", "fault-unaware")]
    curve = () if result.curve is None else result.curve.points
    svg = charts.front(result.front, result.selected, baselines, best=result.best, curve=curve)
    count = len(result.front)
    text = (
        f"Each dot is one of {count} mappings found; measured afterwards, none of them beats "
        "another in latency, energy and accuracy alike. "
        if count > 1
        else "The dot is the one mapping found that, measured afterwards, none beats. "
    )
    text += (
        f"The star is {_OWNERS[result.best]} choice: on the search's own images under new fault "
        "draws, the most accurate within the latency and energy allowed over the fault-unaware "
        "mapping (if none is within, the one closest to that)."
    )
    title = "Accuracy, latency and energy with faults in weights and activations"

    def star(point: Point) -> str:
        return "★ " if list(point.mapping) == list(result.selected.mapping) else ""

    columns = [
        Column("latency, ms", lambda point: f"{star(point)}{number(point.latency_ms)}"),
        Column("energy, mJ", lambda point: number(point.energy_mj)),
        Column("images right", lambda point: shared.estimated(point.accuracy)),
        Column("devices, first layer to last", lambda point: _runs(point.mapping), left=True),
    ]
    ordered = sorted(result.front, key=lambda point: point.latency_ms)
    note = "★: the one chosen. 2×5: device 2 for five layers in a row."
    every = Details(f"The mappings ({count})", [Table(columns, ordered), Paragraph(note, "note")])
    return [Paragraph(text), Chart("front", svg, title), every]


def _runs(mapping: Sequence[int]) -> str:
    """[0, 0, 0, 1] -> `1×3 2`: device numbers as in the legend, repeats counted."""
    runs = [(device + 1, len(list(run))) for device, run in groupby(mapping)]
    return " ".join(f"{device}×{count}" if count > 1 else str(device) for device, count in runs)


def sweep(result: PartitionResult) -> list[Block]:
    """The paper's Figures 3 and 4: accuracy of the three mappings as faults grow more frequent."""
    drawn = []
    for scenario, title in SCENARIOS.items():
        own = [point for point in result.sweep if point.scenario == scenario]
        rates = [rate for key in _RATES[scenario] for rate in getattr(result.faults, key)]
        svg = charts.sweep(own, result.clean.accuracy, max(rates))
        drawn.append(Chart(f"sweep-{scenario}", svg, title))
    text = (
        "The mappings of the table above, with all devices' flip rates scaled together. Bands are "
        "95 % intervals; the upright line is the rate that AFarePart searched at; the dotted line "
        "is the network without faults."
    )
    return [Paragraph(text), Beside(drawn)]


def sensitivity(result: PartitionResult) -> list[Block]:
    """Which layers must be protected: faults in each alone, and in all but each."""
    clean, records = result.clean.search_accuracy, result.sensitivity
    kinds = {
        "alone": ("Faults in this layer only", "Low: this layer is fragile by itself."),
        "all_but": ("Faults in every layer but this", "High: this layer does much of the harm."),
    }
    drawn = [
        Chart(
            f"sensitivity-{kind.replace('_', '-')}",
            charts.sensitivity(records, result.devices, kind, clean),
            title,
            caption,
        )
        for kind, (title, caption) in kinds.items()
    ]
    places = {name: index for index, name in enumerate(result.devices)}
    columns = [
        Column("layer", lambda record: record.layer),
        Column(
            "device", lambda record: shared.device(places[record.device], record.device), left=True
        ),
        Column("faults in it only", lambda record: shared.estimated(record.alone)),
        Column("in all but it", lambda record: shared.estimated(record.all_but)),
    ]
    text = (
        "At each device's flip rates, faults in weights and activations; uprights or bands are "
        "95 % intervals; the dotted line is the network without faults."
    )
    every = Details("Every layer on every device", [Table(columns, records)])
    return [Paragraph(text), Beside(drawn), every]


_LEARNT = {
    "nothing lost": "found that faults take nothing from the fault-unaware mapping",
    "all maximal": "measured all {} mappings that cannot err less within the allowance",
    "learnt among maximal": "learnt which of {} mappings that cannot err less is the best",
    "learnt": "learnt from single moves and from what an exact program proposed",
}


def _learnt(learnt: LearntResult) -> str:
    how = _LEARNT[learnt.method].format(learnt.maximal)
    return (
        f"{SCENARIOS[learnt.scenario]}: the surrogate {how}, in {learnt.passes:,} passes of an "
        "image under faults."
    )


def method(result: PartitionResult) -> list[Block]:
    """How the figures were measured."""
    clean, search = result.clean, result.search
    latency, energy, drop = map(number, search.reference_point)
    items = [
        f"The table and the front were measured after the search, on {clean.images:,} images and "
        f"{clean.trials:,} fault draws that it never saw; the curves over flip rates on the same "
        "images and the first half of these draws.",
        f"Searching, choosing and looking for fragile layers used {result.data.search_images:,} "
        "other images.",
        f"Without faults: {percent(clean.accuracy)} in the chosen number format, "
        f"{percent(clean.float_accuracy)} in floating point.",
        "Intervals are for new images and new fault draws. All tools face the same images and "
        "draws.",
        f"Bits that may flip: {', '.join(map(str, result.faults.bits))} (0 is the lowest), at the "
        "rates of the device that a layer runs on. Weights get new faults in every draw, "
        "activations for every image.",
    ]
    if result.faults.strategy == "layerwise":
        items.append(_LAYERWISE.capitalize())
    items.append(_tried(result))
    if search.effort and search.effort.draws:
        draws = [row.draws for row in search.effort.draws]
        least, most = min(draws), max(draws)
        limit = f" of the {search.effort.total:,} it was given" if search.effort.total else ""
        several = f"{least:,} to {most:,}, more where the ranking was open"
        items.append(
            f"It took {search.effort.spent:,} passes of an image under faults{limit}; fault draws "
            f"of a mapping: {most if least == most else several}."
        )
    for learnt in result.surrogate or ():
        items.append(_learnt(learnt))
    items.append(
        "Hypervolume (what the front leaves behind it in latency × energy × accuracy lost, as the "
        f"search saw it): {number(search.hypervolume)}, up to {latency} ms, {energy} mJ and {drop} "
        "of accuracy lost."
    )
    if len(search.history) < 2:
        return [Bullets(items)]
    title, caption = "Progress of the search", "Hypervolume; higher is better."
    return [
        Beside([Bullets(items), Chart("history", charts.history(search.history), title, caption)])
    ]
