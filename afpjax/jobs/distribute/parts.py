"""Parts of job `distribute`'s page beside its methods, and what all of its parts are made of."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from afpjax.jobs.distribute import charts
from afpjax.jobs.distribute.charts import AccuracyRow, look, ordered
from afpjax.jobs.distribute.result import (
    SAFE_SPARE,
    DistributeResult,
    ExpectedResult,
    FlipsResult,
    LayerPlacement,
    ResourcesResult,
)
from afpjax.jobs.shared import view as shared
from afpjax.jobs.shared.result import Estimate
from afpjax.neurons import methods
from afpjax.report.render import pieces
from afpjax.report.style import METHODS
from afpjax.report.view import Beside, Block, Chart, Column, Details, Paragraph, Table, Text
from afpjax.report.wording import GAP, change, join, number, percent, points, rate

LOSSES = 8  # losses that a figure has room for
SUBSTITUTES = {
    "zero": "zero",
    "mean": "its mean over calibration images",
    "bias": "its layer's bias",
}
_SCORES = {"l1": "l1", "taylor": "Taylor", "jsd": "JSD"}
_SCALES = {"minmax": "min-max", "zscore": "z-score", "rank": "rank", "raw": "raw"}
_TARGETS = {"winner": "winning logit", "label": "label's logit", "loss": "cross-entropy loss"}
_LAYERS = 12  # of which one figure has room for every device's lane

Setting = tuple[int, int]  # devices, and how many of them are lost


def settings(rows: Iterable[Any]) -> list[Setting]:
    """In the order they come."""
    return list(dict.fromkeys(row.setting for row in rows))


def at(rows: Iterable[Any] | None, setting: Setting) -> list[Any]:
    """Rows of this setting, by method."""
    return ordered(row for row in rows or () if row.setting == setting)


def lost(setting: Setting) -> str:
    """`1 of 4 lost`."""
    return f"{setting[1] or 'none'} of {setting[0]} lost"


def share(fraction: float) -> str:
    """Memory as a whole per cent: 0.594 -> `59 %`."""
    return f"{100 * fraction:.0f}{GAP}%"


def points_of(difference: Estimate | None) -> Markup | None:
    """A difference of accuracies in points."""
    if difference is None:
        return None
    low, high = map(points, difference.bounds)
    return pieces().estimate(points(difference.value), f"[{low},{GAP}{high}]")


def devices_of(numbers: Iterable[int]) -> Markup | None:
    """Devices' coloured numbers; of none a dash."""
    return Markup("").join(pieces().device(device) for device in numbers) or None


METHOD = Column("method", lambda row: look(row.method).name)
LOST = Column("lost", lambda row: f"{row.failed} of {row.devices}")
MEMORY = Column("memory", lambda row: percent(row.memory))
RIGHT = Column("images right", lambda row: shared.estimated(row.accuracy))
THRESHOLD = Column("threshold", lambda row: None if row.threshold is None else rate(row.threshold))
SETS = Column("sets", lambda row: f"{row.sets:,}{' drawn' * row.sampled}")
WORST = (
    Column("worst", lambda row: percent(row.accuracy_worst)),
    Column("lost then", lambda row: devices_of(row.worst_failed), left=True),
)
BEST = (
    Column("best", lambda row: percent(row.accuracy_best)),
    Column("lost then", lambda row: devices_of(row.best_failed), left=True),
)


def all_numbers(
    columns: Sequence[Column], rows: Sequence[Any], title: str = "All numbers", note: str = ""
) -> Details:
    """A closed table."""
    notes = [Paragraph(note, "note")] if note else []
    return Details(f"{title} ({len(rows)})", [Table(columns, rows), *notes])


def row_of(row: Any, aside: str, hollow: float | None) -> AccuracyRow:
    """A method's row of a figure, with the worst and the best set."""
    name, colour, *_ = look(row.method)
    ends = row.accuracy_worst, row.accuracy_best
    return AccuracyRow(name, colour, row.accuracy, aside, hollow, ends)


def groups(rows: Sequence[Any], row: Callable[[Any], AccuracyRow]) -> dict[str, list[AccuracyRow]]:
    """Rows of a figure by what is lost, as many as fit."""
    return {
        lost(setting): [row(result) for result in at(rows, setting)]
        for setting in settings(rows)[:LOSSES]
    }


def placement(layers: Sequence[LayerPlacement]) -> list[Block]:
    """Lanes of devices for a few layers at a time; of many layers the copies at one glance."""
    devices = max(max(layer.held).bit_length() for layer in layers)
    starts = range(0, len(layers), _LAYERS)
    figures = []
    for index, start in enumerate(starts):
        some = layers[start : start + _LAYERS]
        title = f"Layers {start + 1} to {start + len(some)}"
        title = title if len(starts) > 1 else "Neurons on their devices"
        figures.append(Chart(f"placement-{index + 1}", charts.lanes(some, devices), title))
    held = [mask for layer in layers for mask in layer.held]
    how = (
        f"RobustDiCE on {devices} devices. Of all {len(held):,} neurons {_copies(held, 1)} have "
        f"one copy and are lost with their device; {_copies(held, devices)} live on every device. "
        "In the lanes, neurons with the fewest copies stand on the left; a thick line is an only "
        "copy, a thin one a replica: one of several that stand above each other."
    )
    lanes: list[Block] = [
        Paragraph(Markup("Lanes from the top: {}").format(devices_of(range(devices)))),
        Beside(figures),
    ]
    if len(figures) > 1:
        svg = charts.copies(layers, devices)
        lanes = [
            Chart("copies", svg, "How many devices hold the neurons of each layer"),
            Details(f"Which devices, layer by layer ({len(layers)})", lanes),
        ]

    def loads(layer: LayerPlacement) -> str:
        """Neurons that each device computes; one number where they are equal."""
        own = [sum(mask >> device & 1 for mask in layer.held) for device in range(devices)]
        return ", ".join(f"{load:,}" for load in (own if len(set(own)) > 1 else own[:1]))

    columns = [
        Column("layer", lambda layer: layer.layer),
        Column("neurons", lambda layer: f"{layer.neurons:,}"),
        THRESHOLD,
        Column("clusters", lambda layer: f"{layer.clusters:,}"),
        Column("copies, mean", lambda layer: number(layer.copies)),
        Column("in one copy", lambda layer: _copies(layer.held, 1)),
        Column("on each device", loads),
    ]
    note = (
        "placement.csv has every neuron's devices in the order of the neurons: the sum of 2 to the "
        "power of each, counted from 0."
    )
    return [Paragraph(how), *lanes, all_numbers(columns, layers, "Neurons, clusters, loads", note)]


def _copies(held: Sequence[int], copies: int) -> str:
    """The share of the neurons that so many devices hold."""
    return percent(sum(mask.bit_count() == copies for mask in held) / len(held))


def scores(result: DistributeResult) -> list[Block]:
    """The paper's Table I."""
    published = _PAPER_ACCURACIES.get(_stem(result.model.name), {})
    text = (
        "RobustDiCE with each choice of importance scores (JSD: Jensen-Shannon divergence); the "
        "threshold is set for each so that memory is about the same."
    )
    column = Column("paper", lambda row: percent(published[row.scores]))
    if published:
        text += " Paper: top-1 on ImageNet-1K with one of four devices lost, thresholds not given."
    return _compared(
        result, "ablation", ("scores", "scores", score_names), text, [column] * bool(published)
    )


def scales(result: DistributeResult) -> list[Block]:
    """What bringing the scores to one scale does."""
    text = (
        "The paper does not say how scores of different units are made comparable. Here they are "
        "scaled within each layer: to between 0 and 1 (min-max), to mean 0 and deviation 1 "
        "(z-score), to their ranks, or not at all (raw); thresholds are set so that memory is "
        "about the same."
    )
    return _compared(result, "normalisations", ("normalise", "scale", _SCALES.__getitem__), text)


def substitutes(result: DistributeResult) -> list[Block]:
    """What stands in for lost neurons; the placement is the same."""
    text = (
        "What a neuron without a living copy gives, after its layer's folded bias and before the "
        "activation: zero as in the paper, its mean over calibration images, or its layer's bias "
        "alone. More than zero: on the same images."
    )
    names = {**SUBSTITUTES, "mean": "its mean"}
    what = ("substitute", "a lost neuron gives", names.__getitem__)
    more = [Column("more than zero", lambda row: points_of(row.difference))]
    return _compared(result, "substitutes", what, text, more)


def _compared(
    result: DistributeResult,
    key: str,
    what: tuple[str, str, Callable[[str], str]],
    text: str,
    more: Sequence[Column] = (),
) -> list[Block]:
    """RobustDiCE's variants under `key`, as a table beside a figure."""
    attribute, heading, name = what
    rows = getattr(result, key)
    if not rows:
        return []

    def label(row: Any) -> str:
        return name(getattr(row, attribute))

    drawn = groups(
        rows, lambda row: AccuracyRow(label(row), METHODS[0], row.accuracy, share(row.memory))
    )
    svg = charts.rows(drawn, result.clean.accuracy.value, "memory")
    caption = f"Bands are 95{GAP}% intervals; dashed: no device lost."
    table = Table([Column(heading, label), LOST, THRESHOLD, MEMORY, RIGHT, *more], rows)
    return [Paragraph(text), Beside([table, Chart(key, svg, "RobustDiCE's accuracy", caption)])]


def expected(result: DistributeResult) -> list[Block]:
    """The accuracy to be expected where devices fail by chance, and its spread over runs."""
    rows: list[ExpectedResult] = ordered(result.expected or ())
    rows.sort(key=lambda row: row.trials is not None)
    figures = []
    for index, flipped in enumerate(dict.fromkeys(row.trials is not None for row in rows)):
        own = [row for row in rows if (row.trials is not None) == flipped]
        drawn = [
            AccuracyRow(
                *look(row.method)[:2], row.accuracy, percent(row.accuracy.value),
                quantiles=[*row.quantiles.values()],
            )
            for row in own
        ]  # fmt: skip
        svg = charts.rows({"": drawn}, result.clean.accuracy.value, "mean")
        chances = join([rate(chance) for chance in own[0].failure])
        caption = f"Lost with probability {chances}, in their order."
        title = f"{own[0].devices} devices{', whose bits flip besides' * flipped}"
        figures.append(Chart(f"expected-{index + 1}", svg, title, caption))
    if not figures:
        return []

    def level(name: str) -> Column:
        return Column(name.replace("%", f"{GAP}%"), lambda row: percent(row.quantiles[name]))

    columns = [
        METHOD,
        Column("bits flip", lambda row: "no" if row.trials is None else f"{row.trials:,} draws"),
        Column("devices", lambda row: row.devices),
        Column("expected", lambda row: shared.estimated(row.accuracy)),
        *map(level, rows[0].quantiles),
        Column("deviation, runs", lambda row: points(row.deviation_run)),
        Column("images", lambda row: points(row.deviation_image)),
        SETS,
    ]
    text = (
        "Each device is lost for a whole run with its own probability, by itself. Line: nine in "
        "ten runs; band: the middle half of the runs; dot: the median; diamond: the mean, the "
        "accuracy to be expected; dashed: no device lost. With every device lost no image is right."
    )
    note = (
        "A column of so many per cent: that share of the runs is no better. Deviations are "
        "standard deviations of a run's accuracy in points: where devices are lost for a whole "
        "run, and where each image meets losses of its own."
    )
    return [Paragraph(text), Beside(figures), all_numbers(columns, rows, note=note)]


def flips(result: DistributeResult) -> list[Block]:
    """Bars of both together, diamonds of the lost devices alone."""
    if not result.flips:
        return []
    rows = [row for setting in settings(result.flips) for row in at(result.flips, setting)]

    def alone(row: FlipsResult) -> float | None:
        """The same devices lost and no flips."""
        own = result.method(row.method, row.setting)
        accuracy = result.clean.accuracy if row.failed == 0 else own and own.accuracy
        return accuracy.value if accuracy else None

    def without(row: FlipsResult) -> str | None:
        value = alone(row)
        return None if value is None else percent(value)

    text = (
        "Bits of the weights and inputs that a device reads flip at its own rate, while other "
        "devices are lost; of a neuron's copies the one with the lowest rate is used. Dots are "
        "means over sets of lost devices and draws of flips, bands 95\u00a0% intervals, thin "
        "uprights the worst and the best set; dashed: no device lost and no bit flipped."
    )
    drawn = groups(rows, lambda row: row_of(row, "", alone(row)))
    svg = charts.rows(drawn, result.clean.accuracy.value)
    title, caption = f"{rows[0].devices} devices", "Diamond: without flipped bits."
    rates = [
        Column("device", lambda row: pieces().device(row[0])),
        Column("flip rate of weights", lambda row: rate(row[1])),
        Column("of inputs", lambda row: rate(row[2])),
    ]
    pairs = zip(rows[0].weight_rate, rows[0].activation_rate, strict=True)
    by_device = Table(rates, [(device, *pair) for device, pair in enumerate(pairs)])
    chart = Chart(f"flips-{rows[0].devices}", svg, title, caption)
    draws = Column("draws", lambda row: f"{row.trials:,}")
    columns = [METHOD, LOST, RIGHT, *WORST, *BEST, Column("without flips", without), SETS, draws]
    return [Paragraph(text), Beside([chart, by_device]), all_numbers(columns, rows)]


def resources(result: DistributeResult) -> list[Block]:
    """The paper's Table II: what every method costs a device."""
    published = _PAPER_COSTS.get(_stem(result.model.name), {})
    whole = {row.devices: row for row in result.resources if row.method == "replication"}

    def cost(key: str) -> Callable[[ResourcesResult], Text]:
        """The value, and how far it is from full replication's on as many devices."""

        def cell(row: ResourcesResult) -> Text:
            value, full = getattr(row, key), whole.get(row.devices)
            apart = change(value, getattr(full, key)) if full not in (None, row) else ""
            return pieces().estimate(number(value), apart)

        return cell

    def papers(index: int) -> Callable[[ResourcesResult], str | None]:
        def cell(row: ResourcesResult) -> str | None:
            devices = 0 if row.method == "replication" else row.devices
            costs = published.get((row.method, devices))
            return number(costs[index]) if costs else None

        return cell

    columns = [METHOD, Column("devices", lambda row: row.devices)]
    keys = ("MB", "memory_mb", 2), ("J/image", "energy_j", 0), ("images/s", "fps", 1)
    for heading, key, index in keys:
        columns.append(Column(heading, cost(key)))
        columns += [Column("paper's", papers(index))] * bool(published)
    columns.append(Column("of the weights", lambda row: percent(row.memory)))
    board = result.board
    batch = f", in batches of {board.batch:,}" if board.batch > 1 else ""
    text = (
        f"From a model of the boards, not measured: {board.name} over {board.link}, "
        f"{board.images:,} images{batch}. Memory (MB) is the fullest device's, energy (J/image) "
        "the hungriest device's, throughput that of all, with no device lost. Small figures: the "
        "change from full replication on as many devices."
    )
    if published:
        text += " The paper's figures were measured on ImageNet-1K images, at thresholds not given."
    return [Paragraph(text), Table(columns, ordered(result.resources))]


def method(result: DistributeResult) -> list[str]:
    """What stands behind the numbers."""
    used, thresholds = result.scores, sorted(set(result.thresholds))
    source = f"{used.source} images"
    if used.source == "importance run":
        source = "images by an earlier run of job importance"
    ends = [f"{threshold:.3g}" for threshold in (thresholds[0], thresholds[-1])]
    below = f"{ends[0]} to {ends[1]}, one for each layer" if len(thresholds) > 1 else ends[0]
    divergence = "every neuron was left out in turn"
    if used.divergence != "exact":
        divergence = "estimated from the first-order change of the logits"
    whole = "computed whole by every device" if result.classifier == "whole" else "like the others"
    names = [row.method for row in ordered(result.methods)]
    known = [methods.method(name) for name in dict.fromkeys(names) if name in methods.names()]
    return [
        f"Importance: {score_names('+'.join(used.names))} on {used.images:,} {source}, brought to "
        f"one scale within each layer ({_SCALES[used.normalise]}).",
        *[f"Divergence (Jensen-Shannon): {divergence}."] * ("jsd" in used.names),
        *[f"The Taylor score is that of the {_TARGETS[used.target]}."] * ("taylor" in used.names),
        f"Neurons are in one cluster where their scores' distance is below the threshold, {below}; "
        "clusters are padded with replicas and dealt out in turn (RobustDiCE, Algorithm 1).",
        *(f"{way.label}: {way.help}" for way in known),
        *["Safe spare: only the other devices fail, as the method's authors presume."]
        * any(name.endswith(SAFE_SPARE) for name in names),
        f"A neuron without a living copy gives {SUBSTITUTES[result.substitute]}, after its layer's "
        f"folded bias and before the activation. The last layer is {whole}.",
        f"Accuracies are of {result.data.images:,} held-out images, the same for all methods and "
        f"all sets of lost devices; intervals (95{GAP}%) are for new images, and for new sets "
        f"where these are drawn. Numbers are {result.format.kind}, {result.format.bits} bits.",
        "Devices are numbered from 1 here, from 0 in the files. Every number is in result.json "
        "and, table by table, in the CSV files beside it.",
    ]


def score_names(names: str) -> str:
    """`l1 + Taylor + JSD` from `l1+taylor+jsd`."""
    return " + ".join(_SCORES.get(name, name) for name in names.split("+"))


# What the paper measured, shown beside a network of the same name and nowhere else: Guo et al.,
# RobustDiCE: Robust and Distributed CNN Inference at the Edge, Tables I and II. Top-1 accuracy on
# ImageNet-1K with one of four devices lost; the thresholds are not given.


def _stem(model: str) -> str:
    return os.path.splitext(os.path.basename(model))[0].lower().replace("-", "_")


_SUBSETS = ("l1", "taylor", "jsd", "l1+taylor", "l1+jsd", "taylor+jsd", "l1+taylor+jsd")
#: Network -> top-1 accuracy, a fraction of 1, by scores.
_PAPER_ACCURACIES = {
    network: dict(zip(_SUBSETS, values, strict=True))
    for network, values in {
        "alexnet": (0.43718, 0.43642, 0.43432, 0.51268, 0.51658, 0.51250, 0.52396),
        "vgg16_bn": (0.60426, 0.58920, 0.59942, 0.69152, 0.71736, 0.67360, 0.72500),
        "convnext_tiny": (0.76618, 0.75904, 0.76134, 0.76678, 0.76580, 0.76572, 0.76820),
    }.items()
}
_SYSTEMS = (("replication", 0), ("cdc", 3), ("cdc", 4), *(("robustdice", n) for n in (2, 3, 4)))
#: Network -> J an image, images a second and MB of a device by method and devices; full
#: replication's are the same for any number of devices: 0.
_PAPER_COSTS: Mapping[str, Mapping[tuple[str, int], tuple[float, ...]]] = {
    network: dict(zip(_SYSTEMS, values, strict=True))
    for network, values in {
        "alexnet": (
            (0.179, 46.255, 150.914), (0.165, 43.670, 94.117), (0.157, 45.587, 78.852),
            (0.159, 48.214, 99.254), (0.148, 50.045, 80.777), (0.142, 51.219, 72.801),
        ),
        "vgg16_bn": (
            (0.850, 10.744, 429.215), (0.809, 10.634, 313.688), (0.799, 10.485, 272.293),
            (0.826, 10.761, 328.426), (0.799, 10.993, 295.086), (0.779, 11.078, 267.395),
        ),
        "convnext_tiny": (
            (0.308, 28.223, 88.895), (0.307, 27.107, 69.129), (0.297, 28.248, 59.961),
            (0.301, 28.044, 76.465), (0.296, 28.415, 65.203), (0.288, 29.034, 58.090),
        ),
    }.items()
}  # fmt: skip
