"""The figures of which device computes which neurons, for shallow and deep networks."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.distribute.view_words import Record
from afpjax.report.charts import draw, legend
from afpjax.report.style import DEVICES, HEAT, MUTED
from afpjax.report.wording import short_names

__all__ = ["Run", "copies", "lanes", "runs"]

_NAMED = 64  # rows up to which each layer is named
_LANES = 0.07  # inches: a device's lane, more where there are few
_BLOCK = 0.28  # inches: all lanes of a layer, at least
_TALLEST = 1.1  # and at most
_THICK, _THIN = 0.88, 0.42  # of a lane


class Run(NamedTuple):
    """Neurons of a layer that the same devices hold, as a part of its width, from 0 to 1."""

    start: float
    end: float
    mask: int

    @property
    def copies(self) -> int:
        return self.mask.bit_count()


def runs(held: Sequence[int]) -> list[Run]:
    """Neurons by the devices that hold them: those of few copies first, then by device."""
    counts = Counter(held)
    ordered = sorted(counts, key=lambda mask: (mask.bit_count(), mask & -mask, mask))
    found, start = [], 0
    for mask in ordered:
        end = start + counts[mask]
        found.append(Run(start / len(held), end / len(held), mask))
        start = end
    return found


def lanes(layers: Sequence[Record], devices: int) -> bytes:
    """A block for each layer with a lane for each device, 0 at the top: its share of the neurons.

    Copies of a neuron stand above each other in the lanes of the devices that hold them. Thick:
    the only copy; thin: one of several.
    """
    pitch = devices + max(1.0, 0.35 * devices)

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for device in range(devices):
            path = _path(list(_boxes(layers, device, pitch)))
            colour = DEVICES[device % len(DEVICES)]
            axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0))
        middle = [place * pitch + devices / 2 for place in range(len(layers))]
        axes.set_yticks(middle, short_names([layer["layer"] for layer in layers], 19))
        axes.set(xlim=(0, 100), ylim=(len(layers) * pitch, devices - pitch))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("neurons of the layer, fewest copies first (%)")
        for where, layer in zip(middle, layers, strict=True):
            _beside(axes, where, f"{layer['neurons']:,}")
        _beside(axes, (devices - pitch) / 2, "neurons")

    block = min(max(_BLOCK, _LANES * devices), _TALLEST) * pitch / devices
    return draw(paint, height=0.6 + block * max(len(layers), 2))


def _boxes(
    layers: Sequence[Record], device: int, pitch: float
) -> Iterator[tuple[float, float, float, float]]:
    """Left, right, top and bottom of what a device holds."""
    for place, layer in enumerate(layers):
        middle = place * pitch + device + 0.5
        for run in runs(layer["held"]):
            if run.mask >> device & 1:
                half = (_THICK if run.copies == 1 else _THIN) / 2
                yield 100 * run.start, 100 * run.end, middle - half, middle + half


def _path(boxes: Sequence[tuple[float, float, float, float]]) -> Path:
    places = [
        corner
        for left, right, top, low in boxes
        for corner in ((left, top), (right, top), (right, low), (left, low), (left, top))
    ]
    return Path(places, [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(boxes))


def _beside(axes: Axes, where: float, text: str) -> None:
    axes.text(
        1.03, where, text, transform=axes.get_yaxis_transform(), fontsize=7.5, color=MUTED,
        verticalalignment="center",
    )  # fmt: skip


def _darkness(count: int, devices: int) -> str:
    """The colour of so many copies: a single one, which is lost first, stands out most."""
    last = len(HEAT) - 1
    steps = last if devices >= len(HEAT) else last - 1  # without the faintest where it can be
    return HEAT[last - round(steps * (count - 1) / max(devices - 1, 1))]


def copies(layers: Sequence[Record], devices: int) -> bytes:
    """A bar for each layer: shares of its neurons (%) by how many devices hold them.

    The fewer, the darker.
    """

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        start = [0.0] * len(layers)
        counted = [Counter(mask.bit_count() for mask in layer["held"]) for layer in layers]
        for count in range(1, devices + 1):
            wide = [
                100 * each[count] / layer["neurons"]
                for each, layer in zip(counted, layers, strict=True)
            ]
            if any(wide):
                colour = _darkness(count, devices)
                name = "1 copy" if count == 1 else f"{count} copies"
                axes.barh(range(len(layers)), wide, 0.82, left=start, color=colour, label=name)
            start = [left + more for left, more in zip(start, wide, strict=True)]
        if len(layers) <= _NAMED:
            names = short_names([layer["layer"] for layer in layers], 19)
            axes.set_yticks(range(len(layers)), names, fontsize=7.5)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
            axes.set_ylabel("layer, in the order they run")
        axes.set(xlim=(0, 100), ylim=(len(layers) - 0.5, -0.5))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.set_xlabel("neurons of the layer (%)")
        legend(axes)

    return draw(paint, height=1.0 + max(2, len(layers)) * min(0.17, max(0.05, 6.5 / len(layers))))
