"""Accuracies as rows of a figure: named at the left, what they cost at the right."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.distribute.view_words import Record
from afpjax.report.charts import bounds, draw
from afpjax.report.style import INK, MUTED, PAPER
from afpjax.report.wording import Real, short_names

__all__ = ["Row", "bars", "dots", "spreads"]

_ROW = 0.19  # inches
_GAP = 0.35  # rows, between groups
_LABEL = "images right (%)"
_LETTER = 7.5  # points: size of what stands at the right


class Row(NamedTuple):
    """One accuracy; `aside` stands at its right, `hollow` is another accuracy to compare with."""

    name: str
    record: Record
    colour: str
    aside: str = ""
    hollow: Real | None = None


def bars(groups: Mapping[str, Sequence[Row]], clean: Real | None = None, aside: str = "") -> bytes:
    """A bar from zero for each row (%), below its group's heading, its interval as a thick line.

    Thin uprights are the record's `accuracy_worst` and `accuracy_best`, the dashed line is `clean`.
    """

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        _frame(axes, groups, aside)
        for place, row in _placed(groups):
            value = 100 * row.record["accuracy"]
            axes.barh([place], [value], 0.76, color=row.colour, alpha=0.72)
            axes.hlines([place], *bounds(row.record, "accuracy"), colors=INK, linewidths=1.8)
            ends = [
                100 * row.record[key]
                for key in ("accuracy_worst", "accuracy_best")
                if key in row.record
            ]
            axes.vlines(ends, place - 0.38, place + 0.38, colors=INK, linewidths=0.7)
            _hollow(axes, place, row)
        axes.set_xlim(0, _top(groups, clean))
        _clean(axes, clean)

    return draw(paint, height=_height(groups))


def dots(groups: Mapping[str, Sequence[Row]], clean: Real | None = None, aside: str = "") -> bytes:
    """A dot for each row (%) in its interval, on an axis that need not begin at zero."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        _frame(axes, groups, aside)
        for place, row in _placed(groups):
            low, high = bounds(row.record, "accuracy")
            axes.hlines([place], low, high, colors=row.colour, linewidths=4, alpha=0.35)
            axes.plot(
                [100 * row.record["accuracy"]], [place], marker="o", color=row.colour,
                markersize=4, linestyle="", clip_on=False,
            )  # fmt: skip
            _hollow(axes, place, row)
        axes.margins(x=0.06)
        _clean(axes, clean)

    return draw(paint, height=_height(groups))


def spreads(
    groups: Mapping[str, Sequence[Row]], clean: Real | None = None, aside: str = ""
) -> bytes:
    """How the accuracy of a run is spread (%), from the records' `quantiles`.

    Line: from 5 to 95 % of the runs; bar: the middle half; dot: the median; diamond: the mean.
    """

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        _frame(axes, groups, aside)
        for place, row in _placed(groups):
            low, first, median, third, high = (
                100 * row.record["quantiles"][level] for level in ("5%", "25%", "50%", "75%", "95%")
            )
            axes.hlines([place], low, high, colors=row.colour, linewidths=1)
            axes.hlines([place], first, third, colors=row.colour, linewidths=5, alpha=0.5)
            axes.plot([median], [place], marker="o", color=row.colour, markersize=4, clip_on=False)
            _diamond(axes, 100 * row.record["accuracy"], place, row.colour)
        axes.set_xlim(0, _top(groups, clean))
        _clean(axes, clean)

    return draw(paint, height=_height(groups))


def _placed(groups: Mapping[str, Sequence[Row]]) -> list[tuple[float, Row]]:
    """Rows from the top down."""
    starts = _starts(groups)
    return [
        (start + bool(heading) + number, row)
        for start, (heading, rows) in zip(starts, groups.items(), strict=True)
        for number, row in enumerate(rows)
    ]


def _starts(groups: Mapping[str, Sequence[Row]]) -> list[float]:
    """Where each group's heading stands, or its first row where it has none."""
    starts, place = [], 0.0
    for heading, rows in groups.items():
        starts.append(place)
        place += bool(heading) + len(rows) + _GAP
    return starts


def _size(groups: Mapping[str, Sequence[Row]]) -> float:
    return sum(bool(heading) + len(rows) + _GAP for heading, rows in groups.items()) - _GAP


def _height(groups: Mapping[str, Sequence[Row]]) -> float:
    return 0.62 + _ROW * max(_size(groups), 3)


def _frame(axes: Axes, groups: Mapping[str, Sequence[Row]], aside: str) -> None:
    """Names, headings and what stands at the right."""
    rows = _placed(groups)
    headings = {
        start: heading for start, heading in zip(_starts(groups), groups, strict=True) if heading
    }
    each = list(dict.fromkeys(row.name for _, row in rows))
    names = dict(zip(each, short_names(each, 24), strict=True))
    labels = {place: names[row.name] for place, row in rows} | headings
    places = sorted(labels)
    axes.set_yticks(places, [labels[place] for place in places])
    for place, label in zip(places, axes.get_yticklabels(), strict=True):
        if place in headings:
            label.set(fontweight="bold", color=INK)
    axes.set_ylim(_size(groups) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for place, row in rows:
        _beside(axes, place, row.aside)
    if aside and rows:
        _beside(axes, rows[0][0] - 1, aside)


def _beside(axes: Axes, place: float, text: str) -> None:
    if text:
        axes.text(
            1.03, place, text, transform=axes.get_yaxis_transform(), fontsize=_LETTER,
            verticalalignment="center", color=MUTED,
        )  # fmt: skip


def _hollow(axes: Axes, place: float, row: Row) -> None:
    if row.hollow is not None:
        _diamond(axes, 100 * row.hollow, place, row.colour)


def _diamond(axes: Axes, value: float, place: float, colour: str) -> None:
    axes.plot(
        [value], [place], marker="D", markersize=4.2, color=PAPER, markeredgecolor=colour,
        markeredgewidth=1.1, linestyle="", clip_on=False, zorder=4,
    )  # fmt: skip


def _clean(axes: Axes, clean: Real | None) -> None:
    if clean is not None:
        axes.axvline(100 * clean, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))


def _top(groups: Mapping[str, Sequence[Row]], clean: Real | None) -> float:
    """The right end of an axis that begins at zero."""
    ends = [100 * (clean or 0), 1.0]
    for _, row in _placed(groups):
        ends += [bounds(row.record, "accuracy")[1], 100 * row.record.get("accuracy_best", 0)]
        ends += [100 * (row.hollow or 0)]
        ends += [100 * value for value in row.record.get("quantiles", {}).values()]
    return min(100.0, 1.04 * max(ends))
