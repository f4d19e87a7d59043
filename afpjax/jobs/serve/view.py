"""The report of job `serve`: what was answered and how fast while devices died."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from afpjax.report.charts import draw, legend
from afpjax.report.markup import (
    Html,
    details,
    device,
    estimate,
    figure,
    html,
    join,
    paragraph,
    table,
)
from afpjax.report.story import Block, Part, Result, Story
from afpjax.report.style import INK, MUTED, TOOLS
from afpjax.report.wording import GAP, interval, number, percent, short

__all__ = ["STORY"]

_BLUE, _RED = TOOLS["afarepart"], TOOLS["fault-unaware"]


def answer(result: Result) -> Html:
    """How requests ended."""
    if "requests" not in result:
        return html("An export, run for real")
    lost = len(result.get("throughput", {}).get("losses", ()))
    fate = f"{lost} of {len(result['devices'])} devices lost" if lost else "no device lost"
    return Html(
        f"<b>{result['answered']:,}</b> of {result['requests']:,} images were answered, "
        f"{html(percent(result['accuracy']))} of them right, with {fate}."
    )


def lead(result: Result) -> Html:
    if "refusals" not in result:
        return Html()
    reasons = [f"{each['count']:,} for “{each['reason']}”" for each in result["refusals"]]
    refused = f" Refused: {', '.join(reasons)}." if reasons else " None was refused."
    low, high = result["predicted_interval"]
    inside = "inside" if low <= result["accuracy"] <= high else "outside"
    return paragraph(
        f"Every device is a process of its own; an image is answered once, or refused by name."
        f"{refused} The accuracy is {inside} the interval that was predicted, "
        f"{interval(result['predicted_interval'])}{GAP}%."
    )


def speed(result: Result) -> Block:
    """Measured on the machines at hand, beside the model's figures for the planned hardware."""
    latency, planned = result["latency_ms"], result.get("predicted_cost")
    rows = [
        ("images per second", number(result["fps"]), planned and number(planned["fps"])),
        ("latency, median, ms", number(latency["p50"]), planned and number(planned["latency_ms"])),
        ("latency, 95 %, ms", number(latency["p95"]), ""),
        ("latency, 99 %, ms", number(latency["p99"]), ""),
    ]
    counted = result["throughput"]["latency_ms"]["histogram"]
    svg = draw(lambda axes: _latencies(axes[0], latency, counted), height=1.7)
    note = f"Predicted: the cost model, for {planned['hardware']}. " if planned else ""
    text = paragraph(
        note + "Measured: processes on the machine at hand, so the two need not agree. Latency "
        "is from the question to the answer, waiting for another mapping included."
    )
    listing = table(("", "measured", "predicted"), [(a, b, c or "–") for a, b, c in rows])
    shown = figure(svg, "Latency of answers", "")
    return Block(
        join([listing, text, Html(f"<div class=single>{shown}</div>")]), {"latency.svg": svg}
    )


def time_line(result: Result) -> Block:
    """Answers over time, with the instants at which devices died."""
    svg = draw(lambda axes: _time(axes[0], result), height=1.9)
    rows = [
        (
            each["device"],
            each["how"],
            f"{each['at_s']:.2f}",
            number(each["noticed_ms"]) if "noticed_ms" in each else "–",
            number(each["back_ms"]) if "back_ms" in each else "–",
            str(each["redone"]),
        )
        for each in result["throughput"]["losses"]
    ]
    head = ("device", "how", "found lost at, s", "after, ms", "next answer after, ms", "redone")
    listing = table(head, rows, words=(1,)) if rows else Html()
    shown = figure(svg, "Answers per second", "Dashed: a device is killed.")
    return Block(join([Html(f"<div class=single>{shown}</div>"), listing]), {"time.svg": svg})


def accuracy(result: Result) -> Block:
    """Measured beside predicted, for each set of devices that were lost."""
    rows = result["by_lost"]
    svg = draw(lambda axes: _accuracies(axes[0], rows), height=0.9 + 0.3 * len(rows))
    lines = [
        (
            ", ".join(each["lost"]) or "none",
            f"{each['answered']:,}",
            estimate(each, "accuracy"),
            estimate(each, "predicted"),
            percent(each["agreement"]),
        )
        for each in rows
    ]
    head = ("lost", "answered", "right", "predicted", "as afpjax")
    text = paragraph(
        "Predicted: afpjax’s own accuracy on all held-out images with exactly these devices lost; "
        "the interval is for as many images as were answered. As afpjax: answers that are right "
        "or wrong where afpjax’s are."
    )
    shown = figure(svg, "Images right, %", "Line: predicted, 95 %; dot: measured.")
    content = join([Html(f"<div class=single>{shown}</div>"), table(head, lines), text])
    return Block(content, {"accuracy.svg": svg})


def devices(result: Result) -> Block:
    """Memory, measured and predicted."""
    before = {each["device"]: each["base_mb"] for each in result["throughput"]["devices"]}
    rows = [
        (
            device(index, each["device"]),
            number(each["memory_mb"]),
            number(before[each["device"]]),
            number(each["model_mb"]),
            number(each["limit_mb"]),
            f"{each['killed_at']:.2f}" if "killed_at" in each else "–",
        )
        for index, each in enumerate(result["devices"])
    ]
    head = ("device", "process, MB", "before, MB", "model, MB", "limit, MB", "killed at, s")
    text = paragraph(
        "Process: the most memory that the device’s process took; before: when it had nothing to "
        "run yet; model: weights and the largest activations, which the limit is for."
    )
    return Block(join([table(head, rows), text]))


def layout(result: Result) -> Block:
    """What was served."""
    rows = [(str(key), str(value)) for key, value in result["export"].items()]
    return Block(details("The export", table(("", ""), rows, words=(1,))))


def _latencies(axes: Axes, latency: Mapping[str, Any], counted: Mapping[str, Any]) -> None:
    axes.stairs(counted["counts"], counted["edges"], fill=True, color=_BLUE)
    for level in ("p50", "p95", "p99"):
        axes.axvline(latency[level], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xlabel("ms")
    axes.set_ylabel("answers")


def _time(axes: Axes, result: Result) -> None:
    line = result["throughput"]["timeline"]
    step = line["step_s"]
    edges = [step * place for place in range(len(line["answered"]) + 1)]
    axes.stairs(
        [n / step for n in line["answered"]], edges, fill=True, color=_BLUE, label="answered"
    )
    if any(line["refused"]):
        axes.stairs([n / step for n in line["refused"]], edges, color=_RED, label="refused")
    for each in result["devices"]:
        if "killed_at" in each:
            axes.axvline(each["killed_at"], color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_xlabel("s")
    axes.set_ylabel("per second")
    legend(axes)


def _accuracies(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, each in enumerate(rows):
        low, high = each["predicted_interval"]
        axes.plot([100 * low, 100 * high], [place, place], color=MUTED)
        axes.plot([100 * each["accuracy"]], [place], "o", color=_BLUE)
    axes.set_yticks(
        range(len(rows)), [short(", ".join(each["lost"]) or "none lost", 24) for each in rows]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("images right, %")


STORY = Story(
    answer,
    lead,
    (
        Part("Accuracy with these devices lost", ("by_lost",), accuracy),
        Part("Over time", ("throughput", "devices"), time_line),
        Part("Speed", ("throughput", "latency_ms", "fps"), speed),
        Part("Devices", ("throughput", "devices"), devices),
        Part("What was served", ("export",), layout),
    ),
)
