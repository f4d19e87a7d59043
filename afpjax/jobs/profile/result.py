"""What job `profile` measures."""

from collections.abc import Sequence
from dataclasses import dataclass

from afpjax.jobs.shared.result import CostResult, ModelResult


@dataclass(frozen=True)
class ProfileResult:
    """Latency, energy and memory of every layer on every device, for one batch."""

    model: ModelResult
    devices: Sequence[str]
    costs: Sequence[CostResult]
