"""What job `online` measures: streams of images under each policy, while the environment changes.

A trace is one environment; in rows of means, the trace `all` is all environments together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afpjax.jobs.partition.result import Point
from afpjax.jobs.shared.result import (
    DataResult,
    Estimate,
    FaultsResult,
    ModelResult,
    NoteResult,
    inline,
)

ALL = "all"


@dataclass(frozen=True)
class CleanStream:
    """Accuracy without faults, of held-out images."""

    accuracy: float
    images: int


@dataclass(frozen=True)
class StreamSettings:
    """The images: in a step, and of a step how many canaries, drawn from a pool of so many."""

    batch: int
    fps: float
    seeds: int
    canaries: int
    pool: int
    labels: bool  # of canaries are known; else a clean reference sees them too
    steps_per_hour: float


@dataclass(frozen=True)
class AlarmSettings:
    """The share of failing canaries that is tolerated, and the evidence at which an alarm comes."""

    limit: float
    alarm: float
    false_alarms_per_hour: float
    bound: str = "mean time between false alarms at least `alarm` batches"


@dataclass(frozen=True)
class SearchSettings:
    """What a search while the system runs may take."""

    budget_ms: float
    passes_per_s: float
    generations: int
    population: int


@dataclass(frozen=True)
class FalseAlarms:
    """Alarms in a stream at constant rates; `failing` is the expected share of canaries."""

    batches: int
    failing: float
    alarms: int
    alarms_per_hour: Estimate
    environment: str


@dataclass(frozen=True)
class PricedMapping:
    """A mapping of the offline front."""

    mapping: Sequence[int]
    latency_ms: float
    energy_mj: float


@dataclass(frozen=True)
class TraceResult:
    """One environment."""

    trace: str
    description: str
    steps: int


@dataclass(frozen=True)
class Means:
    """Means over streams, with 95 % intervals where there are several.

    `above` is the share of the time in which more than theta is lost.
    """

    accuracy: float
    accuracy_interval: tuple[float, float] | None
    above: float
    above_interval: tuple[float, float] | None
    latency_ms: float
    latency_ms_interval: tuple[float, float] | None
    energy_mj: float
    energy_mj_interval: tuple[float, float] | None
    switches: float
    switches_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy in an environment; `seeds` streams of it."""

    trace: str
    policy: str
    seeds: int
    means: Means = inline()
    alarms: float
    searches: float


@dataclass(frozen=True)
class PolicyGain:
    """What a policy has more than another one, paired stream by stream.

    Online against every other, and every other against the safest.
    """

    trace: str
    policy: str
    over: str
    means: Means = inline()


@dataclass(frozen=True)
class Moment:
    """A step of the first stream under a policy where anything changes, or its last."""

    trace: str
    policy: str
    step: int
    accuracy: float
    accuracy_drop: float
    latency_ms: float
    energy_mj: float
    worst_rate: float
    switched: bool


@dataclass(frozen=True)
class Rates:
    """Chances that a faulty bit flips, on each device."""

    weight: Sequence[float]
    activation: Sequence[float]


@dataclass(frozen=True)
class EstimatedRate:
    """A device's flip rate, as probes tell."""

    device: str
    rate: Estimate


@dataclass(frozen=True)
class Event:
    """A step of a stream: the environment, what runs, what canaries tell, what is decided.

    `latency`, `energy` and `present` are of each device; the first two are factors on its own.
    """

    step: int
    rates: Rates
    latency: Sequence[float]
    energy: Sequence[float]
    present: Sequence[bool]
    mapping: Sequence[int]
    accuracy: float
    accuracy_drop: float
    latency_ms: float
    energy_mj: float
    repartitioned: bool  # another mapping runs from this step on
    accuracy_observed: Estimate | None
    evidence: float | None
    reason: str | None  # of a decision after this step
    cut: bool | None  # its time was over
    expected_drop: float | None  # of what was decided
    estimated: Sequence[EstimatedRate] | None


@dataclass(frozen=True)
class SearchTimes:
    """How long searches took (`longest`), which decides nothing: see `online.passes_per_s`."""

    searches: int
    search_ms: Mapping[str, float]


@dataclass(frozen=True)
class OnlineResult:
    """AFarePart's online phase beside other policies."""

    model: ModelResult
    devices: Sequence[str]
    data: DataResult
    faults: FaultsResult
    notes: Sequence[NoteResult]
    clean: CleanStream
    theta: float
    stream: StreamSettings
    watch: AlarmSettings
    searches: SearchSettings
    false_alarms: Sequence[FalseAlarms]
    first: Point
    front: Sequence[PricedMapping]
    roles: Mapping[str, str]
    traces: Sequence[TraceResult]
    policies: Sequence[Policy]
    gains: Sequence[PolicyGain]
    timelines: Sequence[Moment]
    events: Sequence[Event]
    throughput: SearchTimes | None

    @property
    def overall(self) -> list[Policy]:
        """The policies over all environments, or in the only one."""
        return [row for row in self.policies if row.trace == self.policies[-1].trace]
