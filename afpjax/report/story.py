"""What a job's own module gives the page: an answer in one sentence, and parts below it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from afpjax.report.markup import Html

__all__ = ["Block", "Part", "Result", "Story"]

Result = Mapping[str, Any]


class Block(NamedTuple):
    """One part's markup and the figures in it, by file name."""

    html: Html
    figures: Mapping[str, bytes] = {}


class Part(NamedTuple):
    """One section of the page; left out where a key of the result that it needs is absent.

    So is one that builds nothing.
    """

    title: str
    needs: Sequence[str]
    build: Callable[[Result], Block]


class Story(NamedTuple):
    """A job's report. A new job is a module `afpjax.report.JOB` with a `STORY`."""

    answer: Callable[[Result], Html]
    lead: Callable[[Result], Html]
    parts: Sequence[Part]
