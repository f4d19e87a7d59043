"""What job `serve` says: what was answered and how fast while devices died."""

from collections.abc import Sequence
from dataclasses import fields

from markupsafe import Markup
from matplotlib.axes import Axes

from afpjax.jobs.serve.result import LostSet, ServedDevice, ServeResult
from afpjax.jobs.shared import view as shared
from afpjax.report.charts import draw, legend
from afpjax.report.style import INK, MUTED, TOOLS
from afpjax.report.view import Block, Chart, Column, Details, Paragraph, Part, Table, View
from afpjax.report.wording import interval, number, percent, short

_BLUE, _RED = TOOLS["afarepart"], TOOLS["fault-unaware"]
_PREDICTED = (
    "Predicted: afpjax’s own accuracy on all held-out images with exactly these devices lost; the "
    "interval is for as many images as were answered. As afpjax: answers that are right or wrong "
    "where afpjax’s are."
)
_MEMORY = (
    "Process: the most memory that the device’s process took; before: when it had nothing to run "
    "yet; model: weights and the largest activations, which the limit is for."
)


def view(result: ServeResult) -> View:
    """Accuracy by what was lost, answers over time, speed and memory."""
    export = [(field.name, getattr(result.export, field.name)) for field in fields(result.export)]
    columns = [Column("", lambda row: row[0]), Column("", lambda row: row[1], left=True)]
    summary = [devices(result), *([by_lost(result)] if result.throughput.losses else [])]
    return View(
        headline=headline(result),
        lead=[lead(result)],
        parts=[
            Part("Accuracy with these devices lost", accuracy(result)),
            Part("Over time", over_time(result)),
            Part("Speed", speed(result)),
            Part("Devices", [devices(result), Paragraph(_MEMORY)]),
            Part("What was served", [Details("The export", [Table(columns, export)])]),
        ],
        summary=[*summary, *notes(result)],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


def headline(result: ServeResult) -> Markup:
    """How requests ended."""
    lost = len(result.throughput.losses)
    fate = f"{lost} of {len(result.devices)} devices lost" if lost else "no device lost"
    return Markup("<b>{:,}</b> of {:,} images were answered, {} of them right, with {}.").format(
        result.answered, result.requests, percent(result.accuracy.value), fate
    )


def lead(result: ServeResult) -> str:
    reasons = [f"{refusal.count:,} for “{refusal.reason}”" for refusal in result.refusals]
    refused = f"Refused: {', '.join(reasons)}." if reasons else "None was refused."
    low, high = result.predicted.bounds
    inside = "inside" if low <= result.accuracy.value <= high else "outside"
    return (
        "Every device is a process of its own; an image is answered once, or refused by name. "
        f"{refused} The accuracy is {inside} the interval that was predicted, "
        f"{interval(result.predicted.bounds)}\u00a0%."
    )


def by_lost(result: ServeResult) -> Table[LostSet]:
    """Measured beside predicted, for each set of devices that were lost."""
    columns = [
        Column("lost", lambda row: ", ".join(row.lost) or "none"),
        Column("answered", lambda row: f"{row.answered:,}"),
        Column("right", lambda row: shared.estimated(row.accuracy)),
        Column("predicted", lambda row: shared.estimated(row.predicted)),
        Column("as afpjax", lambda row: percent(row.agreement), page_only=True),
    ]
    return Table(columns, result.by_lost)


def accuracy(result: ServeResult) -> list[Block]:
    rows = result.by_lost
    svg = draw(lambda axes: _accuracies(axes[0], rows), height=0.9 + 0.3 * len(rows))
    chart = Chart("accuracy", svg, "Images right, %", "Line: predicted, 95 %; dot: measured.")
    return [chart, by_lost(result), Paragraph(_PREDICTED)]


def over_time(result: ServeResult) -> list[Block]:
    """Answers over time, with the instants at which devices died."""
    svg = draw(lambda axes: _time(axes[0], result), height=1.9)
    chart = Chart("time", svg, "Answers per second", "Dashed: a device is killed.")
    columns = [
        Column("device", lambda loss: loss.device),
        Column("how", lambda loss: loss.how, left=True),
        Column("found lost at, s", lambda loss: f"{loss.at_s:.2f}"),
        Column("after, ms", lambda loss: _number(loss.noticed_ms)),
        Column("next answer after, ms", lambda loss: _number(loss.back_ms)),
        Column("redone", lambda loss: loss.redone),
    ]
    losses = result.throughput.losses
    return [chart, *([Table(columns, losses)] if losses else [])]


def _number(value: float | None) -> str | None:
    return None if value is None else number(value)


def speed(result: ServeResult) -> list[Block]:
    """Measured on the machines at hand, beside the model's figures for the planned hardware."""
    latency, planned = result.latency_ms, result.predicted_cost
    rows = [
        ("images per second", number(result.fps), number(planned.fps)),
        ("latency, median, ms", number(latency.p50), number(planned.latency_ms)),
        ("latency, 95 %, ms", number(latency.p95), None),
        ("latency, 99 %, ms", number(latency.p99), None),
    ]
    columns = [
        Column("", lambda row: row[0]),
        Column("measured", lambda row: row[1]),
        Column("predicted", lambda row: row[2]),
    ]
    text = (
        f"Predicted: the cost model, for {planned.hardware}. Measured: processes on the machine at "
        "hand, so the two need not agree. Latency is from the question to the answer, waiting for "
        "another mapping included."
    )
    svg = draw(lambda axes: _latencies(axes[0], result), height=1.7)
    return [Table(columns, rows), Paragraph(text), Chart("latency", svg, "Latency of answers")]


def devices(result: ServeResult) -> Table[ServedDevice]:
    """Memory, measured and predicted, and when devices died."""
    ends = {end.device: end for end in result.throughput.devices}
    names = [device.device for device in result.devices]

    def seconds(time: float | None) -> str | None:
        return None if time is None else f"{time:.2f}"

    columns = [
        Column("device", lambda row: shared.device(names.index(row.device), row.device)),
        Column("process, MB", lambda row: number(row.memory_mb)),
        Column("before, MB", lambda row: number(ends[row.device].base_mb), page_only=True),
        Column("model, MB", lambda row: number(row.model_mb)),
        Column("limit, MB", lambda row: number(row.limit_mb), page_only=True),
        Column("killed at, s", lambda row: seconds(row.killed_at)),
        Column("found lost at, s", lambda row: seconds(ends[row.device].lost_at)),
    ]
    return Table(columns, result.devices, strong=lambda row: ends[row.device].lost_at is not None)


def notes(result: ServeResult) -> list[str]:
    """What the command prints below the tables."""
    latency, planned, predicted = result.latency_ms, result.predicted_cost, result.predicted
    reasons = [f"{refusal.count:,} for `{refusal.reason}`" for refusal in result.refusals]
    why = f" ({', '.join(reasons)})" if reasons else ""
    said = [
        f"{result.requests:,} images asked for, {result.answered:,} answered, "
        f"{result.refused:,} refused{why}.",
        f"{percent(result.accuracy.value)} of the answers are right; predicted "
        f"{percent(predicted.value)} {interval(predicted.bounds)}.",
        f"{result.fps:.1f} images per second here; latency {latency.p50:.1f} ms (median), "
        f"{latency.p95:.1f} (95 %), {latency.p99:.1f} (99 %).",
        f"The cost model has {planned.fps:.4g} images per second and {planned.latency_ms:.4g} ms "
        f"for {planned.hardware}, the hardware that was planned for.",
    ]
    if result.refused_because:
        said.append(f"Refused because: {result.refused_because}.")
    if result.http:
        http = result.http
        said.append(f"Over HTTP: {http.requests:,} images, {http.answered:,} answered.")
    return said


def _latencies(axes: Axes, result: ServeResult) -> None:
    histogram, latency = result.throughput.latency_ms.histogram, result.latency_ms
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=_BLUE)
    for level in (latency.p50, latency.p95, latency.p99):
        axes.axvline(level, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xlabel("ms")
    axes.set_ylabel("answers")


def _time(axes: Axes, result: ServeResult) -> None:
    line = result.throughput.timeline
    step = line.step_s
    edges = [step * index for index in range(len(line.answered) + 1)]
    answered, refused = ([n / step for n in counts] for counts in (line.answered, line.refused))
    axes.stairs(answered, edges, fill=True, color=_BLUE, label="answered")
    if any(refused):
        axes.stairs(refused, edges, color=_RED, label="refused")
    for device in result.devices:
        if device.killed_at is not None:
            axes.axvline(device.killed_at, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_xlabel("s")
    axes.set_ylabel("per second")
    legend(axes)


def _accuracies(axes: Axes, rows: Sequence[LostSet]) -> None:
    for index, row in enumerate(rows):
        axes.plot([100 * bound for bound in row.predicted.bounds], [index, index], color=MUTED)
        axes.plot([100 * row.accuracy.value], [index], "o", color=_BLUE)
    names = [short(", ".join(row.lost) or "none lost", 24) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("images right, %")
