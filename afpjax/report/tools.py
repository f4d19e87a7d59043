"""The tools that job `partition` compares, the kinds of fault, and their rows in its result."""

from collections.abc import Mapping
from typing import Any, Final

from afpjax.report.story import Result

__all__ = ["SCENARIOS", "TOOL_NAMES", "find_row", "worst_rate"]

TOOL_NAMES: Final = {
    "cnnparted": "CNNParted",
    "fault-unaware": "Fault-unaware",
    "afarepart": "AFarePart",
}
SCENARIOS: Final = {
    "weights": "Faults in weights",
    "activations": "Faults in activations",
    "both": "Faults in weights and activations",
}
_RATES: Final = {
    "weights": ("weight_rate",),
    "activations": ("activation_rate",),
    "both": ("weight_rate", "activation_rate"),
}


def find_row(result: Result, tool: str, scenario: str = "both") -> Mapping[str, Any] | None:
    """The table's row for this tool and scenario, if it is there."""
    for row in result.get("table", ()):
        if row["tool"] == tool and row["scenario"] == scenario:
            return row
    return None


def worst_rate(result: Result, scenario: str) -> float | int | None:
    """The highest flip rate of any device in what this scenario strikes, as configured."""
    faults = result.get("faults", {})
    return max((rate for key in _RATES[scenario] for rate in faults.get(key, ())), default=None)
