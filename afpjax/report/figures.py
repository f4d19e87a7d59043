"""The report's figures: one function each, data in, SVG bytes out.

Drawn 300 points wide, for a phone's column or a third of a desktop's, with text left as text.
Same data, same bytes: ids come from a fixed salt and no date is written.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from afpjax.report.style import DEVICES, GRID, INK, MARKERS, MUTED, PAPER, TOOLS
from afpjax.report.wording import short_names

__all__ = ["TOOL_NAMES", "costs", "front", "history", "sensitivity", "sweep"]

TOOL_NAMES = {
    "cnnparted": "CNNParted",
    "fault-unaware": "Fault-unaware",
    "afarepart": "AFarePart",
}
_TOOL_MARKS = {"cnnparted": ("^", ":"), "fault-unaware": ("s", "--"), "afarepart": ("o", "-")}
_WIDTH = 300 / 72  # inches
_BARS = 20  # layers that a cost figure names; the rest are summed
_NAMED = 30  # layers up to which a sensitivity figure names each and draws its error bars

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
}

Records = Sequence[Mapping[str, Any]]


def front(
    points: Records, selected: Mapping[str, Any] | None = None, baselines: Records = ()
) -> bytes:
    """Latency (ms) against energy (mJ), colour for accuracy under faults (%); higher drawn last.

    `baselines` are records with `tool`, `latency_ms`, `energy_mj` and `accuracy`.
    """
    ordered = sorted(points, key=lambda point: point["accuracy"])
    marked = [*baselines, *([{"tool": "afarepart", **selected}] if selected else [])]
    accuracies = [100 * point["accuracy"] for point in (*ordered, *marked)]
    low, high = min(accuracies), max(accuracies)
    scale = {"cmap": "viridis", "vmin": low - (high == low), "vmax": high + (high == low)}

    def paint(axes: Axes) -> None:
        dots = axes.scatter(
            *_columns(ordered), c=accuracies[: len(ordered)], s=24, linewidths=0.4,
            edgecolors=PAPER, zorder=3, **scale,
        )  # fmt: skip
        for point in marked:
            size = {"afarepart": 130, "fault-unaware": 60, "cnnparted": 70}.get(point["tool"], 60)
            axes.scatter(
                *_columns([point]), c=[100 * point["accuracy"]], s=size, linewidths=1.4,
                marker="*" if point["tool"] == "afarepart" else _mark(point["tool"])[0],
                edgecolors=INK, zorder=4, label=TOOL_NAMES.get(point["tool"], point["tool"]),
                **scale,
            )  # fmt: skip
        axes.set(xlabel="latency of one batch (ms)", ylabel="energy of one batch (mJ)")
        axes.margins(0.09)
        assert axes.figure is not None
        bar = axes.figure.colorbar(dots, ax=axes, pad=0.02, aspect=28)
        bar.set_label("images right under faults (%)")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        if marked:
            _legend(axes, columns=len(marked))

    return _draw(paint, height=3.2)


def sweep(records: Records, clean: float | None = None, rate: float | None = None) -> bytes:
    """Accuracy (%) of each tool's mapping over the flip rate, with intervals as bands.

    `records` are those of one scenario; `clean` is the fault-free accuracy and `rate` the one that
    the search was run at.
    """

    def paint(axes: Axes) -> None:
        for tool in [name for name in TOOL_NAMES if any(r["tool"] == name for r in records)]:
            mine = sorted((r for r in records if r["tool"] == tool), key=lambda r: r["rate"])
            marker, line = _mark(tool)
            rates = [r["rate"] for r in mine]
            low, high = zip(*(_bounds(r, "accuracy") for r in mine), strict=True)
            axes.fill_between(rates, low, high, color=TOOLS[tool], alpha=0.18, linewidth=0)
            axes.plot(
                rates, [100 * r["accuracy"] for r in mine], color=TOOLS[tool], marker=marker,
                linestyle=line, label=TOOL_NAMES[tool],
            )  # fmt: skip
        _rate_axis(axes, [r["rate"] for r in records])
        if clean is not None:
            axes.axhline(100 * clean, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        if rate is not None:
            axes.axvline(rate, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel="chance that a faulty bit flips, worst device", ylim=(0, 101))
        axes.set_ylabel("images right (%)")
        _legend(axes, columns=3)

    return _draw(paint, height=2.5)


def sensitivity(
    records: Records, devices: Sequence[str], view: str, clean: float | None = None
) -> bytes:
    """Accuracy (%) per layer, one series per device; `view` is `alone` or `all_but`."""
    layers = list(dict.fromkeys(record["layer"] for record in records))
    few = len(layers) <= _NAMED

    def paint(axes: Axes) -> None:
        present = [name for name in devices if any(r["device"] == name for r in records)]
        for index, name in enumerate(present):
            mine = [r for r in records if r["device"] == name and view in r]
            shift = (index - (len(present) - 1) / 2) * 0.6 / len(present) if few else 0.0
            where = [layers.index(r["layer"]) + 1 + shift for r in mine]
            _series(axes, where, mine, view, devices.index(name), name, few)
        if clean is not None:
            axes.axhline(100 * clean, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.set_ylabel("images right (%)")
        axes.grid(visible=False, axis="x")
        if few:
            axes.set_xticks(range(1, len(layers) + 1), short_names(layers), rotation=90)
        else:
            axes.set_xlabel("layer, in the order they run")
        _legend(axes, columns=3)

    return _draw(paint, height=2.9 if few else 2.4)


def history(hypervolume: Sequence[float]) -> bytes:
    """The front's hypervolume, as a share of its last value, over the generations."""
    last = hypervolume[-1] or 1.0

    def paint(axes: Axes) -> None:
        axes.plot(
            range(1, len(hypervolume) + 1), [100 * value / last for value in hypervolume],
            color=TOOLS["afarepart"], marker="o", markersize=3,
        )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set(xlabel="generation", ylabel="hypervolume (% of the last)")

    return _draw(paint, height=2.0)


def costs(records: Records, devices: Sequence[str], key: str, label: str) -> bytes:
    """Bars per layer and device of `key`, for the layers that cost most and the rest in one."""
    table: dict[str, dict[str, float]] = {}
    for record in records:
        table.setdefault(record["layer"], {})[record["device"]] = record[key]
    named = sorted(table, key=lambda layer: -max(table[layer].values()))[:_BARS]
    rows = [(layer, table[layer]) for layer in table if layer in named]  # in the order they run
    names = short_names([layer for layer, _ in rows])
    rest = [row for layer, row in table.items() if layer not in named]
    if rest:
        rows.append(("rest", {d: sum(row.get(d, 0.0) for row in rest) for d in devices}))
        names.append(f"the other {len(rest)}")

    def paint(axes: Axes) -> None:
        thick = 0.8 / len(devices)
        for index, device in enumerate(devices):
            where = [i + (index - (len(devices) - 1) / 2) * thick for i in range(len(rows))]
            values = [row.get(device, 0.0) for _, row in rows]
            axes.barh(where, values, thick * 0.92, color=_colour(index), label=device)
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        _legend(axes, columns=3)

    return _draw(paint, height=0.9 + len(rows) * max(0.17, 0.07 * len(devices)))


def _draw(paint: Callable[[Axes], None], *, height: float) -> bytes:
    """One pair of axes, painted and written as SVG, whatever the reader's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(figure.subplots())
        out = BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return out.getvalue()


def _series(
    axes: Axes, where: list[float], records: Records, view: str, index: int, name: str, few: bool
) -> None:
    """One device's accuracies: points with error bars; where layers are many, a line in a band."""
    middle = [100 * r[view] for r in records]
    bounds = [_bounds(r, view) for r in records]
    colour, marker = _colour(index), MARKERS[index % len(MARKERS)]
    if few:
        for x, (low, high) in zip(where, bounds, strict=True):
            axes.plot([x, x], [low, high], color=colour, linewidth=1, alpha=0.7)
        axes.plot(where, middle, color=colour, marker=marker, linestyle="", label=name)
    else:
        low, high = zip(*bounds, strict=True) if bounds else ((), ())
        axes.fill_between(where, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            where, middle, color=colour, marker=marker, label=name, linewidth=1.1, markersize=2
        )


def _rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """Logarithmic (linear next to zero) where the rates span more than a factor of 30."""
    positive = sorted({rate for rate in rates if rate > 0})
    if len(positive) > 1 and positive[-1] > 30 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(axes: Axes, columns: int) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(3, columns), columnspacing=1.1,
        handletextpad=0.4, borderaxespad=0.1, handlelength=1.7,
    )  # fmt: skip


def _columns(points: Records) -> tuple[list[float], list[float]]:
    return [p["latency_ms"] for p in points], [p["energy_mj"] for p in points]


def _bounds(record: Mapping[str, Any], key: str) -> tuple[float, float]:
    """The interval of `key` in percent; of no width where there is none."""
    low, high = record.get(f"{key}_interval", (record[key], record[key]))
    return 100 * low, 100 * high


def _colour(index: int) -> str:
    return DEVICES[index % len(DEVICES)]


def _mark(tool: str) -> tuple[str, str]:
    return _TOOL_MARKS.get(tool, ("D", "-."))
