"""How every figure of the report is drawn: size, type, colours, and compact SVG.

Drawn 300 points wide, for a phone's column or a third of a desktop's, with text left as text.
Same data, same bytes: ids come from a fixed salt and no date is written.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from afpjax.report.style import DEVICES, GRID, INK, MARKERS, MUTED, PAPER
from afpjax.report.wording import Real, short, short_names

__all__ = [
    "Records",
    "bounds",
    "cost_bars",
    "costliest",
    "device_look",
    "draw",
    "legend",
    "rate_axis",
    "reference",
]

Records = Sequence[Mapping[str, Any]]

_WIDTH = 300 / 72  # inches
_BARS = 72  # bars in a cost figure, all devices
_TICKED = 6  # flip rates up to which each is named on its axis
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "afpjax",
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "text.parse_math": False,  # names may hold dollars
}


def draw(
    paint: Callable[[Sequence[Axes]], None],
    *,
    height: float,
    rows: int = 1,
    columns: int = 1,
    share_rows: bool = True,
) -> bytes:
    """Axes (row by row, sharing scales within columns and rows), painted and written as SVG.

    Without `share_rows` each has its own scale upwards. Whatever the reader's matplotlibrc says;
    `height` in inches.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.get_layout_engine().set(wspace=0.08)  # pyright: ignore
        axes = figure.subplots(rows, columns, sharex="col", sharey=share_rows, squeeze=False)
        paint(list(axes.flat))
        out = BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return _compact(out.getvalue().decode()).encode()


def _compact(svg: str) -> str:
    """Without comments and indents, and with hundredths of a point at most."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s*\n\s*<", "><", svg)

    def shorter(tag: re.Match[str]) -> str:
        flat = re.sub(r"\s*\n\s*", " ", tag[0])
        return re.sub(r"(\d\.\d\d)\d+", r"\1", flat)

    return re.sub(r"<[^>]*>", shorter, svg)


def legend(*axes: Axes) -> None:
    """Above the axes, where it hides nothing; up to three names a row, as many as fit."""
    entries = [
        pair for each in axes for pair in zip(*each.get_legend_handles_labels(), strict=True)
    ]
    handles, labels = [handle for handle, _ in entries], [short(name, 24) for _, name in entries]
    widest = 28 + 4.6 * max(map(len, labels), default=0)  # points: mark, gaps and letters
    figure = axes[0].get_figure()
    assert figure is not None
    figure.legend(
        handles, labels, loc="outside upper left", ncols=max(1, min(3, int(300 // widest))),
        columnspacing=1.1, handletextpad=0.4, borderaxespad=0.1, handlelength=1.9,
    )  # fmt: skip


def reference(axes: Axes, clean: Real | None) -> None:
    """A dotted line at the accuracy without faults."""
    if clean is not None:
        axes.axhline(100 * clean, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))


def rate_axis(axes: Axes, rates: Sequence[Real]) -> None:
    """Logarithmic (linear next to zero) where the rates span more than a factor of four."""
    positive = sorted({rate for rate in rates if rate > 0})
    if len(positive) > 1 and positive[-1] > 4 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(set(rates)) <= _TICKED:
        axes.set_xticks(sorted(set(rates)))
        axes.xaxis.set_minor_locator(NullLocator())
    elif axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def bounds(record: Mapping[str, Any], key: str) -> tuple[float, float]:
    """The interval of `key` in percent; of no width where there is none."""
    low, high = record.get(f"{key}_interval", (record[key], record[key]))
    return 100.0 * low, 100.0 * high


def device_look(index: int) -> tuple[str, str]:
    """Colour and marker of the device with this index."""
    return DEVICES[index % len(DEVICES)], MARKERS[index % len(MARKERS)]


def costliest(costs: Sequence[Any], devices: Sequence[str], key: str) -> list[str]:
    """The layers whose `key` is highest on any device, in the order they run, as many as fit."""
    most: dict[str, Real] = {}
    for cost in costs:
        most[cost.layer] = max(getattr(cost, key), most.get(cost.layer, 0))
    room = max(_BARS // len(devices), 8)
    dearest = sorted(most, key=lambda layer: -most[layer])[:room]
    return [layer for layer in most if layer in dearest]


def cost_bars(costs: Sequence[Any], devices: Sequence[str], key: str, label: str) -> bytes:
    """Bars of `key` for each device, top to bottom as in the legend, for the costliest layers."""
    layers = costliest(costs, devices, key)
    table = {(cost.layer, cost.device): getattr(cost, key) for cost in costs}

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        thick = 0.8 / len(devices)
        for index, device in enumerate(devices):
            where = [i + (index - (len(devices) - 1) / 2) * thick for i in range(len(layers))]
            values = [table.get((layer, device), 0) for layer in layers]
            colour, _ = device_look(index)
            axes.barh(where, values, thick * 0.92, color=colour, label=device)
        axes.set_yticks(range(len(layers)), short_names(layers, 19))
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(label)
        legend(axes)

    return draw(paint, height=0.9 + len(layers) * max(0.17, 0.06 * len(devices)))
