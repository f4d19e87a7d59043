"""A view as one HTML file (no network, no script, light and dark, phone to desktop) and as text."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from html import escape
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text as RichText

from afpjax.report.style import COLOURS, variables
from afpjax.report.view import Beside, Block, Chart, Column, Details, Part, Table, Text, View
from afpjax.report.wording import plain_value

__all__ = ["Page", "page", "pieces", "terminal"]


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
    """The view's summary for the command: tables, and sentences with a line between them."""
    shown: list[RenderableType] = []
    for item in view.summary:
        shown += [RichText()] if shown and isinstance(item, Table) else []
        shown.append(_rich(item) if isinstance(item, Table) else RichText(_stripped(item)))
    return Group(*shown)


def _rich(table: Table[Any]) -> RichTable:
    chosen = [n for n, column in enumerate(table.columns) if not column.page_only]
    made, group = RichTable(box=None, pad_edge=False), ""
    for number in chosen:
        column = table.columns[number]
        made.add_column(
            RichText(_stripped(column.heading)),
            justify="left" if column.left or number == 0 else "right",
        )
    for row in table.rows:
        if (own := table.group(row)) != group:
            group = own
            made.add_row(RichText(own, style="bold"))
        cells = table.cells(row)
        words = [RichText(_stripped(cells[number])) for number in chosen]
        made.add_row(*words, style="bold" if table.strong(row) else "")
    return made


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
