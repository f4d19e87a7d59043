"""The report's figures: one function each, data in, SVG bytes out."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afpjax.report.charts import (
    Records,
    bounds,
    device_look,
    draw,
    legend,
    rate_axis,
    reference,
)
from afpjax.report.style import INK, MUTED, PAPER, TOOLS
from afpjax.report.tools import TOOL_NAMES
from afpjax.report.wording import Real, short_names

__all__ = ["front", "history", "sensitivity", "sweep"]

#: tool -> marker, line, marker size: where tools agree, the lower marks stick out
_MARKS = {
    "cnnparted": ("^", ":", 8.5),
    "fault-unaware": ("s", "--", 5.5),
    "afarepart": ("o", "-", 3.5),
}
_NAMED = 30  # layers up to which a sensitivity figure names each
_POINTS = 100  # estimates up to which a sensitivity figure has devices side by side


def front(
    points: Records, selected: Mapping[str, Any] | None = None, baselines: Records = ()
) -> bytes:
    """Accuracy under faults (%) over latency (ms) and over energy (mJ), a dot for each mapping.

    `baselines` are records with `tool`, `latency_ms`, `energy_mj` and `accuracy`.
    """
    marked = [*baselines, *([{**selected, "tool": "afarepart"}] if selected else [])]
    sides = (("latency_ms", "latency of one batch (ms)"), ("energy_mj", "energy of one batch (mJ)"))

    def side(axes: Axes, key: str, label: str) -> None:
        axes.scatter(
            [point[key] for point in points], [100 * point["accuracy"] for point in points],
            s=13, color=TOOLS["afarepart"], alpha=0.55, linewidths=0, zorder=3, clip_on=False,
        )  # fmt: skip
        for point in marked:
            star = point["tool"] == "afarepart"
            axes.scatter(
                [point[key]], [100 * point["accuracy"]], zorder=4, linewidths=0.9,
                marker="*" if star else _MARKS[point["tool"]][0], clip_on=False,
                s=120 if star else 1.6 * _MARKS[point["tool"]][2] ** 2, color=TOOLS[point["tool"]],
                edgecolors=INK, label=TOOL_NAMES[point["tool"]],
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.margins(0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))

    def paint(both: Sequence[Axes]) -> None:
        for axes, (key, label) in zip(both, sides, strict=True):
            side(axes, key, label)
        both[0].set_ylabel("images right (%)")
        if marked:
            legend(both[0])

    return draw(paint, height=2.6, columns=2)


def sweep(records: Records, clean: Real | None = None, rate: Real | None = None) -> bytes:
    """Accuracy (%) of each tool's mapping over the flip rate, with intervals as bands.

    `records` are those of one scenario; `clean` is the fault-free accuracy and `rate` the one that
    the search was run at.
    """

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for tool in [name for name in TOOL_NAMES if any(r["tool"] == name for r in records)]:
            mine = sorted((r for r in records if r["tool"] == tool), key=lambda r: r["rate"])
            marker, line, size = _MARKS[tool]
            rates = [r["rate"] for r in mine]
            low, high = zip(*(bounds(r, "accuracy") for r in mine), strict=True)
            axes.fill_between(rates, low, high, color=TOOLS[tool], alpha=0.18, linewidth=0)
            axes.plot(
                rates, [100 * r["accuracy"] for r in mine], color=TOOLS[tool], marker=marker,
                linestyle=line, label=TOOL_NAMES[tool], markersize=size, clip_on=False, zorder=3,
            )  # fmt: skip
        rate_axis(axes, [r["rate"] for r in records])
        reference(axes, clean)
        if rate is not None:
            axes.axvline(rate, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel="chance that a faulty bit flips, worst device", ylim=(0, 101))
        axes.set_ylabel("images right (%)")
        legend(axes)

    return draw(paint, height=2.5)


def sensitivity(
    records: Records, devices: Sequence[str], view: str, clean: Real | None = None
) -> bytes:
    """Accuracy (%) per layer, one series per device; `view` is `alone` or `all_but`.

    Few estimates are points with intervals, side by side; many are lines in bands, an axis for
    each device.
    """
    records = [record for record in records if view in record]
    layers = list(dict.fromkeys(record["layer"] for record in records))
    present = [name for name in devices if any(r["device"] == name for r in records)]
    named = len(layers) <= _NAMED
    few = named and len(records) <= _POINTS
    rows = 1 if few else len(present)

    def paint(stack: Sequence[Axes]) -> None:
        for index, name in enumerate(present):
            mine = [record for record in records if record["device"] == name]
            shift = (index - (len(present) - 1) / 2) * 0.6 / len(present) if few else 0
            where = [layers.index(record["layer"]) + 1 + shift for record in mine]
            series = _points if few else _line
            series(stack[index % rows], where, mine, view, device_look(devices.index(name)), name)
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


def history(hypervolume: Sequence[Real]) -> bytes:
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
    records: Records,
    view: str,
    look: tuple[str, str],
    name: str,
) -> None:
    """One device's accuracies with their intervals, beside those of the other devices."""
    colour, marker = look
    low, high = zip(*(bounds(r, view) for r in records), strict=True)
    axes.vlines(where, low, high, colors=colour, linewidths=1, alpha=0.7)
    axes.plot(
        where, [100 * r[view] for r in records], color=colour, marker=marker, linestyle="",
        label=name, clip_on=False, markeredgecolor=PAPER, markeredgewidth=0.3,
    )  # fmt: skip


def _line(
    axes: Axes,
    where: Sequence[Real],
    records: Records,
    view: str,
    look: tuple[str, str],
    name: str,
) -> None:
    """One device's accuracies as a line, its intervals as a band."""
    colour, marker = look
    low, high = zip(*(bounds(r, view) for r in records), strict=True)
    axes.fill_between(where, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(
        where, [100 * r[view] for r in records], color=colour, marker=marker, label=name,
        linewidth=1.1, markersize=3, markevery=-(-len(where) // _NAMED),
    )  # fmt: skip
