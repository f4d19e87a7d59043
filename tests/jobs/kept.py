"""Results of the golden runs, as views take them, and what the terminal shows of a view."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from afpjax.jobs.campaign.result import CampaignResult, MasksResult
from afpjax.jobs.distribute.result import DistributeResult
from afpjax.jobs.export.result import ExportResult
from afpjax.jobs.importance.result import ImportanceResult
from afpjax.jobs.online.result import OnlineResult
from afpjax.jobs.partition.result import PartitionResult
from afpjax.jobs.profile.result import ProfileResult
from afpjax.jobs.serve.result import ServeResult
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import Estimate, plain, read
from afpjax.report.render import terminal
from afpjax.report.view import View

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS: dict[str, type] = {
    "partition": PartitionResult,
    "partition-searched": PartitionResult,
    "online": OnlineResult,
    "distribute": DistributeResult,
    "campaign": CampaignResult,
    "campaign-bernoulli": MasksResult,
    "campaign-listed": CampaignResult,
    "importance": ImportanceResult,
    "profile": ProfileResult,
    "export": ExportResult,
    "serve": ServeResult,
}
#: What golden runs leave out: it is never twice the same.
SPEED = {
    "inferences_per_second": 9312.4,
    "clean_inferences_per_second": 7281.9,
    "passes": 153600,
}
SERVED = {
    "fps": 123.4,
    "latency_ms": {"p50": 21.0, "p95": 55.5, "p99": 123.0},
    "throughput": {
        "serving_s": 0.95,
        "redone": 5,
        "latency_ms": {
            "mean": 25.0,
            "max": 130.0,
            "histogram": {"counts": [10, 4, 2], "edges": [10, 50, 90, 130]},
        },
        "timeline": {"step_s": 0.5, "answered": [6, 10], "refused": [0, 0]},
        "devices": [
            {"device": name, "base_mb": 88.0} for name in ("eyeriss", "simba", "simba-ecc")
        ],
        "losses": [],
    },
}


def record(name: str) -> dict[str, Any]:
    """What result.json has of a golden run beside the command's own keys."""
    found = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    found = {key: value for key, value in found.items() if key not in ("job", "seed")}
    if name.startswith(("campaign", "distribute")):
        found["throughput"] = dict(SPEED)
    if name == "serve":
        found |= SERVED
        found["devices"] = [each | {"memory_mb": 142.5} for each in found["devices"]]
    return found


def kept(name: str, marked: str = "") -> Any:
    """The result; with `marked`, the names of layers, devices and traces begin with that."""
    found = record(name)
    if marked:
        names = [layer["name"] for layer in found["model"]["layers"]]
        devices = found.get("devices", [])
        names += [each if isinstance(each, str) else each["device"] for each in devices]
        names += [each["trace"] for each in found.get("traces", [])]
        named = "|".join(map(re.escape, names))
        text = re.sub(rf'"(?=({named})["/](?!:))', f'"{marked}', json.dumps(found))
        found = json.loads(text)
    return read(KINDS[name], found)


def once(view: Callable[[Any], View]) -> Callable[[Any], View]:
    """The view, whose figures take seconds to draw, made once for equal results."""
    known: dict[str, View] = {}

    def made(result: Any) -> View:
        text = result_text(plain(result))
        if text not in known:
            known[text] = view(result)
        return known[text]

    return made


def about(value: float, width: float = 0.02) -> Estimate:
    """An estimate whose interval ends `width` away, or at 0 or 1."""
    return Estimate(value, max(value - width, 0.0), min(value + width, 1.0))


def printed(view: View, width: int = 80) -> str:
    """What the terminal shows, without colours."""
    out = io.StringIO()
    Console(file=out, width=width).print(terminal(view))
    return out.getvalue().replace("\u00a0", " ")
