"""The figure of job `importance`: how a score spreads over the neurons of each layer."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from afpjax.jobs.importance.result import LayerScores
from afpjax.report.charts import draw
from afpjax.report.style import TOOLS
from afpjax.report.wording import rate, short_names

__all__ = ["SHOWN", "shown", "spread"]

SHOWN = 40  # layers that a figure has room for
_DECADES = 5  # below the largest score; what is smaller stands at the left edge
_NARROW = 50  # a highest score by so much above the lowest needs a logarithmic axis
_COLOUR = TOOLS["afarepart"]


def shown(layers: Sequence[LayerScores], key: str) -> list[LayerScores]:
    """The layers with the highest scores, in the order they run, as many as fit."""
    highest = sorted(layers, key=lambda layer: -getattr(layer, key).max())[:SHOWN]
    return [layer for layer in layers if any(layer is each for each in highest)]


def spread(layers: Sequence[LayerScores], key: str, label: str) -> bytes:
    """A row for each layer: all neurons' scores as a line, the middle half of them as a bar.

    The dot is the median, the mark at the right end the highest neuron.
    """
    rows = shown(layers, key)
    top = max(float(getattr(layer, key).max()) for layer in rows)
    floor = top * 10.0**-_DECADES if top > 0 else 0.0

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for place, layer in enumerate(rows):
            values = np.maximum(np.asarray(getattr(layer, key), float), floor)
            low, first, median, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
            axes.plot([low, high], [place, place], color=_COLOUR, linewidth=0.9, alpha=0.6)
            axes.plot(
                [first, third], [place, place], color=_COLOUR, linewidth=4,
                solid_capstyle="butt", alpha=0.55,
            )  # fmt: skip
            axes.plot([median], [place], marker="o", color=_COLOUR, markersize=3.5, clip_on=False)
            axes.plot([high], [place], marker="|", color=_COLOUR, markersize=7, clip_on=False)
        names = [layer.name for layer in rows]
        axes.set_yticks(range(len(rows)), short_names(names, 19))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        smallest = max(min(float(getattr(layer, key).min()) for layer in rows), floor)
        if top > _NARROW * smallest:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(label)

    return draw(paint, height=0.75 + 0.19 * max(len(rows), 3))
