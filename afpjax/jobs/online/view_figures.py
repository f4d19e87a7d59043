"""What job `online` draws: streams over time, and what was observed beside the truth."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from afpjax.report.charts import draw, legend
from afpjax.report.style import INK, METHODS, MUTED, TOOLS
from afpjax.report.wording import Real, rate

__all__ = ["NAMES", "over_time", "seen"]

Rows = Sequence[Mapping[str, Any]]

NAMES: Final = {
    "never": "never repartitioned",
    "online": "online (AFarePart)",
    "safest": "safest mapping",
    "stored": "stored front",
    "oracle": "oracle",
}
_COLOURS: Final = {
    "never": TOOLS["fault-unaware"],
    "online": TOOLS["afarepart"],
    "safest": METHODS[4],
    "stored": TOOLS["cnnparted"],
    "oracle": MUTED,
}
_DASHED: Final = (0, (3, 2))


def over_time(rows: Rows, theta: Real) -> bytes:
    """One trace: the worst flip rate, the true drop of each policy, latency and energy."""

    def paint(axes: Sequence[Axes]) -> None:
        worst, drop, latency, energy = axes
        first = [row for row in rows if row["policy"] == rows[0]["policy"]]
        _steps(worst, first, "worst_rate", 100, color=INK)
        worst.set_ylabel("rate, %")
        for policy in dict.fromkeys(row["policy"] for row in rows):
            mine = [row for row in rows if row["policy"] == policy]
            look = {"color": _COLOURS[policy], "linewidth": 2.0 if policy == "online" else 1.1}
            _steps(drop, mine, "accuracy_drop", 100, label=NAMES[policy], **look)
            _steps(latency, mine, "latency_ms", 1, **look)
            _steps(energy, mine, "energy_mj", 1, **look)
        _switches(drop, rows)
        drop.axhline(100 * theta, color=INK, linewidth=0.8, linestyle=_DASHED)
        drop.set_ylabel("drop, points")
        latency.set_ylabel("ms")
        energy.set_ylabel("mJ")
        energy.set_xlabel("step")
        for each in axes:
            each.set_ylim(bottom=0)
            each.yaxis.set_major_locator(MaxNLocator(nbins=3))
        legend(drop)

    return draw(paint, height=4.6, rows=4, share_rows=False)


def seen(events: Rows, whole: Real, theta: Real, alarm: Real) -> bytes:
    """One stream: the accuracy that canaries tell beside the true one, and the evidence.

    `whole` is the accuracy without faults, `alarm` the evidence at which the system acts.
    """

    def paint(axes: Sequence[Axes]) -> None:
        told, evidence = axes
        _accuracy(told, events, whole - theta)
        _evidence(evidence, events, alarm)
        for event in events:
            if event["repartitioned"]:
                for each in axes:
                    each.axvline(event["step"], color=TOOLS["afarepart"], linewidth=0.9)
        evidence.set_xlabel("step")
        legend(told)

    return draw(paint, height=3.2, rows=2, share_rows=False)


def _accuracy(axes: Axes, events: Rows, least: Real) -> None:
    """Observed with its band, true, and the accuracy at which theta is lost."""
    observed = [event for event in events if "accuracy_observed" in event]
    steps = [event["step"] for event in observed]
    bounds = [event["accuracy_observed_interval"] for event in observed]
    axes.fill_between(
        steps, [100 * low for low, _ in bounds], [100 * high for _, high in bounds],
        color=TOOLS["afarepart"], alpha=0.2, linewidth=0, label="canaries, 95 %",
    )  # fmt: skip
    _steps(
        axes, observed, "accuracy_observed", 100,
        color=TOOLS["afarepart"], linewidth=0.9, label="canaries",
    )  # fmt: skip
    _steps(axes, events, "accuracy", 100, color=INK, label="true")
    axes.axhline(100 * least, color=MUTED, linewidth=0.8, linestyle=_DASHED)
    axes.set_ylim(0, 102)
    axes.set_ylabel("images right, %")


def _evidence(axes: Axes, events: Rows, alarm: Real) -> None:
    """On a logarithmic scale, for it grows by factors; alarms are marked."""
    weighed = [event for event in events if "evidence" in event]
    _steps(axes, weighed, "evidence", 1, color=INK, linewidth=1.1)
    axes.axhline(alarm, color=MUTED, linewidth=0.8, linestyle=_DASHED)
    alarmed = [event for event in weighed if event["evidence"] >= alarm]
    _marks(axes, alarmed, "evidence", 1, TOOLS["fault-unaware"], "v")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("evidence")


def _switches(axes: Axes, rows: Rows) -> None:
    """A dot where a policy went over to another mapping."""
    for policy in dict.fromkeys(row["policy"] for row in rows):
        moved = [row for row in rows if row["policy"] == policy and row.get("switched")]
        _marks(axes, moved, "accuracy_drop", 100, _COLOURS[policy], "o")


def _marks(axes: Axes, rows: Rows, key: str, times: Real, colour: str, marker: str) -> None:
    axes.plot(
        [row["step"] for row in rows],
        [times * row[key] for row in rows],
        linestyle="none",
        marker=marker,
        markersize=3.5,
        color=colour,
    )


def _steps(axes: Axes, rows: Rows, key: str, times: Real, **look: Any) -> None:
    axes.plot(
        [row["step"] for row in rows],
        [times * row[key] for row in rows],
        drawstyle="steps-post",
        **look,
    )
