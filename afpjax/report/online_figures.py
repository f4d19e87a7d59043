"""What job `online` draws: streams over time, and what was observed beside the truth."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afpjax.report.drawing import draw, legend
from afpjax.report.style import INK, MUTED, TOOLS

__all__ = ["NAMES", "over_time", "seen"]

Rows = Sequence[Mapping[str, Any]]

NAMES: Final = {
    "never": "never repartitioned",
    "online": "online (AFarePart)",
    "stored": "stored front",
    "oracle": "oracle",
}
_COLOURS: Final = {
    "never": TOOLS["fault-unaware"],
    "online": TOOLS["afarepart"],
    "stored": TOOLS["cnnparted"],
    "oracle": MUTED,
}
_DASHED: Final = (0, (3, 2))


def over_time(rows: Rows, theta: float) -> bytes:
    """One trace: the worst flip rate, the true drop of each policy, latency and energy."""

    def paint(axes: Sequence[Axes]) -> None:
        rate, drop, latency, energy = axes
        first = [row for row in rows if row["policy"] == rows[0]["policy"]]
        _steps(rate, first, "worst_rate", 100, color=INK)
        rate.set_ylabel("rate, %")
        for policy in dict.fromkeys(row["policy"] for row in rows):
            mine = [row for row in rows if row["policy"] == policy]
            look = {"color": _COLOURS[policy], "linewidth": 2.0 if policy == "online" else 1.1}
            _steps(drop, mine, "accuracy_drop", 100, label=NAMES[policy], **look)
            _steps(latency, mine, "latency_ms", 1, **look)
            _steps(energy, mine, "energy_mj", 1, **look)
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


def seen(events: Rows, whole: float, theta: float) -> bytes:
    """One stream: the accuracy that canaries tell, in its band, beside the true one."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        steps = [event["step"] for event in events]
        observed = [event for event in events if "accuracy_observed" in event]
        axes.fill_between(
            [event["step"] for event in observed],
            [100 * event["accuracy_observed_interval"][0] for event in observed],
            [100 * event["accuracy_observed_interval"][1] for event in observed],
            color=TOOLS["afarepart"], alpha=0.2, linewidth=0, label="canaries, 95 %",
        )  # fmt: skip
        axes.plot(
            steps, [100 * event["accuracy"] for event in events],
            color=INK, drawstyle="steps-post", label="true",
        )  # fmt: skip
        axes.axhline(100 * (whole - theta), color=MUTED, linewidth=0.8, linestyle=_DASHED)
        for event in events:
            if event["repartitioned"]:
                axes.axvline(event["step"], color=TOOLS["afarepart"], linewidth=0.9)
        axes.set_ylim(0, 102)
        axes.set_xlabel("step")
        axes.set_ylabel("images right, %")
        legend(axes)

    return draw(paint, height=2.1)


def _steps(axes: Axes, rows: Rows, key: str, times: float, **look: Any) -> None:
    axes.plot(
        [row["step"] for row in rows],
        [times * row[key] for row in rows],
        drawstyle="steps-post",
        **look,
    )
