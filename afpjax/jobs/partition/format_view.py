"""What job `partition` says of number formats: before its mappings, where one solves the case."""

from collections.abc import Sequence

from afpjax.jobs.partition.result import FormatRow
from afpjax.jobs.shared import view as shared
from afpjax.report.render import pieces
from afpjax.report.view import Column, Paragraph, Part, Table, Text
from afpjax.report.wording import interval, percent
from afpjax.search.curve import TARGET

_POINT = "the binary point that calibration images allow"


def solved(rows: Sequence[FormatRow] | None) -> FormatRow | None:
    """The most accurate format that alone regains the target, beyond chance."""
    enough = [
        row
        for row in rows or ()
        if row.regained is not None and row.regained.value >= TARGET and row.regained.low > 0
    ]
    return max(enough, key=lambda row: row.accuracy.value, default=None)


def sentence(rows: Sequence[FormatRow] | None) -> str:
    """What a format alone keeps; nothing where none solves the case."""
    best = solved(rows)
    if best is None or not rows:
        return ""
    how = f" ({_POINT})" if best.scale == "global" else ""
    return (
        f"Number format alone: the fault-unaware mapping in {best.format}{how} keeps "
        f"{percent(best.accuracy.value)} of images right, in {rows[0].format} as configured "
        f"{percent(rows[0].accuracy.value)}, at the same cost."
    )


def part(rows: Sequence[FormatRow] | None) -> list[Part]:
    """The table with what stands below it; nothing where no formats were compared."""
    if not rows:
        return []
    title = "Other number formats of the same width"
    return [Part(title, [table(rows), Paragraph(_NOTE, "note")])]


_NOTE = (
    "The fault-unaware mapping; faults in weights and activations, the same held-out images and "
    "draws in every format, which all cost the same. Regained: share of what faults take in the "
    "configured format. To use one, set format.frac or format.scale."
)


def table(rows: Sequence[FormatRow]) -> Table[FormatRow]:
    """Accuracy without and with faults in every format."""
    best = solved(rows)

    def gained(row: FormatRow) -> Text | None:
        if row.difference is None:
            return None
        value = f"{100 * row.difference.value:+.1f}".replace("-", "\u2212")
        return pieces().estimate(value, interval(row.difference.bounds))

    columns = [  # what matters first: a phone shows two
        Column("numbers", lambda row: row.format, left=True),
        Column("with faults", lambda row: shared.estimated(row.accuracy), left=True),
        Column("without faults", lambda row: shared.estimated(row.clean), left=True),
        Column("difference, points", gained, left=True),
        Column("regained", lambda row: shared.estimated(row.regained), left=True),
        Column("setting", _setting, left=True),
    ]
    return Table(columns, list(rows), strong=lambda row: row is best)


def _setting(row: FormatRow) -> str:
    if row.difference is None:
        return "as configured"
    return f"format.scale = {row.scale}" if row.frac is None else f"format.frac = {row.frac}"
