"""What a job gives back, and the text of its result and its tables."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.jobs.shared.result import plain
from afpjax.report.view import View

__all__ = ["Job", "Outcome", "plain", "result_text", "tables"]

_WIDTH = 100  # columns up to which a record of result.json stands on one line


class Outcome(NamedTuple):
    """What a job measured, and what it says of it."""

    #: A frozen dataclass, see `jobs.shared.result`: result.json without job, version, seed and
    #: seconds.
    result: Any
    view: View  # what the page and the command say of the result
    files: Mapping[str, bytes] = MappingProxyType({})  # more for the run folder, by name


#: The outcome depends on the experiment alone, not on what the memory holds already. Raises
#: `InputError` for what the user can mend.
Job = Callable[[Config, Work], Outcome]


def result_text(result: Mapping[str, Any]) -> str:
    """result.json of a `plain` result: keys in their order, a record that fits on one line."""
    return _layout(result, 0) + "\n"


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """One CSV text for every list of records in a `plain` result, by name: `front`, `model-layers`.

    Columns are the records' keys in order of first appearance. `X_interval` becomes `X_low` and
    `X_high`, and any other list its values with spaces between.
    """
    return {name: _csv(records) for name, records in _lists_of_records(result, "")}


def _layout(value: object, indent: int) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or not value or indent + len(line) <= _WIDTH:
        return line
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return line  # a long row of numbers is no easier to read below one another
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        opened, closed = "{}"
        items = [f"{json.dumps(key)}: {_layout(item, indent + 2)}" for key, item in value.items()]
    else:
        opened, closed = "[]"
        items = [_layout(item, indent + 2) for item in value]
    return f"{opened}\n{inner}" + f",\n{inner}".join(items) + f"\n{' ' * indent}{closed}"


def _lists_of_records(value: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _lists_of_records(item, f"{name}{key}-")
        elif isinstance(item, list) and item and all(isinstance(each, Mapping) for each in item):
            yield f"{name}{key}", item


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    rows = [dict(_cells(record)) for record in records]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cells(record: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key, value in record.items():
        if key.endswith("_interval") and isinstance(value, list) and len(value) == 2:
            stem = key.removesuffix("_interval")
            yield from ((f"{stem}_low", value[0]), (f"{stem}_high", value[1]))
        elif isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
            yield key, " ".join(map(str, value))
        elif isinstance(value, dict | list):
            yield key, json.dumps(value)
        else:
            yield key, str(value).lower() if isinstance(value, bool) else value
