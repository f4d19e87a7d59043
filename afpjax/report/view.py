"""What a job says of its result: one sentence, then parts made of a few kinds of blocks.

A job's `view.py` makes a `View` of its typed result. `render` writes it as a page and shows its
summary in the terminal; both draw the same tables, so that a column is defined once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from markupsafe import Markup

__all__ = ["Beside", "Block", "Bullets", "Chart", "Column", "Details", "Paragraph"]
__all__ += ["Part", "Table", "Text", "View"]

#: Text is escaped on the page; `Markup` stands there as it is, and without its tags in a terminal.
Text: TypeAlias = str | Markup

Row = TypeVar("Row")


class Column(NamedTuple):
    """One column of a table: its heading with the unit, and how a row's cell reads.

    A cell that does not exist (None) is a dash.
    """

    heading: Text
    cell: Callable[[Any], object]
    left: bool = False  # aligned; the first column always is
    page_only: bool = False  # left out in the terminal


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows of anything, shown by columns, for the page and for the terminal."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    strong: Callable[[Row], bool] = lambda row: False  # rows that stand out
    group: Callable[[Row], str] = lambda row: ""  # a heading of its own where it changes
    kind: str = ""  # a class of the style sheet

    def cells(self, row: Row) -> list[Text]:
        """A row's cells as they read."""
        values = [column.cell(row) for column in self.columns]
        return [
            "–" if v is None else v if isinstance(v, str) else str(v)  # Markup is a str
            for v in values
        ]


class Chart(NamedTuple):
    """A figure: a file of the run folder, and on the page in the page's colours."""

    name: str  # the file's, without .svg
    svg: bytes
    title: str
    caption: Text = ""


class Paragraph(NamedTuple):
    """A paragraph; `kind` is a class of the style sheet, such as `note` or `warning`."""

    text: Text
    kind: str = ""


class Bullets(NamedTuple):
    """A list of sentences."""

    items: Sequence[Text]


class Details(NamedTuple):
    """What is closed until the reader asks for it."""

    summary: Text
    content: Sequence["Block"]


class Beside(NamedTuple):
    """Blocks beside one another where there is room."""

    content: Sequence["Block"]


Block: TypeAlias = Table[Any] | Chart | Paragraph | Bullets | Details | Beside | Markup


class Part(NamedTuple):
    """One section of the page; left out where it holds nothing."""

    title: str
    content: Sequence[Block]


@dataclass(frozen=True)
class View:
    """What is said of a result."""

    headline: Text  # the result in one sentence, the page's headline
    lead: Sequence[Text] = ()  # the paragraphs below it
    parts: Sequence[Part] = ()
    summary: Sequence[Table[Any] | Text] = ()  # what the command prints
    subject: str = ""  # which network on which images
    warnings: Sequence[str] = ()  # what has to be known before the answer is read
    remarks: Sequence[str] = ()  # what belongs below the answer, in small type
