"""No feature is lost: `features.json` lists every one that users can name."""

import json
from collections.abc import Iterator
from typing import Any

from . import features as listing


def flat(value: Any, path: str = "") -> Iterator[str]:
    """Every leaf and every key with the way to it."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from flat(inner, f"{path} / {key}")
    elif isinstance(value, list):
        yield from (f"{path}: {entry}" for entry in value)
    else:
        yield f"{path}: {value}"


def test_the_list_of_features_is_what_there_is():
    """What is missing was lost; what is new has to be entered: `python tests/features.py`."""
    known = json.loads(listing.FILE.read_text(encoding="utf-8"))
    today = {**listing.features(), "files": known["files"]}
    before, now = set(flat(known)), set(flat(json.loads(json.dumps(today))))
    assert sorted(before - now) == [], "lost"
    assert sorted(now - before) == [], "new"


def test_the_reader_of_help_sees_what_an_option_says():
    text = (
        "usage\n--a.rate X ...\nchance, 0 to 1\n(default: the devices' own)\n"
        "--seed N, --a.seed N start, 0 to 9 (default: 3)\n--a.kind NAME one of\nx, y-z "
        "(default: y-z)\nb options\n--resume go on"
    ).replace("\\\n", "\n")
    assert listing.options(text) == {
        "a.rate": {"type": "X ...", "range": [0.0, 1.0]},
        "a.seed": {"type": "N", "also": ["--seed"], "range": [0.0, 9.0], "default": [3.0]},
        "a.kind": {"type": "NAME", "choices": ["x", "y-z"], "default": ["y-z"]},
        "resume": {},
    }


def test_key_paths_take_the_records_of_a_list_together():
    result = {"a": [{"b": 1}, {"c": [2, {"d": 3}]}]}
    assert set(listing.key_paths(result)) == {"a", "a[].b", "a[].c", "a[].c[].d"}
