"""What has to be known before an answer is read: the notes of a run.

A job's result has them as `notes`, and its view as warnings: the command prints them before the
job's own summary, and the report shows them below its headline. In the library the same text is a
warning of the category `AnswerWarning`. A note is a pure function of the experiment: no times, no
places, so that equal runs say the same.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class AnswerWarning(UserWarning):
    """An answer is less than it seems: the text says why, and what to do."""


@dataclass(frozen=True)
class Note:
    """One thing to know: `kind` names it for programs, `text` (one or more sentences) for people.

    `facts` are the figures behind the text, by name; they stand beside it in result.json.
    """

    kind: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def warn(notes: Iterable[Note], *, stacklevel: int = 2) -> None:
    """Say each note as an `AnswerWarning` of the line so many levels above the caller's."""
    for note in notes:
        warnings.warn(note.text, AnswerWarning, stacklevel=stacklevel + 1)


def covered(record: Mapping[str, Any]) -> str:
    """What of a network its layers are, a `Coverage.record` in words."""
    layers = (
        f"Layers have {_percent(record['macs'])} of the multiply-accumulates (MACs) and "
        f"{_percent(record['parameters'])} of the parameters"
    )
    outside = [
        f"{kind} ({count:,} {what})"
        for what, key in (("MACs", "macs_outside"), ("parameters", "parameters_outside"))
        for kind, count in record[key].items()
    ]
    if not outside:
        return f"{layers}."
    return f"{layers}; outside them, neither faulty nor costed: {', '.join(outside)}."


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}"
    return "all" if share == 1 else f"{'99.9' if text == '100.0' else text} %"
