"""Figures of job `distribute`: accuracies as rows and over memory, and who computes which neurons.

All accuracies and shares of memory are drawn in percent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.distribute.result import SAFE_SPARE, LayerPlacement
from afpjax.jobs.shared.result import Estimate
from afpjax.neurons import methods
from afpjax.report.charts import draw, legend, reference
from afpjax.report.style import DEVICES, HEAT, INK, MARKERS, METHODS, MUTED, PAPER
from afpjax.report.wording import short_names

_ROW = 0.19  # inches
_GAP = 0.35  # rows, between groups
_NAMED = 64  # layers up to which each is named
_LANES = 0.07  # inches: a device's lane, more where there are few
_BLOCK, _TALLEST = 0.28, 1.1  # inches: all lanes of a layer, at least and at most
_THICK, _THIN = 0.88, 0.42  # of a lane
_LINES = ("-", ":", "--", "-.")


class Look(NamedTuple):
    """What a method is called, and how it is drawn."""

    name: str
    colour: str
    marker: str
    line: str


def look(method: str) -> Look:
    """Of any method that has a file; what has none keeps its own name."""
    base, order = method.removesuffix(SAFE_SPARE), _order()
    if base not in order:
        return Look(base, INK, "X", "-.")
    index = order.index(base)
    return Look(
        methods.method(base).label + ", safe spare" * (base != method),
        METHODS[1 + (index - 1) % (len(METHODS) - 1) if index else 0],
        MARKERS[index % len(MARKERS)],
        _LINES[index % len(_LINES)],
    )


def ordered(rows: Iterable[Any]) -> list[Any]:
    """By method; what has no file stands last."""
    order = _order()

    def place(row: Any) -> tuple[int, str]:
        base = row.method.removesuffix(SAFE_SPARE)
        return (order.index(base) if base in order else len(order)), row.method

    return sorted(rows, key=place)


def _order() -> list[str]:
    """RobustDiCE, the methods that follow its thresholds, the others."""
    known = [methods.method(name) for name in methods.names()]
    known.sort(key=lambda way: (way.name != "robustdice", not way.by_threshold, way.name))
    return [way.name for way in known]


class AccuracyRow(NamedTuple):
    """One accuracy of a figure; `aside` stands at its right."""

    name: str
    colour: str
    accuracy: Estimate
    aside: str = ""
    hollow: float | None = None  # another accuracy, as a diamond
    ends: Sequence[float] = ()  # the worst and the best, as uprights
    quantiles: Sequence[float] = ()  # 5, 25, 50, 75 and 95 % of the runs are lower


def rows(groups: Mapping[str, Sequence[AccuracyRow]], clean: float, aside: str = "") -> bytes:
    """Accuracies from the top down, below their groups' headings; dashed: `clean`.

    A dot in the band of its interval; of quantiles a line from 5 to 95 % of the runs, the middle
    half as the band, the median as the dot and the mean as a diamond.
    """
    placed: list[tuple[float, AccuracyRow]] = []
    headings: dict[float, str] = {}
    place = 0.0
    for heading, own in groups.items():
        if heading:
            headings[place] = heading
            place += 1
        placed += [(place + number, row) for number, row in enumerate(own)]
        place += len(own) + _GAP
    size = place - _GAP

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        _frame(axes, placed, headings, size, aside)
        for place, row in placed:
            _row(axes, place, row)
        axes.margins(x=0.06)
        axes.axvline(100 * clean, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))

    return draw(paint, height=0.62 + _ROW * max(size, 3))


def _row(axes: Axes, place: float, row: AccuracyRow) -> None:
    (low, high), middle, diamond = row.accuracy.bounds, row.accuracy.value, row.hollow
    if row.quantiles:
        least, low, middle, high, most = row.quantiles
        axes.hlines([place], 100 * least, 100 * most, colors=row.colour, linewidths=1)
        diamond = row.accuracy.value
    axes.hlines([place], 100 * low, 100 * high, colors=row.colour, linewidths=5, alpha=0.4)
    ends = [100 * end for end in row.ends]
    axes.vlines(ends, place - 0.38, place + 0.38, colors=INK, linewidths=0.7)
    axes.plot([100 * middle], [place], "o", color=row.colour, markersize=4, clip_on=False)
    if diamond is not None:
        axes.plot(
            [100 * diamond], [place], "D", markersize=4.2, color=PAPER, clip_on=False, zorder=4,
            markeredgecolor=row.colour, markeredgewidth=1.1,
        )  # fmt: skip


def _frame(
    axes: Axes,
    placed: Sequence[tuple[float, AccuracyRow]],
    headings: Mapping[float, str],
    size: float,
    aside: str,
) -> None:
    """Names, headings and what stands at the right."""
    full = list(dict.fromkeys(row.name for _, row in placed))
    names = dict(zip(full, short_names(full, 24), strict=True))
    labels = {place: names[row.name] for place, row in placed} | dict(headings)
    places = sorted(labels)
    axes.set_yticks(places, [labels[place] for place in places])
    for place, label in zip(places, axes.get_yticklabels(), strict=True):
        if place in headings:
            label.set(fontweight="bold", color=INK)
    axes.set_ylim(size - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images right (%)")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for place, row in placed:
        _beside(axes, place, row.aside)
    if aside and placed:
        _beside(axes, placed[0][0] - 1, aside)


def _beside(axes: Axes, place: float, text: str) -> None:
    axes.text(
        1.03, place, text, transform=axes.get_yaxis_transform(), fontsize=7.5,
        verticalalignment="center", color=MUTED,
    )  # fmt: skip


class Series(NamedTuple):
    """Accuracies over memory, both fractions of 1; without a line they are points by themselves."""

    name: str
    colour: str
    marker: str
    line: str
    points: Sequence[Any]  # results with `memory` and `accuracy`


def over_memory(series: Sequence[Series], clean: float, *, from_zero: bool = False) -> bytes:
    """A line in the band of its intervals, or points with theirs, for each series."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for one in series:
            points = sorted(one.points, key=lambda point: point.memory)
            memory = [100 * point.memory for point in points]
            low, value, high = (
                [100 * getattr(point.accuracy, key) for point in points]
                for key in ("low", "value", "high")
            )
            if one.line:
                axes.fill_between(memory, low, high, color=one.colour, alpha=0.18, linewidth=0)
            else:
                axes.vlines(memory, low, high, colors=one.colour, linewidths=1.1, alpha=0.8)
            axes.plot(
                memory, value, color=one.colour, marker=one.marker, linestyle=one.line or "",
                markersize=3.6 if one.line else 6, linewidth=1.4, label=one.name, clip_on=False,
                zorder=3,
            )  # fmt: skip
        reference(axes, clean)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("weights on the fullest device (% of the network's)")
        axes.set_ylabel("images right (%)")
        legend(axes)

    return draw(paint, height=2.75)


class NeuronRun(NamedTuple):
    """Neurons of a layer that the same devices hold, as a part of its width, from 0 to 1."""

    start: float
    end: float
    mask: int


def runs(held: Sequence[int]) -> list[NeuronRun]:
    """Neurons by the devices that hold them: those of few copies first, then by device."""
    counts = Counter(held)
    order = sorted(counts, key=lambda mask: (mask.bit_count(), mask & -mask, mask))
    parts, start = [], 0
    for mask in order:
        end = start + counts[mask]
        parts.append(NeuronRun(start / len(held), end / len(held), mask))
        start = end
    return parts


def lanes(layers: Sequence[LayerPlacement], devices: int) -> bytes:
    """A block for each layer with a lane for each device, 0 at the top: its share of the neurons.

    Copies of a neuron stand above each other in the lanes of the devices that hold them. Thick:
    the only copy; thin: one of several.
    """
    pitch = devices + max(1.0, 0.35 * devices)

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for device in range(devices):
            corners = list(_corners(layers, device, pitch))
            codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * (len(corners) // 5)
            colour = DEVICES[device % len(DEVICES)]
            axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, linewidth=0))
        middle = [index * pitch + devices / 2 for index in range(len(layers))]
        axes.set_yticks(middle, short_names([layer.layer for layer in layers], 19))
        axes.set(xlim=(0, 100), ylim=(len(layers) * pitch, devices - pitch))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("neurons of the layer, fewest copies first (%)")
        for place, layer in zip(middle, layers, strict=True):
            _beside(axes, place, f"{layer.neurons:,}")
        _beside(axes, (devices - pitch) / 2, "neurons")

    block = min(max(_BLOCK, _LANES * devices), _TALLEST) * pitch / devices
    return draw(paint, height=0.6 + block * max(len(layers), 2))


def _corners(
    layers: Sequence[LayerPlacement], device: int, pitch: float
) -> Iterator[tuple[float, float]]:
    """Five for each rectangle of what a device holds: around it, and the first again."""
    for index, layer in enumerate(layers):
        middle = index * pitch + device + 0.5
        for start, end, mask in runs(layer.held):
            if mask >> device & 1:
                half = (_THICK if mask.bit_count() == 1 else _THIN) / 2
                left, right, top, low = 100 * start, 100 * end, middle - half, middle + half
                yield from ((left, top), (right, top), (right, low), (left, low), (left, top))


def copies(layers: Sequence[LayerPlacement], devices: int) -> bytes:
    """A bar for each layer: shares of its neurons by how many devices hold them.

    The fewer, the darker: a single copy, which is lost first, stands out most.
    """
    last = len(HEAT) - 1
    steps = last if devices >= len(HEAT) else last - 1  # without the faintest where it can be

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        start = [0.0] * len(layers)
        counted = [Counter(mask.bit_count() for mask in layer.held) for layer in layers]
        for count in range(1, devices + 1):
            wide = [
                100 * own[count] / layer.neurons for own, layer in zip(counted, layers, strict=True)
            ]
            if any(wide):
                colour = HEAT[last - round(steps * (count - 1) / max(devices - 1, 1))]
                name = "1 copy" if count == 1 else f"{count} copies"
                axes.barh(range(len(layers)), wide, 0.82, left=start, color=colour, label=name)
            start = [left + more for left, more in zip(start, wide, strict=True)]
        if len(layers) <= _NAMED:
            names = short_names([layer.layer for layer in layers], 19)
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
