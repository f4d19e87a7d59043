"""The report of job `online`: what re-partitioning while the system runs is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

from afpjax.jobs.online.view_figures import NAMES, over_time, seen
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
from afpjax.report.wording import GAP, Real, number, percent, points, rate, signed

__all__ = ["STORY"]

Rows = Sequence[Mapping[str, Any]]
_REASONS = {
    "accuracy": "too much is lost",
    "search again": "not enough found yet",
    "above limits": "the mapping costs more than it may",
    "device lost": "a device is gone",
    "device back": "a device is back",
    "review": "the first one again?",
}


def answer(result: Result) -> Html:
    """How long too much is lost, with and without the online phase."""
    rows = _overall(result)
    if not rows:
        return html("A stream of images while the environment changes")
    online = rows["online"]
    text = (
        f"More than {_points(result['theta'])} of accuracy are lost in "
        f"<b>{html(percent(online['above']))}</b> of the time"
    )
    if "never" in rows:
        text += f", and in {html(percent(rows['never']['above']))} if nothing is ever moved"
    return Html(f"{text}.")


def lead(result: Result) -> Html:
    """What was run, and how rarely it acts for nothing."""
    if not {"stream", "watch", "traces"} <= result.keys():
        return Html()
    stream, watch = result["stream"], result["watch"]
    kind = "labelled canaries" if stream["labels"] else "images that a clean reference sees too"
    count = len(result["traces"])
    return paragraph(
        f"{count} environment{'s' if count > 1 else ''}, {stream['seeds']} "
        f"stream{'s' if stream['seeds'] > 1 else ''} each, batches of {stream['batch']} images "
        "with "
        f"{stream['canaries']} {kind}. The system acts on evidence, not on one bad batch: at most "
        f"{rate(watch['false_alarms_per_hour'])} false alarms an hour."
    )


def time_lines(result: Result) -> Block:
    """The first stream of every environment."""
    drawn, shown = {}, []
    about = {each["trace"]: each.get("description", "") for each in result["traces"]}
    for name in dict.fromkeys(row["trace"] for row in result["timelines"]):
        rows = [row for row in result["timelines"] if row["trace"] == name]
        drawn[f"time-{len(drawn) + 1}.svg"] = svg = over_time(rows, result["theta"])
        shown.append(figure(svg, name, about.get(name, "")))
    text = paragraph(
        "From above: the highest flip rate of any device, the accuracy lost (true; dashed: theta; "
        "dots: another mapping), latency and energy of an image."
    )
    kind = "grid" if len(shown) > 1 else "single"
    return Block(join([text, Html(f"<div class={kind}>{join(shown)}</div>")]), drawn)


def observed(result: Result) -> Block:
    """What the system saw of its first stream, and what it decided."""
    events = result["events"]
    svg = seen(events, result["clean"]["accuracy"], result["theta"], result["watch"]["alarm"])
    decided = [event for event in events if "reason" in event]
    rows = [
        (
            str(event["step"]),
            _why(event),
            _rates(result, event),
            points(event["expected_drop"]) if "expected_drop" in event else "–",
        )
        for event in decided
    ]
    head = ("step", "why", "flip rates, estimated", "drop expected, points")
    listing = table(head, rows, words=(1, 2)) if rows else paragraph("Nothing was decided.")
    shown = figure(
        svg,
        "What canaries told",
        "Uprights: another mapping. Dashed: theta is lost; enough evidence for an alarm (a mark).",
    )
    return Block(join([Html(f"<div class=single>{shown}</div>"), listing]), {"seen.svg": svg})


def worth(result: Result) -> Block:
    """The policies side by side, and paired differences."""
    parts = []
    names = list(dict.fromkeys(row["trace"] for row in result["policies"]))
    for name in [names[-1], *names[:-1]]:
        rows = [row for row in result["policies"] if row["trace"] == name]
        title = "All environments" if name == "all" else name
        listing = table(_HEAD, [_policy(row) for row in rows])
        whole = name == names[-1]
        heading = Html(f"<h3>{html(title)}</h3>")
        parts.append(join([heading, listing]) if whole else details(title, listing))
    gains = [row for row in result.get("gains", ()) if row["trace"] == names[-1]]
    lines = [(NAMES[row["over"]], _signed(row, "accuracy"), _signed(row, "above")) for row in gains]
    if lines:
        head = ("online against", "images right, points", "time above theta, points")
        parts.insert(1, table(head, lines))
    note = (
        "Latency and energy are for an image, with what probes and moved weights took spread over "
        "the stream. The safest mapping (the network on the device with the lowest estimated rate, "
        "but for what would cost too much there) and the stored front's best are taken without a "
        "search; the oracle knows the true rates, and its searches take no time."
    )
    return Block(join([*parts, paragraph(note)]))


_HEAD = ("policy", "images right", "time above theta", "latency, ms", "energy, mJ", "switches")


def alarm(result: Result) -> Block:
    """What makes the system act."""
    watch, stream, search = result["watch"], result["stream"], result["searches"]
    text = paragraph(
        f"Each batch has {stream['canaries']} canaries of {stream['pool']} that the fault-free "
        f"network answers as it should. Evidence grows where more than {percent(watch['limit'])} "
        f"of them fail, and falls where fewer do; at {number(watch['alarm'])} the system acts. "
        "While no more than that fail on average, it takes at least as many batches on average "
        "until a false alarm, however much the images of a batch fail together. "
        "Devices are then probed with canaries, rates are estimated, and NSGA-II goes on from the "
        f"front that it has, for {search['generations']} generations or "
        f"{number(search['budget_ms'])}{GAP}ms, at {number(search['passes_per_s'])} passes of an "
        "image under faults a second."
    )
    rows = [
        (
            row["environment"],
            percent(row["failing"]),
            f"{row['batches']:,}",
            row["alarms"],
            _per_hour(row),
        )
        for row in result.get("false_alarms", ())
    ]
    head = ("rates stay", "canaries fail", "batches", "alarms", "alarms an hour")
    return Block(join([text, table(head, rows)] if rows else [text]))


def _per_hour(row: Mapping[str, Any]) -> str:
    low, high = row["alarms_per_hour_interval"]
    return f"{row['alarms_per_hour']:.2g} [{low:.2g},{GAP}{high:.2g}]"


def begun(result: Result) -> Block:
    """Which layer ran where at first, and at last in the first stream."""
    names, first = result["devices"], result["first"]
    last = result["events"][-1]["mapping"]
    rows = [
        (layer["name"], device(one, names[one]), device(other, names[other]))
        for layer, one, other in zip(result["model"]["layers"], first["mapping"], last, strict=True)
    ]
    listing = table(("layer", "at first", "at last"), rows, words=(1, 2))
    text = paragraph(
        "The first mapping, in the environment that it was made for: ",
        estimate(first, "accuracy"),
        f" right, {number(first['latency_ms'])}{GAP}ms, {number(first['energy_mj'])}{GAP}mJ.",
    )
    return Block(join([text, details(f"Layer by layer ({len(rows)})", listing)]))


def _overall(result: Result) -> dict[str, Mapping[str, Any]]:
    """The policies over all environments."""
    rows = result.get("policies", ())
    name = rows[-1]["trace"] if rows else ""
    return {row["policy"]: row for row in rows if row["trace"] == name}


def _policy(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        NAMES[row["policy"]],
        estimate(row, "accuracy"),
        estimate(row, "above"),
        number(row["latency_ms"]),
        number(row["energy_mj"]),
        f"{row['switches']:.1f}",
    )


def _signed(row: Mapping[str, Any], key: str) -> str:
    text = signed(100 * row[key], 1)
    if f"{key}_interval" in row:
        low, high = (signed(100 * bound, 1) for bound in row[f"{key}_interval"])
        text += f" [{low},{GAP}{high}]"
    return text


def _why(event: Mapping[str, Any]) -> str:
    reason = str(_REASONS.get(event["reason"], event["reason"]))
    return f"{reason} (out of time)" if event.get("cut") else reason


def _rates(result: Result, event: Mapping[str, Any]) -> Html:
    made = event.get("estimated", ())
    places = {name: place for place, name in enumerate(result["devices"])}
    each = [Html(f"{device(places[row['device']])} {html(percent(row['rate']))}") for row in made]
    return join(each, " ") if each else html("–")


def _points(theta: Real) -> str:
    return f"{100 * theta:g}{GAP}points"


STORY = Story(
    answer,
    lead,
    (
        Part("Over time", ("timelines", "traces"), time_lines),
        Part("Is it worth its cost?", ("policies",), worth),
        Part("What was seen, and what was done", ("events", "clean", "watch"), observed),
        Part("How the alarm works", ("watch", "stream", "searches"), alarm),
        Part("Where it began", ("first", "events", "model"), begun),
    ),
)
