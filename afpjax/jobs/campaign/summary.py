"""What a campaign prints when it is done: the most vulnerable cells, and how fast it was."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.jobs.shared.records import Record

_SHOWN = 12
_HEADS = ("layer", "bit", "target", "faults", "class changed", "interval", "right")


def summary(result: Mapping[str, Any]) -> RenderableType:
    """Cells by SDC rate, the highest first; the whole network's first of all."""
    cells = sorted(result["cells"], key=lambda cell: (_rank(cell), -cell["sdc_rate"]))
    rows = [_words(cell) for cell in cells[:_SHOWN]]
    table = Table(box=None, pad_edge=False)
    # A bit or a target that is the same in every row says nothing, but takes room.
    kept = [place for place in range(len(_HEADS)) if place not in (1, 2) or _differs(rows, place)]
    for place in kept:
        right, name = place > 2, place == 0
        table.add_column(
            _HEADS[place], justify="right" if right else "left", no_wrap=not name, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[place] for place in kept))
    return Group(table, Text(), *map(Text, _notes(result, len(cells))))


def _differs(rows: Sequence[Sequence[str]], place: int) -> bool:
    return len({row[place] for row in rows}) > 1


def _rank(cell: Record) -> int:
    """The whole first, then layers, then the rest."""
    return (
        (cell["layer"] != "all") + (cell["bit"] != "all") + (cell["layer"] == "all" != cell["bit"])
    )


def _words(cell: Record) -> tuple[str, ...]:
    low, high = (100 * float(each) for each in cell["sdc_interval"])
    where = f"{cell['target']}" + (f" at {cell['rate']:g}" if "rate" in cell else "")
    where += f" ({cell['device']})" if "device" in cell else ""
    return (
        str(cell["layer"]),
        str(cell["bit"]),
        where,
        f"{cell['trials']:,}",
        f"{100 * float(cell['sdc_rate']):.2f} %",
        f"[{low:.2f}, {high:.2f}]",
        f"{100 * float(cell['accuracy']):.1f} %",
    )


def _notes(result: Mapping[str, Any], cells: int) -> list[str]:
    design, speed = result["design"], result["throughput"]
    faulty, clean = (
        float(speed[key]) for key in ("inferences_per_second", "clean_inferences_per_second")
    )
    notes = [
        f"Without faults {100 * float(result['clean']['accuracy']):.1f} % of "
        f"{result['clean']['images']} images are right. {design['trials']:,} trials of "
        f"{design['fault']} faults in {' and '.join(result['targets'])}, {design['strata']} cells; "
        f"{design['interval']} intervals of "
        f"{100 * design['confidence']:g} %."
    ]
    if "published" in result:
        notes.append(_published(result["published"]))
    if cells > _SHOWN:
        notes.append(f"{_SHOWN} of {cells} cells are shown; cells.csv has all.")
    if faulty:
        notes.append(
            f"{faulty:,.0f} images x trials a second; without faults {clean:,.0f} images a second."
        )
    return notes


def _published(found: Record) -> str:
    """What others measured of the same faults, in two sentences."""
    whole, scores = found["whole"], found["scores"]
    low, high = (100 * float(each) for each in whole["sdc_interval"])
    rms = f" (root mean square of scores {scores['rms']:.3f})" if "rms" in scores else ""
    return (
        f"Published: {100 * whole['published_rate']:.3f} %, {found['published_images']:,} images; "
        f"here {100 * whole['sdc_rate']:.3f} % [{low:.3f}, {high:.3f}]. Inside their intervals: "
        f"{found['bits_inside']} of {len(found['bits'])} bits, {found['layers_inside']} of "
        f"{len(found['layers'])} layers; {scores['faults']:,} faults are often critical enough to "
        f"be scored{rms}."
    )
