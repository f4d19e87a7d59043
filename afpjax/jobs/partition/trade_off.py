"""What job `partition` says of the whole trade-off: accuracy over what a mapping may cost."""

from collections.abc import Sequence

from afpjax.jobs.partition import charts
from afpjax.jobs.partition.result import AllowancePoint, CurveResult
from afpjax.jobs.shared import view as shared
from afpjax.report.view import Block, Chart, Column, Paragraph, Part, Table
from afpjax.report.wording import join, number, percent


def sentence(curve: CurveResult | None) -> str:
    """What the allowance regains, and what regains the target; nothing without a curve."""
    if curve is None:
        return ""
    own = _at(curve, 1.0)
    if own.regained is None or len(curve.points) == 1:
        return "Faults take nothing from the fault-unaware mapping that could be regained."
    if own.regained.low > 0:
        said = f"{_more(own)} regains {_share(own)} of what faults take from the fault-unaware one"
    elif curve.helps is None:
        said = f"No mapping within {_more(curve.points[-1])} helps beyond chance"
    else:
        helps = _at(curve, curve.helps)
        said = (
            f"No mapping within {_more(own)} helps beyond chance; {_more(helps)} regains "
            f"{_share(helps)} of what faults take"
        )
    goal = f"{100 * curve.target:.0f}\u00a0%"
    if curve.least is not None:
        return f"{said}; {goal} needs {_more(_at(curve, curve.least))}."
    return f"{said}; {goal} is not regained up to {_more(curve.points[-1])}."


def part(curve: CurveResult | None, clean: float) -> list[Part]:
    """The curve as a figure and a table; nothing without one."""
    if curve is None or len(curve.points) == 1:
        return []
    svg = charts.allowances(curve.points, clean, curve.accuracy)
    blocks: list[Block] = [
        Chart("allowances", svg, "The most accurate mapping under each allowance"),
        _table(curve),
        Paragraph(_NOTE, "note"),
    ]
    return [Part("What more latency and energy buys", blocks)]


_NOTE = (
    "Regained: share of what faults take from the fault-unaware mapping, with a 95 % interval "
    "(same draws and images). Knee: from here on more buys least. Each mapping was chosen on the "
    "search's images, and measured on held-out ones."
)


def _table(curve: CurveResult) -> Table[AllowancePoint]:
    def marked(point: AllowancePoint) -> str:
        marks = {
            "knee": point.factor == curve.knee,
            f"regains {100 * curve.target:.0f} %": point.factor == curve.least,
        }
        return join([name for name, holds in marks.items() if holds]) if any(marks.values()) else ""

    columns = [
        Column("allowed", _more),
        Column("images right", lambda point: shared.estimated(point.accuracy), left=True),
        Column("regained", lambda point: shared.estimated(point.regained), left=True),
        Column("latency, ms", lambda point: number(point.latency_ms)),
        Column("energy, mJ", lambda point: number(point.energy_mj)),
        Column("", marked, left=True),
    ]
    return Table(columns, list(curve.points), strong=lambda point: point.factor == 1.0)


def _at(curve: CurveResult, factor: float) -> AllowancePoint:
    return next(point for point in curve.points if point.factor == factor)


def _more(point: AllowancePoint) -> str:
    """`+10 % latency and +5 % energy`, what is not allowed left out."""
    parts: Sequence[tuple[float, str]] = ((point.latency, "latency"), (point.energy, "energy"))
    return join([f"+{100 * share:.3g}\u00a0% {name}" for share, name in parts if share])


def _share(point: AllowancePoint) -> str:
    assert point.regained is not None, "asked only where something was lost"
    return percent(point.regained.value)
