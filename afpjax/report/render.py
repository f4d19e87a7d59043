"""A view as one HTML file (no network, no script, light and dark, phone to desktop) and as text."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from html import escape
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text as RichText

from afpjax.report.style import COLOURS, variables
from afpjax.report.view import Beside, Block, Chart, Column, Details, Part, Table, Text, View
from afpjax.report.wording import plain_value

__all__ = ["Page", "page", "pieces", "terminal"]

_PART = 8  # letters that words of a table's first column are broken into, where they have to be


class Page(NamedTuple):
    """The page, and its figures by file name (each is on the page too)."""

    html: str
    figures: dict[str, bytes]


def page(view: View, job: str, settings: object) -> Page:
    """The report of a view; `settings` are the resolved experiment's, sections of keys.

    Nothing in it depends on when or where the job ran, so equal answers give equal pages.
    """
    parts = [part for part in view.parts if any(part.content)]
    charts = {f"{chart.name}.svg": chart.svg for part in parts for chart in _charts(part.content)}
    known = [
        (f"{section}.{key}", value)
        for section, keys in _items(settings)
        for key, value in _items(keys)
    ]
    columns = [
        Column("setting", lambda pair: pair[0]),
        Column("value", lambda pair: plain_value(pair[1]), left=True),
    ]
    if known:
        table = Table(columns, known, kind="settings")
        parts.append(Part("", [Details("All settings of this run", [table])]))
    over = " · ".join(part for part in ("afpjax", job, view.subject) if part)
    text = (
        _environment()
        .get_template("page.html")
        .render(view=view, parts=parts, title=f"{job} – afpjax", over=over)
    )
    return Page(text, charts)


def terminal(view: View) -> RenderableType:
    """The view's summary for the command: sentences below one another, tables apart."""
    shown: list[RenderableType] = []
    for before, item in zip([None, *view.summary], view.summary, strict=False):
        if before is not None and (isinstance(before, Table) or isinstance(item, Table)):
            shown.append(RichText())
        shown.append(_Fitted(item) if isinstance(item, Table) else RichText(_stripped(item)))
    return Group(*shown)


class _Fitted(NamedTuple):
    """A table that looks for the terminal's width when it is printed."""

    table: Table[Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        yield _rich(self.table, options.max_width)


def _rich(table: Table[Any], width: int) -> RichTable:
    chosen = [n for n, column in enumerate(table.columns) if not column.page_only]
    lines, group = list[tuple[list[str], str]](), ""
    for row in table.rows:
        if (own := table.group(row)) != group:
            group = own
            lines.append(([own], "bold"))
        cells = table.cells(row)
        style = "bold" if table.strong(row) else ""
        lines.append(([_stripped(cells[n]) for n in chosen], style))
    headings = [_stripped(table.columns[n].heading) for n in chosen]
    made = RichTable(box=None, pad_edge=False)
    for n, heading, wide in zip(chosen, headings, _widths(headings, lines, width), strict=True):
        left = n == 0 or table.columns[n].left
        made.add_column(
            RichText(heading), justify="left" if left else "right", width=wide, overflow="fold"
        )
    for line, style in lines:
        made.add_row(*map(RichText, line), style=style)
    return made


def _widths(headings: list[str], lines: list[tuple[list[str], str]], room: int) -> list[int]:
    """Of columns with two spaces between them.

    Where room is short, the first column and headings are wrapped, between words if that does;
    other cells only where even this is not enough.
    """
    columns = [[line[n] for line, _ in lines if n < len(line)] for n in range(len(headings))]
    first, *cells = map(_longest, columns)
    word, *words = (_longest(heading.split()) for heading in headings)
    word = max(word, _longest(" ".join(columns[0]).split()))
    room -= 2 * len(cells)
    least, part = [word, *map(max, cells, words)], min(word, _PART)
    for less in ([part, *least[1:]], [part, *cells], [1] * len(headings)):
        least = least if sum(least) <= room else less
    widths = list(map(max, [first, *cells], map(cell_len, headings)))
    while sum(widths) > room and widths != least:
        spare = [width - own for width, own in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    return widths


def _longest(texts: Iterable[str]) -> int:
    return max([1, *map(cell_len, texts)])


def _stripped(text: Text) -> str:
    """Without tags and devices' numbers, and entities as the characters that they stand for."""
    if not isinstance(text, Markup):
        return text
    return Markup(re.sub(r"<span class=key[^>]*>.*?</span>", "", text)).striptags()


def _charts(content: Iterable[Block]) -> Iterator[Chart]:
    for block in content:
        if isinstance(block, Chart):
            yield block
        elif isinstance(block, Details | Beside):
            yield from _charts(block.content)


def _items(record: object) -> list[tuple[str, Any]]:
    if is_dataclass(record):
        return [(field.name, getattr(record, field.name)) for field in fields(record)]
    return (
        list(record.items())
        if isinstance(record, Mapping)
        else list(getattr(record, "__dict__", {}).items())
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("afpjax.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["inline"] = _inline
    made.filters["kind"] = lambda block: type(block).__name__
    made.globals["variables"] = Markup(variables())
    return made


@cache
def pieces() -> Any:
    """The template's pieces as functions that return `Markup`: `pieces().device(0, "simba")`."""
    return _environment().get_template("pieces.html").module


def _inline(chart: Chart) -> Markup:
    """An SVG that takes the page's colours and type; its ids are dropped."""
    drawing = chart.svg.decode()
    drawing = re.sub(r'<g id="[^"]*">', "<g>", drawing[drawing.index("<svg") :])
    box = re.search(r'viewBox="[^"]*"', drawing)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{escape(chart.title)}">'
    drawing = head + drawing[drawing.index(">") + 1 :]
    for name, colour in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return Markup(drawing)
