"""What job `importance` measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afpjax.jobs.shared.result import (
    DataName,
    Divergence,
    LayerScores,
    ModelResult,
    NoteResult,
    ScoredImages,
    inline,
)


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
