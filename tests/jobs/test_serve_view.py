"""What job `serve` says of its result."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from afpjax.jobs.serve.result import HttpResult, ServeResult
from afpjax.jobs.serve.view import view
from afpjax.jobs.shared.result import Estimate, plain, read
from afpjax.report.render import terminal

GOLDEN = Path(__file__).parents[1] / "golden" / "serve.json"
NAMES = ["a", "b", "c", "d"]


def serving(lost: int = 2, refused: int = 3) -> ServeResult:
    answered = 120 - refused
    share = [answered // (lost + 1)] * lost
    record = {
        "model": {"name": "toy", "layers": []},
        "notes": [],
        "data": {"name": "digits", "images": 384},
        "export": {
            "kind": "placement",
            "method": "robustdice",
            "devices": 4,
            "tasks": 9,
            "batch": 1,
            "digest": "d",
            "format": "float32",
        },
        "requests": 120,
        "answered": answered,
        "refused": refused,
        "fps": 123.4,
        "latency_ms": {"p50": 21.0, "p95": 55.5, "p99": 123.0},
        "accuracy": 0.912,
        "accuracy_interval": [0.85, 0.95],
        "predicted": 0.905,
        "predicted_interval": [0.86, 0.94],
        "agreement": 0.995,
        "refusals": [{"reason": "deadline", "count": refused}] if refused else [],
        "by_lost": _by_lost([*share, answered - sum(share)]),
        "predicted_cost": {
            "fps": 45.6,
            "latency_ms": 33.3,
            "hardware": "4 boards of a kind",
            "batch": 1,
        },
        "devices": _devices(lost),
        "throughput": {
            "redone": 5,
            "serving_s": 0.95,
            "latency_ms": {
                "mean": 25.0,
                "max": 130.0,
                "histogram": {"counts": [100, 10, answered - 110], "edges": [10, 50, 90, 130]},
            },
            "timeline": {"step_s": 0.5, "answered": [60, answered - 60], "refused": [0, refused]},
            "devices": [
                {"device": name, "base_mb": 88.0, **({"lost_at": 0.12} if place < lost else {})}
                for place, name in enumerate(NAMES)
            ],
            "losses": _losses(lost),
        },
    }
    return read(ServeResult, record)


def _by_lost(answered: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "lost": NAMES[:count],
            "answered": number,
            "accuracy": 0.9 - 0.1 * count,
            "accuracy_interval": [0.8 - 0.1 * count, 0.95 - 0.1 * count],
            "predicted": 0.91 - 0.1 * count,
            "predicted_interval": [0.83 - 0.1 * count, 0.96 - 0.1 * count],
            "agreement": 1.0,
        }
        for count, number in enumerate(answered)
    ]


def _devices(lost: int) -> list[dict[str, Any]]:
    return [
        {
            "device": name,
            "memory_mb": 142.5 + place,
            "model_mb": 0.5,
            "limit_mb": 8000.0,
            **({"killed_at": 0.1 * (place + 1)} if place < lost else {}),
        }
        for place, name in enumerate(NAMES)
    ]


def _losses(lost: int) -> list[dict[str, Any]]:
    return [
        {
            "device": NAMES[place],
            "how": "killed",
            "at_s": 0.12,
            "asked": 20,
            "redone": 4,
            "lost": NAMES[: place + 1],
            "noticed_ms": 20.5,
            "back_ms": 12.25,
        }
        for place in range(lost)
    ]


def printed(result: ServeResult, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(terminal(view(result)))
    return out.getvalue().replace("\u00a0", " ")


def test_headline_says_how_requests_ended(shown):
    assert shown(view(serving())).headline == (
        "117 of 120 images were answered, 91.2 % of them right, with 2 of 4 devices lost."
    )
    assert "with no device lost" in shown(view(serving(lost=0))).headline


def test_the_lead_says_whether_the_accuracy_was_predicted(shown):
    result = serving()
    assert "Refused: 3 for “deadline”." in shown(view(result)).text
    assert "inside the interval that was predicted, [86.0, 94.0] %" in shown(view(result)).text
    assert "None was refused." in shown(view(serving(refused=0))).text
    worse = replace(result, accuracy=Estimate(0.5, 0.4, 0.6))
    assert "outside the interval" in shown(view(worse)).text


def test_tables_have_the_figures(shown):
    page = shown(view(serving()))
    lost = page.table("lost", "answered")
    assert [row[:2] for row in lost] == [["none", "39"], ["a", "39"], ["a, b", "39"]]
    assert "90.0" in lost[0][2] and "91.0" in lost[0][3]
    devices = page.table("device", "process, MB")
    assert [row[-2] for row in devices] == ["0.10", "0.20", "–", "–"]
    deaths = page.table("device", "how")
    assert deaths[0] == ["a", "killed", "0.12", "20.5", "12.2", "4"]
    assert page.table("", "measured")[0] == ["images per second", "123", "45.6"]


def test_the_summary_has_devices_losses_and_speed_within_80_columns():
    text = printed(serving())
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert ["a", "142", "0.500", "0.10", "0.12"] in [line.split() for line in text.splitlines()]
    said = " ".join(text.split())
    assert "120 images asked for, 117 answered, 3 refused (3 for `deadline`)." in said
    assert "91.2 % of the answers are right; predicted 90.5 % [86.0, 94.0]." in said
    assert "21.0 ms (median), 55.5 (95 %), 123.0 (99 %)" in said


def test_why_and_what_came_over_http_is_said():
    result = replace(serving(), refused_because="b has no room", http=HttpResult(9, 7, []))
    said = " ".join(printed(result).split())
    assert "Refused because: b has no room. Over HTTP: 9 images, 7 answered." in said


@pytest.mark.parametrize("lost", [0, 1])
def test_without_losses_nothing_is_said_of_them(lost):
    assert ("answered" in printed(serving(lost)).split("images asked")[0]) == bool(lost)


def test_result_json_is_read_back_as_it_was():
    record = plain(serving())
    assert plain(read(ServeResult, record)) == record
    assert [*json.loads(GOLDEN.read_text())][2:6] == [*record][:4]
