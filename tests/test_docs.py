"""The manual: its programs run, its commands are ones that there are, its links lead somewhere."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import jax
import pytest

from afpjax.command.command import read
from afpjax.config.config import load_settings, refuse_unused
from afpjax.jobs import JOBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMAND = "python -m afpjax.run"


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    lines = [
        (page.stem, line)
        for page in PAGES
        for text in blocks(page, "sh")
        for line in text.splitlines()
    ]
    return [(page, line) for page, line in lines if line.startswith(COMMAND)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_a_pages_programs_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        for code in blocks(page, "python"):
            exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_says_what_its_job_uses(page, line, tmp_path, monkeypatch):
    """All but what it finds in data of the reader's own and in runs that an earlier line made."""
    monkeypatch.setenv("AFPJAX_DATA", str(tmp_path))
    words = [word for word in shlex.split(line.removeprefix(COMMAND)) if word != "--resume"]
    if "--config" in words and words[(at := words.index("--config")) + 1].startswith("runs/"):
        del words[at : at + 2]
    request = read(words, JOBS)
    settings = {
        key: value
        for key, value in request.overrides.items()
        if not key.endswith(("source", "serve.export"))
    }
    config = load_settings(request.file, settings)
    assert config.run.job in JOBS
    refuse_unused(config, settings)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_every_page_is_listed(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in link or (page.parent / link).exists(), link
    assert f": {page.name}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_objects_of_the_reference_are_public_and_all_are_there():
    import afpjax

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))
    members = re.findall(r"members: \[([\w, ]+)\]", text)
    listed = {name.split(".")[-1] for name in named} | {
        name.strip() for each in members for name in each.split(",")
    }
    functions = {
        name
        for name in afpjax.__all__
        if callable(getattr(afpjax, name)) and not isinstance(getattr(afpjax, name), type)
    }
    assert functions <= listed


def test_headings_do_not_skip_a_level():
    for page in PAGES:
        outside = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        levels = [len(mark) for mark in re.findall(r"^(#+) ", outside, re.MULTILINE)]
        assert levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels)), page
