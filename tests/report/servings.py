"""A result of job `serve`, made by hand."""

from collections.abc import Sequence
from typing import Any

NAMES = ["a", "b", "c", "d"]


def serving(lost: int = 2, refused: int = 3) -> dict[str, Any]:
    answered = 120 - refused
    share = [answered // (lost + 1)] * lost
    return {
        "job": "serve",
        "version": "0.6.0",
        "seed": 0,
        "model": {"name": "toy", "layers": []},
        "data": {"name": "digits", "images": 384},
        "export": {"kind": "placement", "method": "robustdice", "devices": 4, "batch": 1},
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
