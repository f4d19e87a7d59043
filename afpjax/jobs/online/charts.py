"""What job `online` draws: streams over time, and what was observed beside the truth."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from afpjax.jobs.online.result import Event, Moment
from afpjax.report.charts import draw, legend
from afpjax.report.style import INK, METHODS, MUTED, TOOLS
from afpjax.report.wording import Real, rate

__all__ = ["POLICY_NAMES", "over_time", "seen"]

POLICY_NAMES = {
    "never": "never moved",
    "online": "AFarePart online",
    "safest": "safest mapping",
    "safest-within-limits": "fewest faulty bits",
    "stored": "stored front",
    "surrogate": "surrogate",
    "oracle": "oracle",
}
_COLOURS = {
    "never": TOOLS["fault-unaware"],
    "online": TOOLS["afarepart"],
    "safest": METHODS[4],
    "safest-within-limits": METHODS[2],
    "stored": TOOLS["cnnparted"],
    "surrogate": TOOLS["surrogate"],
    "oracle": MUTED,
}
_STEPS: dict[str, Any] = {"drawstyle": "steps-post"}  # a value holds until the next
_MARKS: dict[str, Any] = {"linestyle": "none", "markersize": 3.5, "zorder": 3}
_LIMIT: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (3, 2))}


def over_time(moments: Sequence[Moment], theta: Real) -> bytes:
    """One trace: the worst flip rate, the true drop of each policy, latency and energy."""

    def paint(axes: Sequence[Axes]) -> None:
        worst, drop, latency, energy = axes
        for policy in dict.fromkeys(moment.policy for moment in moments):
            mine = [moment for moment in moments if moment.policy == policy]
            _policy((drop, latency, energy), mine, POLICY_NAMES[policy], _COLOURS[policy])
        first = [moment for moment in moments if moment.policy == moments[0].policy]
        rates = [100 * moment.worst_rate for moment in first]
        worst.plot([moment.step for moment in first], rates, color=INK, **_STEPS)
        worst.set_ylabel("rate, %")
        drop.axhline(100 * theta, color=INK, **_LIMIT)
        drop.set_ylabel("drop, points")
        latency.set_ylabel("ms")
        energy.set_ylabel("mJ")
        energy.set_xlabel("step")
        for each in axes:
            each.set_ylim(bottom=0)
            each.yaxis.set_major_locator(MaxNLocator(nbins=3))
        legend(drop)

    return draw(paint, height=4.6, rows=4, share_rows=False)


def _policy(axes: Sequence[Axes], moments: Sequence[Moment], name: str, colour: str) -> None:
    """One policy's drop (a dot where it went over to another mapping), latency and energy."""
    drop, latency, energy = axes
    steps = [moment.step for moment in moments]
    thick = 2.0 if moments[0].policy == "online" else 1.1
    look = {**_STEPS, "color": colour, "linewidth": thick}
    drop.plot(steps, [100 * moment.accuracy_drop for moment in moments], label=name, **look)
    latency.plot(steps, [moment.latency_ms for moment in moments], **look)
    energy.plot(steps, [moment.energy_mj for moment in moments], **look)
    moved = [moment for moment in moments if moment.switched]
    drops = [100 * moment.accuracy_drop for moment in moved]
    drop.plot([moment.step for moment in moved], drops, marker="o", color=colour, **_MARKS)


def seen(events: Sequence[Event], whole: Real, theta: Real, alarm: Real) -> bytes:
    """One stream: the accuracy that canaries tell beside the true one, and the evidence.

    `whole` is the accuracy without faults, `alarm` the evidence at which the system acts.
    """

    def paint(axes: Sequence[Axes]) -> None:
        told, evidence = axes
        _accuracy(told, events, whole - theta)
        _evidence(evidence, events, alarm)
        for event in events:
            if event.repartitioned:
                for each in axes:
                    each.axvline(event.step, color=TOOLS["afarepart"], linewidth=0.9)
        evidence.set_xlabel("step")
        legend(told)

    return draw(paint, height=3.2, rows=2, share_rows=False)


def _accuracy(axes: Axes, events: Sequence[Event], least: Real) -> None:
    """Observed with its band, true, and the accuracy at which theta is lost."""
    told = {event.step: event.accuracy_observed for event in events if event.accuracy_observed}
    low, high = ([100 * getattr(one, end) for one in told.values()] for end in ("low", "high"))
    look: dict[str, Any] = {"color": TOOLS["afarepart"]}
    axes.fill_between(list(told), low, high, alpha=0.2, linewidth=0, label="canaries, 95 %", **look)
    values = [100 * one.value for one in told.values()]
    axes.plot(list(told), values, linewidth=0.9, label="canaries", **look, **_STEPS)
    steps, true = [event.step for event in events], [100 * event.accuracy for event in events]
    axes.plot(steps, true, color=INK, label="true", **_STEPS)
    axes.axhline(100 * least, color=MUTED, **_LIMIT)
    axes.set_ylim(0, 102)
    axes.set_ylabel("images right, %")


def _evidence(axes: Axes, events: Sequence[Event], alarm: Real) -> None:
    """On a logarithmic scale, for it grows by factors; alarms are marked."""
    weighed = {event.step: event.evidence for event in events if event.evidence is not None}
    axes.plot(list(weighed), list(weighed.values()), color=INK, linewidth=1.1, **_STEPS)
    axes.axhline(alarm, color=MUTED, **_LIMIT)
    alarmed = {step: value for step, value in weighed.items() if value >= alarm}
    look = {"color": TOOLS["fault-unaware"], "marker": "v", **_MARKS}
    axes.plot(list(alarmed), list(alarmed.values()), **look)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("evidence")
