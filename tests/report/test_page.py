"""What holds for every job's page."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html import escape
from json import dumps
from types import SimpleNamespace
from typing import Any

import pytest

from afpjax.report.page import render

from .conftest import Reader

# What makes a page reach out, as the check of run folders has it, and what else would.
OUTSIDE = ('src="http', "src='http", 'href="http://', "@import", 'rel="stylesheet" href="http')
OUTSIDE += ("<script", "<link", "<iframe", "<img", "javascript:", "onload=", "url(http", 'href="//')
NAME = '<b>&"x'


@pytest.fixture(params=["partition", "unknown"])
def result(request, make):
    made = {"partition": make}
    return made.get(request.param, lambda: {"job": "unknown"})()


def test_page_is_whole_and_reaches_nowhere(result):
    page = render(result, {"run": {"seed": 0}}).html
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    for outside in OUTSIDE:
        assert outside not in page
    reader = Reader(page)
    assert {"html", "head", "title", "h1", "style"} <= reader.tags
    targets = [value for key, value in reader.attributes if key in ("href", "src", "xlink:href")]
    assert all(str(target).startswith("#") for target in targets)
    assert ("name", "viewport") in reader.attributes


def test_no_number_that_is_none(result):
    page = render(result, {}).html
    assert not re.search(r"\b(nan|inf)\b", page, re.I)
    assert "None" not in Reader(page).text


def test_figures_are_on_the_page_and_in_files(make):
    page = render(make(), {})
    assert page.html.count("<svg ") == len(page.figures) == 7
    assert all(name.endswith(".svg") for name in page.figures)
    assert all(svg.startswith(b"<?xml") for svg in page.figures.values())


def test_figures_on_the_page_take_the_page_s_colours(make):
    page = render(make(devices=8), {})
    body = page.html[page.html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)
    assert "fill: #" in page.figures["front.svg"].decode()  # a file by itself has its own


def test_nothing_depends_on_when_or_how_fast(result):
    page = render(result, {})
    assert render({**result, "seconds": 1e6}, {}) == page


def test_pages_agree_byte_for_byte_in_any_process(make, tmp_path):
    """Whatever the hash seed, and whatever a matplotlibrc lies about."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.xmargin: 0.4\nsvg.fonttype: path\n")
    (tmp_path / "result.json").write_text(dumps(make()))
    script = (
        "import json, sys; from afpjax.report.page import render\n"
        "page = render(json.load(open('result.json')), {'run': {'seed': 3}})\n"
        "sys.stdout.buffer.write(page.html.encode())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONHASHSEED": "1", "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert other.stdout == render(make(), {"run": {"seed": 3}}).html.encode()


def test_text_is_escaped_wherever_it_comes_from(make):
    for whole in (make(),):
        old = whole["model"]["layers"][1]["name"]
        named = _renamed(_renamed(whole, old, NAME), "simba", "<i>&'y")
        named["model"]["name"] = "<u>net"
        page = render(named, {"<s>": {"key": "<em>value"}}).html
        for raw in (NAME, "<i>&", "<u>net", "<s>", "<em>"):
            assert raw not in page
        assert escape(NAME) in page
        assert "&lt;u&gt;net" in page
        assert "&lt;em&gt;value" in page
        text = Reader(page).text
        assert NAME in text
        assert "<i>&'y" in text


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    return new if value == old else value


def test_settings_from_dataclasses_and_from_mappings():
    @dataclass
    class Section:
        devices: tuple[str, ...] = ("a", "b")
        path: str = ""
        renew: bool = False
        none: tuple[int, ...] = ()
        rate: float = 0.25

    @dataclass
    class Config:
        section: Section = field(default_factory=Section)

    expected = [
        ["section.devices", "a, b"],
        ["section.path", "–"],
        ["section.renew", "false"],
        ["section.none", "–"],
        ["section.rate", "0.25"],
    ]
    as_mapping = {"section": Section().__dict__}
    for config in (Config(), as_mapping):
        reader = Reader(render({"job": "unknown"}, config).html)
        assert reader.table("setting", "value") == expected
    assert not Reader(render({"job": "unknown"}, SimpleNamespace()).html).tables


def test_job_without_a_story_still_has_its_page():
    """Modules of the package that are no job's have no story either."""
    for job in ("unknown", "wording", "not-a-module", "../page"):
        assert Reader(render({"job": job}, {}).html).headline == f"Job {job}: done"


def test_notes_are_the_first_paragraph(make):
    """What has to be known before the answer is read stands before all else but the answer."""
    noted = {**make(), "notes": [{"kind": "chance", "text": "No better than <chance>."}]}
    page = render(noted, {}).html
    first = page.index("<p", page.index("</header>"))
    assert page[first:].startswith("<p class=warning>No better than &lt;chance&gt;.</p>")
    assert "<p class=warning>" not in render(make(), {}).html
