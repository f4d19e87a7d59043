"""Figures of job `campaign`: heat maps, rankings, curves with bands, and how faults end."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.campaign.result import CellResult, Endings
from afpjax.jobs.shared.view import percents
from afpjax.report.charts import draw, legend, rate_axis
from afpjax.report.style import HEAT, INK
from afpjax.report.wording import Real, short, short_names

__all__ = ["SHOWN", "STEPS", "Line", "curves", "ends", "heat", "ranking", "step"]

SHOWN = 40  # layers that a ranking has room for
#: Upper ends of the heat map's steps, in percent; the first is exactly none.
STEPS = (0, 0.1, 0.3, 1, 3, 10, 30, 100)
_NAMED = 64  # rows up to which a heat map names each
_LETTER = 4.6  # points, about
_GAP = 0.05  # of a cell, on each side
#: How a pair ends -> in a few words, and its colour; every pair is in one of them.
_ENDS = {
    "masked": ("masked", HEAT[0]),
    "tolerable": ("tolerable", HEAT[2]),
    "shaken": ("probability off >10 %", HEAT[4]),
    "sdc1": ("another class", HEAT[6]),
    "non_finite": ("not finite", INK),
}


class Line(NamedTuple):
    """One series of a figure of curves."""

    name: str
    where: Sequence[Real]
    cells: Sequence[CellResult]
    colour: str
    marker: str


def step(value: Real) -> int:
    """The step of `STEPS` that a fraction falls in."""
    return next(index for index, end in enumerate(STEPS) if 100 * value <= end + 1e-9)


def heat(
    values: Sequence[Sequence[Real | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    across: str,
    down: str = "",
) -> bytes:
    """A square for each fraction, coloured by its step; none where it is None."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for index, colour in enumerate(HEAT):
            corners = [
                (column, row)
                for row, line in enumerate(values)
                for column, value in enumerate(line)
                if value is not None and step(value) == index
            ]
            if corners:
                axes.add_patch(PathPatch(_squares(corners), facecolor=colour, linewidth=0))
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if len(rows) <= _NAMED:
            axes.set_yticks(range(len(rows)), short_names(rows, 19), fontsize=7.5)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
        _name_columns(axes, columns)
        axes.set(xlabel=across, ylabel=down)
        _scale(axes)

    return draw(paint, height=0.85 + len(rows) * min(0.17, max(0.055, 9.0 / len(rows))))


def _squares(corners: Sequence[tuple[int, int]]) -> Path:
    low, high = _GAP - 0.5, 0.5 - _GAP
    around = ((low, low), (high, low), (high, high), (low, high), (low, low))
    places = [(x + dx, y + dy) for x, y in corners for dx, dy in around]
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(corners)
    return Path(places, codes)


def _name_columns(axes: Axes, columns: Sequence[str]) -> None:
    """As many as fit side by side, or upright where they are long."""
    names = [short(name, 16) for name in columns]
    room, wide = 200 / len(names), _LETTER * max(map(len, names)) + 3
    upright = wide > 4 * room or (wide > room and not all(name.isdigit() for name in names))
    every = 1 if upright else -(-wide // room)
    shown = range(0, len(names), int(every))
    turned = 90 if upright else 0
    axes.set_xticks(list(shown), [names[place] for place in shown], rotation=turned)


def _scale(axes: Axes) -> None:
    """The colours' key in one line above."""
    words = ["0", *(f"≤{end:g}" for end in STEPS[1:-1]), f"≤{STEPS[-1]} %"]
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(
        [Patch(facecolor=colour) for colour in HEAT], words, loc="outside upper left",
        ncols=len(HEAT), handlelength=1.0, handletextpad=0.3, columnspacing=0.65,
        borderaxespad=0.1, fontsize=7.5,
    )  # fmt: skip


def ranking(cells: Sequence[CellResult], names: Sequence[str], colour: str, label: str) -> bytes:
    """A row for each cell in the order given: its SDC rate (%), and its interval as a bar."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        places = range(len(cells))
        rates, low, high = percents([cell.sdc_rate for cell in cells])
        axes.hlines(places, low, high, colors=colour, linewidths=4, alpha=0.35)
        axes.plot(
            rates, places, color=colour, marker="o", linestyle="", markersize=3.8, clip_on=False
        )
        axes.set_yticks(places, short_names(names, 19))
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(label)

    return draw(paint, height=0.6 + 0.19 * max(len(cells), 3))


def curves(lines: Sequence[Line], key: str, across: str, label: str, rates: bool) -> bytes:
    """`key` (%) of each line's cells over where they stand, intervals as bands."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for name, where, cells, colour, marker in lines:
            values, low, high = percents([getattr(cell, key) for cell in cells])
            axes.fill_between(where, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(
                where, values, color=colour, marker=marker,
                label=name, linewidth=1.3, markersize=3.5, clip_on=False, zorder=3,
            )  # fmt: skip
        every = sorted({place for line in lines for place in line.where})
        if rates:
            rate_axis(axes, every)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        if key == "sdc_rate":
            axes.set_ylim(bottom=0)
        axes.set(xlabel=across, ylabel=label)
        if len(lines) > 1:
            legend(axes)

    return draw(paint, height=2.3)


def ends(endings: Sequence[Endings], names: Sequence[str]) -> bytes:
    """A bar for each cell: how its faults end, shares of (fault, image) pairs (%)."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        places, start = range(len(endings)), [0.0] * len(endings)
        for name, (words, colour) in _ENDS.items():
            wide = [100 * getattr(each, name) for each in endings]
            if any(wide):
                axes.barh(places, wide, 0.8, left=start, color=colour, label=words)
            start = [left + more for left, more in zip(start, wide, strict=True)]
        axes.set_yticks(places, short_names(names, 19))
        axes.set(ylim=(len(endings) - 0.5, -0.5), xlim=(0, 100))
        axes.grid(visible=False)
        axes.set_xlabel("of all fault and image pairs (%)")
        legend(axes)

    return draw(paint, height=0.95 + 0.19 * max(len(endings), 2))
