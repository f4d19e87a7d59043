"""What job `distribute` measures.

Accuracies are fractions of 1, memory is the share of the network's weights and biases on the
device that holds most of them, and devices are numbered from 0.
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
    named,
)

SAFE_SPARE = "-safe-spare"  # ends the name of coded computing whose spare never fails


@dataclass(frozen=True)
class WholeNetwork:
    """With no device lost."""

    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class ScoresUsed:
    """Which scores of neurons placements are made from, and what these were measured on."""

    names: Sequence[str]
    normalise: str
    images: int
    source: str = named("from")  # "training", "search" or "importance run"
    divergence: str  # "exact" or "estimate"
    target: str


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a placement keeps when so many of its devices are lost.

    Scores, their scale, the substitute and the threshold stand here where they are not the
    experiment's own.
    """

    scores: str | None = None  # such as `l1+jsd`
    normalise: str | None = None
    substitute: str | None = None
    method: str
    devices: int
    failed: int
    threshold: float | None = None  # of all layers
    memory: float
    accuracy: Estimate  # the mean over the sets of lost devices

    @property
    def setting(self) -> tuple[int, int]:
        """How many devices there are, and how many of them are lost."""
        return self.devices, self.failed


@dataclass(frozen=True, kw_only=True)
class KeptBySets(Kept):
    """With the sets of lost devices that cost most and least."""

    accuracy_worst: float
    accuracy_best: float
    worst_failed: Sequence[int]
    best_failed: Sequence[int]
    sets: int
    sampled: bool  # the sets are some of those that there are, drawn at random


@dataclass(frozen=True, kw_only=True)
class MethodResult(KeptBySets):
    """A method on so many devices."""

    optimistic: float | None = None  # LOP, where the devices of least importance are lost
    difference: Estimate | None = None  # what RobustDiCE keeps more, on the same images
    memory_interval: Sequence[float] | None = None  # with other images to score neurons on


@dataclass(frozen=True, kw_only=True)
class FlipsResult(KeptBySets):
    """A method whose devices' bits flip while others are lost; rates by device."""

    trials: int
    weight_rate: Sequence[float]
    activation_rate: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class KeptBeside(Kept):
    """Beside another placement that lost the same devices, on the same images.

    The difference: what RobustDiCE keeps more; of a substitute, what it keeps more than zero does.
    """

    difference: Estimate | None = None


@dataclass(frozen=True)
class StabilityResult:
    """How much a placement depends on the images that neurons were scored on."""

    method: str
    devices: int
    images: int
    halvings: int
    memory: Estimate
    overlap: float  # of what placements from two halves of the images hold
    overlap_lowest: float
    overlap_highest: float


@dataclass(frozen=True)
class ResourcesResult:
    """What a device takes at most with no device lost, from a model of the board."""

    method: str
    devices: int
    memory_mb: float
    energy_j: float  # per image
    fps: float  # of all devices together
    memory: float


@dataclass(frozen=True)
class BoardUsed:
    """What `resources` are modelled for."""

    name: str
    link: str
    images: int
    batch: int


@dataclass(frozen=True)
class LayerPlacement:
    """Where RobustDiCE puts a layer's neurons; bit d of a neuron's number in `held` is device d."""

    layer: str
    neurons: int
    threshold: float
    clusters: int
    copies: float  # of a neuron, the mean
    held: Sequence[int]


@dataclass(frozen=True)
class ExpectedResult:
    """A method whose devices fail by chance, each with its probability."""

    method: str
    devices: int
    failure: Sequence[float]
    memory: float
    accuracy: Estimate
    deviation_run: float  # of a run's accuracy, where devices are lost for a whole run
    deviation_image: float  # and where each image meets failures of its own
    quantiles: Mapping[str, float]  # of a run's accuracy
    sets: int
    sampled: bool
    trials: int | None = None  # draws of flipped bits, where bits flip too


@dataclass(frozen=True, kw_only=True)
class ThresholdsResult:
    """Thresholds of groups of layers, measured on held-out images."""

    threshold: float | None = None  # where it is the same for all
    thresholds: Sequence[float]
    memory: float
    accuracy: Estimate
    search_accuracy: float  # on the images of the search
    energy_j: float
    fps: float


@dataclass(frozen=True)
class ThresholdGain:
    """What searched thresholds keep more than a constant one of no less memory."""

    memory: float
    searched: float
    constant: float
    difference: Estimate


@dataclass(frozen=True)
class ThresholdSearch:
    """The search for thresholds."""

    objective: str
    devices: int
    failed: int
    groups: int
    images: int
    evaluations: int  # placements under a set of lost devices
    front: Sequence[ThresholdsResult]
    constant: Sequence[ThresholdsResult]
    gain: Sequence[ThresholdGain]


@dataclass(frozen=True, kw_only=True)
class DistributeResult:
    """What every method keeps when devices are lost, what it costs, and what RobustDiCE needs."""

    model: ModelResult
    data: HeldOutImages
    format: NumberFormat
    clean: WholeNetwork
    scores: ScoresUsed
    substitute: str
    classifier: str
    thresholds: Sequence[float]
    methods: Sequence[MethodResult]
    stability: Sequence[StabilityResult] | None = None
    curve: Sequence[KeptBeside] | None = None
    ablation: Sequence[Kept] | None = None
    normalisations: Sequence[Kept] | None = None
    substitutes: Sequence[KeptBeside] | None = None
    resources: Sequence[ResourcesResult]
    board: BoardUsed
    placement: Sequence[LayerPlacement]
    notes: Sequence[NoteResult]
    expected: Sequence[ExpectedResult] | None = None
    flips: Sequence[FlipsResult] | None = None
    search: ThresholdSearch | None = None
    throughput: Speed

    @property
    def setting(self) -> tuple[int, int]:
        """The first number of devices, and the least of them that are lost, if any are."""
        devices = self.methods[0].devices
        losses = sorted(row.failed for row in self.methods if row.devices == devices)
        return devices, next(filter(None, losses), 0)

    def method(self, name: str, setting: tuple[int, int]) -> MethodResult | None:
        """A method's row at a number of devices and of those lost."""
        rows = (row for row in self.methods if (row.method, row.setting) == (name, setting))
        return next(rows, None)
