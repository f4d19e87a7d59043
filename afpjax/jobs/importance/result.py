"""What job `importance` measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afpjax.jobs.shared.result import Array, DataName, ModelResult, NoteResult, inline, named


@dataclass(frozen=True)
class ScoredImages:
    """How many images the scores are made from, of which set."""

    count: int
    source: str = named("from")


@dataclass(frozen=True)
class Divergence:
    """How the Jensen-Shannon divergence was measured, and what exact ones would have taken."""

    unit: str
    method: str  # "exact" or "estimate"
    exact_passes: float  # passes of an image
    limit: int
    classes: int | None = None  # the likeliest, that an estimate follows
    neglected: float | None = None  # probability of the others
    sample_images: int | None = None


@dataclass(frozen=True)
class LayerScores:
    """Scores of one layer's neurons, [C] each, and how good an estimated divergence is."""

    name: str
    l1: Array
    taylor: Array
    jsd: Array
    drop: Array | None  # accuracy lost without each neuron, where all were left out
    jsd_method: str
    jsd_error: float | None = None  # root mean square, of neurons that were left out
    jsd_sample_mean: float | None = None
    jsd_sampled: int | None = None
    jsd_rank_correlation: float | None = None


@dataclass(frozen=True)
class CleanAccuracy:
    accuracy: float


@dataclass(frozen=True)
class LayerCorrelations:
    """Rank correlations within a layer, by pair of scores; a pair that has none is left out."""

    layer: str
    pairs: Mapping[str, float] = inline()


@dataclass(frozen=True)
class Correlations:
    """Spearman's rank correlations of pairs of scores, over all neurons and within layers."""

    all: Mapping[str, float]
    layers: Sequence[LayerCorrelations]


@dataclass(frozen=True)
class Neuron:
    """One neuron's scores, and what leaving it out did where it was left out."""

    layer: str
    neuron: int
    l1: float
    taylor: float
    jsd: float
    drop: float | None = None
    jsd_left_out: float | None = None  # its divergence, where `jsd` is an estimate


@dataclass(frozen=True)
class ImportanceResult:
    """Scores of every neuron, and how far they agree."""

    model: ModelResult
    data: DataName
    images: ScoredImages
    clean: CleanAccuracy
    notes: Sequence[NoteResult]
    target: str
    divergence: Divergence
    layers: Sequence[LayerScores]
    correlations: Correlations
    neurons: Sequence[Neuron]
