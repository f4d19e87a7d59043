"""The story of job `serve`, and what it prints."""

import io

import pytest
from rich.console import Console

from afpjax.jobs.serve.summary import summary

from .servings import serving


def printed(result, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(summary(result))
    return out.getvalue()


def test_headline_says_how_requests_ended(read):
    assert read(serving()).headline == (
        "117 of 120 images were answered, 91.2 % of them right, with 2 of 4 devices lost."
    )
    assert "with no device lost" in read(serving(lost=0)).headline
    assert read({"job": "serve"}).headline == "An export, run for real"


def test_the_lead_says_whether_the_accuracy_was_foretold(read):
    result = serving()
    assert "Refused: 3 for “deadline”." in read(result).text
    assert "inside the interval that was predicted, [86.0, 94.0] %" in read(result).text
    assert "None was refused." in read(serving(refused=0)).text
    assert "outside the interval" in read({**result, "accuracy": 0.5}).text


def test_every_part_appears_and_those_without_data_do_not(read):
    parts = [
        "Accuracy with these devices lost",
        "Over time",
        "Speed",
        "Devices",
        "What was served",
    ]
    result = serving()
    assert read(result).headings == parts
    for key, gone in (("by_lost", [0]), ("throughput", [1, 2, 3]), ("export", [4])):
        left = read({k: v for k, v in result.items() if k != key}).headings
        assert left == [part for place, part in enumerate(parts) if place not in gone]


def test_tables_have_the_figures(read):
    page = read(serving())
    lost = page.table("lost", "answered")
    assert [row[0] for row in lost] == ["none", "a", "a, b"]
    assert [row[1] for row in lost] == ["39", "39", "39"]
    assert "90.0" in lost[0][2] and "91.0" in lost[0][3]
    devices = page.table("device", "process, MB")
    assert [row[-1] for row in devices] == ["0.10", "0.20", "–", "–"]
    deaths = page.table("device", "how")
    assert deaths[0] == ["a", "killed", "0.12", "20.5", "12.2", "4"]


def test_the_summary_has_devices_losses_and_speed_within_80_columns():
    text = printed(serving())
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    lines = text.splitlines()
    assert lines[1].split() == ["a", "142", "0.5", "0.10", "0.12"]
    said = " ".join(text.split())
    assert "120 images asked for, 117 answered, 3 refused (3 for `deadline`)." in said
    assert "91.2 % of the answers are right; predicted 90.5 % [86.0, 94.0]." in said
    assert "a, b 39 70.0 % 71.0 % [63.0, 76.0]" in said
    assert "21.0 ms (median), 55.5 (95 %), 123.0 (99 %)" in said


def test_why_and_what_came_over_http_is_said():
    more = {"refused_because": "b has no room", "http": {"requests": 9, "answered": 7}}
    said = " ".join(printed({**serving(), **more}).split())
    assert "Refused because: b has no room. Over HTTP: 9 images, 7 answered." in said


@pytest.mark.parametrize("lost", [0, 1])
def test_without_losses_nothing_is_said_of_them(lost):
    assert ("predicted, 95 % interval" in printed(serving(lost))) == bool(lost)
