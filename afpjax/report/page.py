"""A result as one HTML file: no network, no script, light and dark, from phone to desktop."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from afpjax.inputs.notes import covered, texts
from afpjax.report.markup import Html, details, html, join, paragraph, table
from afpjax.report.story import Result, Story
from afpjax.report.style import CSS

__all__ = ["Page", "render"]


class Page(NamedTuple):
    """The page, and its figures by file name (each is on the page too)."""

    html: str
    figures: dict[str, bytes]


def render(result: Result, config: object) -> Page:
    """The report of `result`, the content of result.json, obtained with `config`.

    `config` is a dataclass of dataclasses, or a mapping of mappings. A part whose data the result
    lacks is left out. Nothing in the page depends on when or where the job ran, so equal answers
    give equal pages; how fast it ran is told where the result has a `throughput`.
    """
    story = _story(str(result["job"]))
    figures: dict[str, bytes] = {}
    body = []
    for part in story.parts:
        if all(result.get(key) for key in part.needs):
            block = part.build(result)
            if not block.html:
                continue
            figures.update(block.figures)
            body.append(Html(f"<h2>{html(part.title)}</h2>{block.html}"))
    body.append(_settings(config))
    over = _over(result)
    head = Html(f"<header><p class=over>{over}</p><h1>{story.answer(result)}</h1></header>")
    first = [paragraph(text, kind="warning") for text in texts(result)]
    coverage = result.get("model", {}).get("coverage")
    last = [paragraph(covered(coverage), kind="note")] if coverage else []
    page = _frame(
        f"{result['job']} – afpjax", join([head, *first, story.lead(result), *last, *body], "\n")
    )
    return Page(page, figures)


def _story(job: str) -> Story:
    """The job's own, or one that has only the settings."""
    name = f"afpjax.jobs.{job}"
    if job.isidentifier() and find_spec(name) and find_spec(name := f"{name}.view"):
        story = getattr(import_module(name), "STORY", None)
        if isinstance(story, Story):
            return story
    return Story(lambda result: html(f"Job {job}: done"), lambda result: Html(), ())


def _over(result: Result) -> Html:
    """Which network on which images."""
    model = os.path.basename(result.get("model", {}).get("name", ""))  # an ONNX file's is a path
    data = result.get("data", {}).get("name", "")
    where = f"{model} on {data}" if model and data else model
    return join([part for part in ("afpjax", result["job"], where) if part], " · ")


def _settings(config: object) -> Html:
    """Every key of the resolved experiment."""
    rows = []
    for section, keys in _items(config):
        for key, value in _items(keys):
            rows.append((f"{section}.{key}", _plain(value)))
    if not rows:
        return Html()
    listing = table(("setting", "value"), rows, words=(1,))
    return details("All settings of this run", Html(f"<div class=settings>{listing}</div>"))


def _items(record: object) -> list[tuple[str, Any]]:
    if is_dataclass(record):
        return [(field.name, getattr(record, field.name)) for field in fields(record)]
    return list(record.items()) if isinstance(record, Mapping) else []


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value == "" else str(value)


def _frame(title: str, body: Html) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html(title)}</title><style>{CSS}</style></head>\n<body>{body}</body></html>\n"
    )
