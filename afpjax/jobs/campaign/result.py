"""What job `campaign` measures: how often faults change an image's class, where, and how they end.

A cell is what one answer is given for: some faults of a target (weights, activations, or data that
cross a link). Rates and shares are fractions of (fault, image) pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afpjax.jobs.shared.result import (
    Estimate,
    HeldOutImages,
    ModelResult,
    NoteResult,
    NumberFormat,
    Speed,
    inline,
    named,
)

ALL = "all"  # layers, or bits


@dataclass(frozen=True)
class CleanImages:
    """Without faults."""

    accuracy: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Design:
    """Which faults were struck, how many, and what the figures are estimates of."""

    name: str  # single, neyman, exhaustive, bernoulli or listed
    fault: str
    faults_per_trial: int | None = None
    estimand: Mapping[str, str]  # by target
    interval: str
    margin: float | None = None
    confidence: float
    level: float  # that intervals are computed at, so that those of cells that stop early cover too
    population: int | None = None  # faults that there are
    trials: int
    strata: int
    not_finite: str


@dataclass(frozen=True, kw_only=True)
class Struck:
    """Where faults were struck; masks also say how often, and on which device that is."""

    layer: str
    bit: int | str
    target: str
    rate: float | None = None
    device: str | None = None

    @property
    def setting(self) -> tuple[float | None, str | None]:
        """Rate and device."""
        return self.rate, self.device


@dataclass(frozen=True)
class Endings:
    """Shares of pairs by how they end; tolerable ones keep their class and its probability."""

    masked: float
    tolerable: float
    sdc1: float
    sdc5: float
    sdc10: float
    sdc20: float
    non_finite: float

    @property
    def shaken(self) -> float:
        """What else there is: the class is kept, but not its probability."""
        return max(0.0, 1 - (self.masked + self.tolerable + self.sdc1 + self.non_finite))


@dataclass(frozen=True, kw_only=True)
class CellResult(Struck):
    """What was found of one cell."""

    site: str | None = None  # of a single fault that was named
    trials: int
    images: int
    population: int | None = None
    accuracy: Estimate
    sdc_rate: Estimate
    critical_rate: Estimate | None = None  # faults that change any image's class
    endings: Endings = inline()


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often faults turned one class into another."""

    before: int = named("from")
    after: int = named("to")
    count: int


@dataclass(frozen=True, kw_only=True)
class WorstFault(Struck):
    """A trial that changes many images; it has no sites where it is a mask."""

    trial: int
    sdc_rate: float
    sites: Sequence[str] | None = None
    same_in_every_image: bool | None = None


@dataclass(frozen=True)
class Changed:
    """An image whose class a named fault changed."""

    site: str
    image: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class PublishedShare:
    """Of a layer's faults, a bit's, or all: our share of changed classes beside theirs."""

    layer: str | None = None
    bit: int | None = None
    faults: int
    sdc_rate: Estimate
    published_rate: float
    inside: bool  # theirs lies in our interval


@dataclass(frozen=True)
class MaskedShares:
    """Pairs whose logits are all equal to those without the fault, here and there."""

    rate: float
    published_rate: float


@dataclass(frozen=True)
class Scores:
    """Standard scores of faults that are often enough critical, and often enough not."""

    expected_images: int  # at least so many are expected to be, of both
    faults: int
    rms: float | None = None
    mean: float | None = None
    inside: float | None = None  # share within what 19 in 20 should be


@dataclass(frozen=True)
class PublishedResult:
    """What others measured of a list's faults beside what was measured here."""

    faults: int
    images: int
    published_images: int
    confidence: float
    whole: PublishedShare
    masked: MaskedShares
    scores: Scores
    bits_inside: int
    bits: Sequence[PublishedShare]
    layers_inside: int
    layers: Sequence[PublishedShare]


@dataclass(frozen=True, kw_only=True)
class Predicted(Struck):
    """The loss that a cell's faults should add, from one backward pass, beside its SDC rate."""

    predicted: float
    sdc_rate: float


@dataclass(frozen=True)
class TargetCorrelation:
    """How far predictions order a target's cells as they were measured (rank correlation)."""

    target: str
    cells: int
    spearman: float


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was struck."""

    model: ModelResult
    data: HeldOutImages
    format: NumberFormat
    clean: CleanImages
    targets: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a design found."""

    design: Design
    cells: Sequence[CellResult]
    confusion: Sequence[Confusion]
    worst: Sequence[WorstFault] | None = None
    changed: Sequence[Changed] | None = None
    published: PublishedResult | None = None


@dataclass(frozen=True, kw_only=True)
class CampaignResult(Found, Subject):
    """How vulnerable a network is, where, and with what certainty."""

    notes: Sequence[NoteResult]
    vulnerability: Sequence[Predicted] | None = None
    vulnerability_correlation: Sequence[TargetCorrelation] | None = None
    throughput: Speed


@dataclass(frozen=True, kw_only=True)
class _NotesFirst(Subject):
    notes: Sequence[NoteResult]


@dataclass(frozen=True, kw_only=True)
class MasksResult(CampaignResult, _NotesFirst):
    """Of a campaign of masks, whose notes stand before its design in result.json."""
