"""Job `distribute`: how much memory buys how much robustness."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.distribute.view_words import (
    Record,
    Setting,
    at,
    in_text,
    is_apart,
    lost,
    method_look,
    method_name,
    ordered,
    settings,
)
from afpjax.report.charts import bounds, draw, legend, reference
from afpjax.report.markup import Html, details, estimate, figure, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.style import INK, PAPER
from afpjax.report.wording import Real, percent, rate

__all__ = ["CURVE", "curve"]

_MEMORY = "weights on the fullest device (% of the network's)"
_SEARCHED = "Searched thresholds"
_FIGURES = 9  # losses that are drawn; the numbers have all
_WHOLE = 0.9995  # of the network's weights: every method is full replication


def part(result: Result) -> Block:
    """One figure for each number of devices and of those lost, the numbers behind it."""
    records, clean = result["curve"], result.get("clean", {}).get("accuracy")
    drawn, shown = {}, []
    for setting in settings(records)[:_FIGURES]:
        mine, front = at(records, setting), _front(result, setting)
        name = f"curve-{setting[0]}-{setting[1]}.svg"
        drawn[name] = curve(mine, front, clean)
        shown.append(figure(drawn[name], lost(setting)))
    text = (
        "Smaller thresholds make smaller clusters and more replicas, which takes more memory. "
        "Lines join the thresholds that were tried, bands and uprights are 95\u00a0% intervals"
        f"{', the dotted line is no device lost' if clean is not None else ''}. "
        "LOP has no replicas, full replication has every neuron on every device."
    )
    if any(_front(result, setting) for setting in settings(records)):
        text += " Stars have thresholds of their own in each layer or group of layers (see below)."
    numbers = details(f"All numbers ({len(records)})", _table(records))
    kind = "grid" if len(shown) > 1 else "single"
    figures = Html(f"<div class={kind}>{join(shown)}</div>")
    return Block(join([paragraph(text), figures, _advantage(result), numbers]), drawn)


def _front(result: Result, setting: Setting) -> Sequence[Record]:
    """The searched placements, where they were measured under these failures."""
    found = result.get("search", {})
    same = (found.get("devices"), found.get("failed")) == setting
    return found.get("front", ()) if same else ()


def curve(
    records: Sequence[Record], front: Sequence[Record] = (), clean: Real | None = None
) -> bytes:
    """Accuracy (%) over memory (%): a line in its band for each method that has thresholds.

    Methods without are points with their intervals, and so is each record of `front`.
    """

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for method in dict.fromkeys(record["method"] for record in ordered(records)):
            mine = [record for record in records if record["method"] == method]
            _line(axes, mine) if "threshold" in mine[0] else _point(axes, mine)
        if front:
            where = [100 * record["memory"] for record in front]
            _uprights(axes, where, front, INK)
            axes.plot(
                where, [100 * record["accuracy"] for record in front], marker="*", linestyle="",
                color=INK, markersize=7.5, markeredgecolor=PAPER, markeredgewidth=0.4,
                label=_SEARCHED, zorder=4, clip_on=False,
            )  # fmt: skip
        reference(axes, clean)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set(xlabel=_MEMORY, ylabel="images right (%)")
        legend(axes)

    return draw(paint, height=2.75)


def _line(axes: Axes, records: Sequence[Record]) -> None:
    rows = sorted(records, key=lambda record: record["memory"])
    colour, marker, line = method_look(rows[0]["method"])
    where = [100 * record["memory"] for record in rows]
    low, high = zip(*(bounds(record, "accuracy") for record in rows), strict=True)
    axes.fill_between(where, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        where, [100 * record["accuracy"] for record in rows], color=colour, marker=marker,
        linestyle=line, markersize=3.6, linewidth=1.4, label=method_name(rows[0]["method"]),
        clip_on=False, zorder=3,
    )  # fmt: skip


def _point(axes: Axes, records: Sequence[Record]) -> None:
    colour, marker, _ = method_look(records[0]["method"])
    where = [100 * record["memory"] for record in records]
    _uprights(axes, where, records, colour)
    axes.plot(
        where, [100 * record["accuracy"] for record in records], color=colour, marker=marker,
        linestyle="", markersize=6, label=method_name(records[0]["method"]), clip_on=False,
        zorder=3,
    )  # fmt: skip


def _uprights(axes: Axes, where: Sequence[float], records: Sequence[Record], colour: str) -> None:
    low, high = zip(*(bounds(record, "accuracy") for record in records), strict=True)
    axes.vlines(where, low, high, colors=colour, linewidths=1.1, alpha=0.8)


def _advantage(result: Result) -> Html:
    """How often RobustDiCE keeps more, or less, than another method of equal memory."""
    rows, methods = [], []
    for setting in settings(result["curve"]):
        mine = [record for record in at(result["curve"], setting) if "threshold" in record]
        own = {r["threshold"]: r for r in mine if r["method"] == "robustdice"}
        found = {
            method: _counts(own, [record for record in mine if record["method"] == method])
            for method in dict.fromkeys(record["method"] for record in ordered(mine))
            if method != "robustdice" and own
        }
        methods += [method for method in found if method not in methods]
        rows.append((setting, found))
    if not methods:
        return Html()
    head = ("beside", *(in_text(method) for method in methods))
    lines = [(lost(setting), *(found.get(m, "–") for m in methods)) for setting, found in rows]
    paired = any("difference_interval" in record for record in result["curve"])
    note = (
        "At how many thresholds RobustDiCE, at the same memory, keeps more or less, "
        f"{'the difference on the same images' if paired else 'the two intervals'} "
        f"{'having an interval without zero' if paired else 'being apart'}; thresholds that "
        "replicate everything are left out."
    )
    return join([table(head, lines), paragraph(note, kind="note")])


def _counts(own: Mapping[Real, Record], others: Sequence[Record]) -> Html:
    """`3 more, 0 less of 4`."""
    signs = [
        _sign(own[record["threshold"]], record)
        for record in others
        if record["threshold"] in own and record["memory"] < _WHOLE
    ]
    said = f"{signs.count(1)} more,<br>{signs.count(-1)} less of {len(signs)}"
    return Html(said if signs else "–")


def _sign(own: Record, other: Record) -> int:
    """1: more for certain, -1: less, 0: the images do not tell."""
    if "difference_interval" in other:
        low, high = other["difference_interval"]
        return (low > 0) - (high < 0)
    apart = is_apart(own, other)
    return apart * (1 if own["accuracy"] > other["accuracy"] else -1)


def _table(records: Sequence[Record]) -> Html:
    rows = [
        (
            method_name(record["method"]),
            lost(setting).removesuffix(" lost"),
            rate(record["threshold"]) if "threshold" in record else "–",
            percent(record["memory"]),
            estimate(record, "accuracy"),
        )
        for setting in settings(records)
        for record in ordered(at(records, setting))
    ]
    return table(("method", "lost", "threshold", "memory", "images right"), rows)


CURVE = (Part("Robustness against memory", ("curve",), part),)
