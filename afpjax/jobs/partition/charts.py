"""Figures of job `partition`: one function each, results in, SVG bytes out."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.partition.result import AllowancePoint, Point, Row, Sensitivity, SweepPoint
from afpjax.jobs.shared.result import Estimate
from afpjax.jobs.shared.view import percents
from afpjax.report.charts import device_look, draw, legend, rate_axis, reference
from afpjax.report.style import INK, MUTED, PAPER, TOOLS
from afpjax.report.wording import Real, short_names

__all__ = ["TOOL_NAMES", "allowances", "front", "history", "sensitivity", "sweep"]

TOOL_NAMES = {
    "cnnparted": "CNNParted",
    "fault-unaware": "Fault-unaware",
    "afarepart": "AFarePart",
    "surrogate": "Surrogate",
}
#: tool -> marker, line, marker size: where tools agree, the lower marks stick out
_MARKS = {
    "cnnparted": ("^", ":", 8.5),
    "fault-unaware": ("s", "--", 5.5),
    "afarepart": ("o", "-", 3.5),
    "surrogate": ("D", "-.", 2.5),
}
_NAMED = 30  # layers up to which a sensitivity figure names each
_POINTS = 100  # estimates up to which a sensitivity figure has devices side by side


def front(
    points: Sequence[Point],
    selected: Point,
    baselines: Sequence[Row],
    *,
    best: str = "afarepart",
    curve: Sequence[AllowancePoint] = (),
) -> bytes:
    """Accuracy under faults (%) over latency (ms) and over energy (mJ), a dot for each mapping.

    `best` is the tool that the selected one is of; `curve` joins the best under several allowances.
    """
    marked = [*((row.tool, row) for row in baselines), (best, selected)]
    sides = (("latency_ms", "latency of one batch (ms)"), ("energy_mj", "energy of one batch (mJ)"))

    def side(axes: Axes, key: str, label: str) -> None:
        axes.scatter(
            [getattr(point, key) for point in points],
            [100 * point.accuracy.value for point in points],
            s=13, color=TOOLS["afarepart"], alpha=0.55, linewidths=0, zorder=3, clip_on=False,
        )  # fmt: skip
        if curve:
            axes.plot(
                [getattr(point, key) for point in curve],
                [100 * point.accuracy.value for point in curve],
                color=TOOLS["surrogate"], linewidth=1, zorder=2, label="best under allowances",
            )  # fmt: skip
        for tool, point in marked:
            star = tool == best
            axes.scatter(
                [getattr(point, key)], [100 * point.accuracy.value], zorder=4, linewidths=0.9,
                marker="*" if star else _MARKS[tool][0], clip_on=False,
                s=120 if star else 1.6 * _MARKS[tool][2] ** 2, color=TOOLS[tool],
                edgecolors=INK, label=TOOL_NAMES[tool],
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.margins(0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))

    def paint(both: Sequence[Axes]) -> None:
        for axes, (key, label) in zip(both, sides, strict=True):
            side(axes, key, label)
        both[0].set_ylabel("images right (%)")
        legend(both[0])

    return draw(paint, height=2.6, columns=2)


def allowances(points: Sequence[AllowancePoint], clean: float, unaware: Estimate) -> bytes:
    """Accuracy (%) of the best mapping over the latency allowed, with intervals as a band.

    Over the energy allowed where no latency is. `unaware` is the fault-unaware choice's, at 0.
    """
    key = "latency" if points[-1].latency else "energy"

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        x = [0.0, *(100 * getattr(point, key) for point in points)]
        values, low, high = percents([unaware, *(point.accuracy for point in points)])
        axes.fill_between(x, low, high, color=TOOLS["surrogate"], alpha=0.18, linewidth=0)
        axes.plot(
            x, values, color=TOOLS["surrogate"], marker="o", markersize=3.5, clip_on=False,
            zorder=3,
        )  # fmt: skip
        reference(axes, clean)
        axes.set(xlabel=f"{key} allowed over the fault-unaware mapping (%)", ylim=(0, 101))
        axes.set_ylabel("images right (%)")

    return draw(paint, height=2.3)


def sweep(points: Sequence[SweepPoint], clean: float, rate: float) -> bytes:
    """Accuracy (%) of each tool's mapping over the flip rate, with intervals as bands.

    `points` are those of one scenario; `clean` is the fault-free accuracy and `rate` the one that
    the search was run at.
    """

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for tool in [name for name in TOOL_NAMES if any(p.tool == name for p in points)]:
            mine = sorted((p for p in points if p.tool == tool), key=lambda p: p.rate)
            marker, line, size = _MARKS[tool]
            rates = [point.rate for point in mine]
            values, low, high = percents([point.accuracy for point in mine])
            axes.fill_between(rates, low, high, color=TOOLS[tool], alpha=0.18, linewidth=0)
            axes.plot(
                rates, values, color=TOOLS[tool], marker=marker, linestyle=line,
                label=TOOL_NAMES[tool], markersize=size, clip_on=False, zorder=3,
            )  # fmt: skip
        rate_axis(axes, [point.rate for point in points])
        reference(axes, clean)
        axes.axvline(rate, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel="chance that a faulty bit flips, worst device", ylim=(0, 101))
        axes.set_ylabel("images right (%)")
        legend(axes)

    return draw(paint, height=2.5)


def sensitivity(
    records: Sequence[Sensitivity], devices: Sequence[str], view: str, clean: float
) -> bytes:
    """Accuracy (%) per layer, one series per device; `view` is `alone` or `all_but`.

    Few estimates are points with intervals, side by side; many are lines in bands, an axis for
    each device.
    """
    layers = list(dict.fromkeys(record.layer for record in records))
    named = len(layers) <= _NAMED
    few = named and len(records) <= _POINTS
    rows = 1 if few else len(devices)

    def paint(stack: Sequence[Axes]) -> None:
        for index, name in enumerate(devices):
            mine = [record for record in records if record.device == name]
            shift = (index - (len(devices) - 1) / 2) * 0.6 / len(devices) if few else 0
            where = [layers.index(record.layer) + 1 + shift for record in mine]
            series = _points if few else _line
            estimates = [getattr(record, view) for record in mine]
            series(stack[index % rows], where, estimates, device_look(index), name)
        for axes in stack:
            reference(axes, clean)
            axes.grid(visible=False, axis="x")
        stack[rows // 2].set_ylabel("images right (%)")
        if named:
            stack[-1].set_xticks(range(1, len(layers) + 1), short_names(layers, 19), rotation=90)
        else:
            stack[-1].set_xlabel("layer, in the order they run")
        legend(*stack)

    return draw(paint, height=(1.3 if named else 0.7) + max(1.7, 0.55 * rows), rows=rows)


def history(hypervolume: Sequence[float]) -> bytes:
    """The front's hypervolume, as a share of its last value, over the generations."""
    last = hypervolume[-1] or 1.0

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        axes.plot(
            range(1, len(hypervolume) + 1), [100 * value / last for value in hypervolume],
            color=TOOLS["afarepart"], marker="o", markersize=3,
        )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set(xlabel="generation", ylabel="% of the last")

    return draw(paint, height=2.0)


def _points(
    axes: Axes,
    where: Sequence[Real],
    estimates: Sequence[Estimate],
    look: tuple[str, str],
    name: str,
) -> None:
    """One device's accuracies with their intervals, beside those of the other devices."""
    (colour, marker), (values, low, high) = look, percents(estimates)
    axes.vlines(where, low, high, colors=colour, linewidths=1, alpha=0.7)
    axes.plot(
        where, values, color=colour, marker=marker, linestyle="",
        label=name, clip_on=False, markeredgecolor=PAPER, markeredgewidth=0.3,
    )  # fmt: skip


def _line(
    axes: Axes,
    where: Sequence[Real],
    estimates: Sequence[Estimate],
    look: tuple[str, str],
    name: str,
) -> None:
    """One device's accuracies as a line, its intervals as a band."""
    (colour, marker), (values, low, high) = look, percents(estimates)
    axes.fill_between(where, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(
        where, values, color=colour, marker=marker, label=name,
        linewidth=1.1, markersize=3, markevery=-(-len(where) // _NAMED),
    )  # fmt: skip
