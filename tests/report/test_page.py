"""What holds for every job's page."""

import io
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from afpjax.report.charts import draw
from afpjax.report.render import page, terminal
from afpjax.report.style import DEVICES
from afpjax.report.view import (
    Beside,
    Bullets,
    Chart,
    Column,
    Details,
    Paragraph,
    Part,
    Table,
    View,
)

from ..conftest import Reader

# What makes a page reach out, as the check of run folders has it, and what else would.
OUTSIDE = ('src="http', "src='http", 'href="http://', "@import", 'rel="stylesheet" href="http')
OUTSIDE += ("<script", "<link", "<iframe", "<img", "javascript:", "onload=", "url(http", 'href="//')
NAME = '<b>&"x'


def line(name: str = "one", colour: str = DEVICES[0]) -> Chart:
    def paint(axes) -> None:
        axes[0].plot([0, 1], [0, 1], color=colour)
        axes[0].set_xlabel(NAME)

    return Chart(name, draw(paint, height=1.0), NAME, NAME)


def said(**changes) -> View:
    """A view with every kind of block, a name that is markup in each."""
    columns = [
        Column(NAME, lambda row: row),
        Column("none", lambda row: None),
        Column("bar", lambda row: "in the page", page_only=True),
    ]
    table = Table(columns, [NAME, "two"], strong=lambda row: row == "two", group=lambda row: NAME)
    blocks = [table, line(), Paragraph(NAME, "note"), Bullets([NAME, "item"])]
    blocks += [Details(NAME, [Beside([line("two", DEVICES[1]), Paragraph("beside")])])]
    given = {"headline": NAME, "lead": [NAME], "parts": [Part(NAME, blocks), Part("nothing", [])]}
    given |= {"subject": NAME, "warnings": [NAME], "remarks": [NAME], "summary": [table, NAME]}
    return View(**{**given, **changes})


def test_page_is_whole_and_reaches_nowhere():
    html = page(said(), "job", {"run": {"seed": 0}}).html
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</html>")
    for outside in OUTSIDE:
        assert outside not in html
    reader = Reader(html)
    assert {"html", "head", "title", "h1", "style", "figure", "details", "li"} <= reader.tags
    targets = [value for key, value in reader.attributes if key in ("href", "src", "xlink:href")]
    assert all(str(target).startswith("#") for target in targets)
    assert ("name", "viewport") in reader.attributes


def test_text_is_escaped_wherever_it_stands():
    html = page(said(), NAME, {NAME: {NAME: NAME}}).html
    assert NAME not in html
    assert html.count("&lt;b&gt;&amp;") >= 15
    assert NAME in Reader(html).text


def test_figures_are_on_the_page_and_in_files_in_their_own_colours():
    made = page(said(), "job", {})
    assert sorted(made.figures) == ["one.svg", "two.svg"]
    assert made.html.count("<svg ") == 2
    body = made.html[made.html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)
    assert "stroke: #" in made.figures["one.svg"].decode()  # a file by itself has its own


def test_rows_groups_and_what_does_not_exist():
    reader = Reader(page(said(), "job", {}).html)
    assert reader.headings == [NAME]  # a part that holds nothing is left out
    rows = reader.table(NAME, "none", "bar")
    assert rows == [[NAME], [NAME, "–", "in the page"], ["two", "–", "in the page"]]


def test_warnings_stand_before_all_but_the_answer():
    html = page(said(warnings=["No better than <chance>."]), "job", {}).html
    first = html.index("<p", html.index("</header>"))
    assert html[first:].startswith("<p class=warning>No better than &lt;chance&gt;.</p>")
    assert "<p class=warning>" not in page(said(warnings=[]), "job", {}).html


@pytest.mark.parametrize("as_object", [True, False])
def test_settings_are_listed(as_object):
    keys = {"devices": ("a", "b"), "path": "", "renew": False, "none": (), "rate": 0.25}
    settings = {"section": SimpleNamespace(**keys) if as_object else keys}
    reader = Reader(page(said(), "job", settings).html)
    assert reader.table("setting", "value") == [
        ["section.devices", "a, b"],
        ["section.path", "–"],
        ["section.renew", "false"],
        ["section.none", "–"],
        ["section.rate", "0.25"],
    ]


def test_figures_agree_byte_for_byte_in_any_process(tmp_path):
    """Whatever the hash seed, and whatever a matplotlibrc lies about."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.xmargin: 0.4\nsvg.fonttype: path\n")
    script = (
        "import sys\nfrom afpjax.report.charts import draw\n"
        "def paint(axes):\n    axes[0].plot([0, 1], [0, 1], label='x')\n    axes[0].legend()\n"
        "sys.stdout.buffer.write(draw(paint, height=1.0))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONHASHSEED": "1", "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        check=True,
    )

    def paint(axes) -> None:
        axes[0].plot([0, 1], [0, 1], label="x")
        axes[0].legend()

    assert other.stdout == draw(paint, height=1.0)


@pytest.mark.parametrize("width", [80, 60])
def test_figures_stay_whole_in_narrow_terminals(width):
    """The first column and headings give way."""
    columns = [
        Column("environment and policy", lambda row: f"a name that is rather long {row}"),
        *(Column(f"share of all, {n}", lambda row: f"{row:,} %") for n in range(3)),
        Column("a word", lambda row: "as it is", left=True),
    ]
    rows = [1234567 * n for n in range(2, 6)]
    out = io.StringIO()
    Console(file=out, width=width).print(terminal(said(summary=[Table(columns, rows)])))
    text = out.getvalue()
    assert "…" not in text and all(len(line) <= width for line in text.splitlines())
    for row in rows:
        assert [f"{row:,} %"] * 3 in [re.findall(r"[\d,]+ %", line) for line in text.splitlines()]
    assert text.count("as it is") == len(rows)


def test_cells_are_wrapped_only_where_they_do_not_fit():
    out = io.StringIO()
    numbers = [Column(str(n), lambda row: "12345 6789") for n in range(4)]
    Console(file=out, width=30).print(terminal(said(summary=[Table(numbers, [0])])))
    assert re.findall(r"\d\d+", out.getvalue()) == ["12345"] * 4 + ["6789"] * 4


def test_tables_are_apart_from_what_stands_beside_them():
    table = Table([Column("one", str)], ["row"])
    out = io.StringIO()
    Console(file=out, width=60).print(terminal(said(summary=["a", "b", table, "c", "d"])))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines == ["a", "b", "", "one", "row", "", "c", "d"]
