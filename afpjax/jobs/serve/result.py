"""What job `serve` measures: how requests ended and how fast, and what became of devices.

`fps`, the percentiles of `latency_ms`, `memory_mb` and `killed_at` stand where they are looked for
and are never twice the same; what else is measured of time and memory is `throughput`. Where
devices die or images are late, time also decides which images that meets, and the counts of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from afpjax.jobs.shared.result import Estimate, ModelResult, NoteResult


@dataclass(frozen=True)
class ServedImages:
    """The held-out images that requests are drawn from."""

    name: str
    images: int


@dataclass(frozen=True)
class ServedFiles:
    """The export that was served."""

    kind: str
    method: str
    devices: int
    tasks: int
    batch: int
    digest: str
    format: str


@dataclass(frozen=True)
class Percentiles:
    """Latency of answers, ms."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Refusal:
    """How many requests were refused for a reason."""

    reason: str
    count: int


@dataclass(frozen=True)
class HttpResult:
    """Requests that came over HTTP."""

    requests: int
    answered: int
    refusals: Sequence[Refusal]


@dataclass(frozen=True)
class LostSet:
    """Measured beside predicted accuracy while exactly these devices were lost.

    `agreement`: the share of answers that are right or wrong where afpjax's own are.
    """

    lost: Sequence[str]
    answered: int
    accuracy: Estimate
    predicted: Estimate
    agreement: float


@dataclass(frozen=True)
class PredictedCost:
    """What the cost model has for the hardware that was planned for."""

    fps: float
    latency_ms: float
    hardware: str
    batch: int


@dataclass(frozen=True)
class ServedDevice:
    """Memory of a device's process, what its model was to take, and when it was killed (s)."""

    device: str
    memory_mb: float
    model_mb: float
    limit_mb: float
    killed_at: float | None


@dataclass(frozen=True)
class Histogram:
    """How many answers took how long: `counts` between `edges`, ms."""

    counts: Sequence[int]
    edges: Sequence[float]


@dataclass(frozen=True)
class Latency:
    """Latency of answers, ms."""

    mean: float
    max: float
    histogram: Histogram


@dataclass(frozen=True)
class Timeline:
    """Answers and refusals in equal parts of the run's time."""

    step_s: float
    answered: Sequence[int]
    refused: Sequence[int]


@dataclass(frozen=True)
class DeviceEnd:
    """Memory before a device had anything to run; when and how it was found lost."""

    device: str
    base_mb: float
    lost_at: float | None = None
    how: str | None = None


@dataclass(frozen=True)
class LossResult:
    """How and when a loss was noticed, and when the next answer came without the device."""

    device: str
    how: str
    at_s: float
    asked: int
    redone: int
    lost: Sequence[str]
    noticed_ms: float | None
    back_ms: float | None


@dataclass(frozen=True)
class Throughput:
    """Times of the serving, and of each loss."""

    serving_s: float
    redone: int
    latency_ms: Latency
    timeline: Timeline
    devices: Sequence[DeviceEnd]
    losses: Sequence[LossResult]


@dataclass(frozen=True)
class ServeResult:
    """An export run for real, every device a process.

    `fps` counts answers, from the first question to the last end. `predicted` is afpjax's accuracy
    on all held-out images, weighted by how many were answered under each set of lost devices.
    """

    model: ModelResult
    notes: Sequence[NoteResult]
    data: ServedImages
    export: ServedFiles
    requests: int
    answered: int
    refused: int
    fps: float
    latency_ms: Percentiles
    accuracy: Estimate
    refusals: Sequence[Refusal]
    http: HttpResult | None
    refused_because: str | None
    predicted: Estimate
    agreement: float
    by_lost: Sequence[LostSet]
    predicted_cost: PredictedCost
    devices: Sequence[ServedDevice]
    throughput: Throughput
