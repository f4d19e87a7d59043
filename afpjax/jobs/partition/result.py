"""What job `partition` measures."""

from collections.abc import Sequence
from dataclasses import dataclass

from afpjax.jobs.shared.result import (
    CostResult,
    DataResult,
    Estimate,
    FaultsResult,
    ModelResult,
    NoteResult,
)


@dataclass(frozen=True)
class CleanResult:
    """Accuracy without faults: held-out images, the search's, and the former in floating point."""

    accuracy: float
    search_accuracy: float
    float_accuracy: float
    images: int
    trials: int  # fault draws that everything else was measured under


@dataclass(frozen=True)
class Flips:
    """Bits flipped in a layer: per trial in its weights, per image in its activations."""

    layer: str
    weights: float
    activations: float


@dataclass(frozen=True)
class Point:
    """A mapping (the device's number of each layer), measured on held-out images."""

    mapping: Sequence[int]
    latency_ms: float
    energy_mj: float
    accuracy: Estimate
    accuracy_drop: float
    flips: Sequence[Flips] | None = None  # of the one that is selected


@dataclass(frozen=True)
class Row:
    """A tool's mapping under one kind of fault."""

    tool: str
    scenario: str
    accuracy: Estimate
    latency_ms: float
    energy_mj: float
    mapping: Sequence[int]


@dataclass(frozen=True)
class Advantage:
    """What a tool's mapping keeps more than another's, on the same draws and images."""

    scenario: str
    over: str
    difference: Estimate
    tool: str | None = None  # whose mapping keeps more; None: AFarePart's


@dataclass(frozen=True)
class Draws:
    """How many mappings met how many fault draws."""

    draws: int
    mappings: int


@dataclass(frozen=True)
class Effort:
    """Passes of an image under faults that a search took, of `total` where it was limited."""

    total: int | None
    spent: int
    draws: Sequence[Draws]


@dataclass(frozen=True)
class SearchResult:
    """How the front was found; `reference_point` is (ms, mJ, accuracy drop)."""

    method: str
    generations: int
    evaluations: int
    hypervolume: float
    reference_point: Sequence[float]
    history: Sequence[float]  # hypervolume after each generation
    effort: Effort | None = None


@dataclass(frozen=True)
class Sensitivity:
    """A layer on a device: the accuracy with faults in it alone, and in all layers but it."""

    layer: str
    device: str
    alone: Estimate
    all_but: Estimate


@dataclass(frozen=True)
class SweepPoint:
    """A tool's mapping with all rates scaled together; `rate` is the highest of any device."""

    tool: str
    scenario: str
    rate: float
    accuracy: Estimate


@dataclass(frozen=True)
class AllowancePoint:
    """The best mapping at `factor` times the allowance, measured on held-out images.

    `latency` and `energy` are the shares that it may cost more than the fault-unaware choice;
    `regained` is the share of that one's loss, on the same draws and images.
    """

    factor: float
    latency: float
    energy: float
    mapping: Sequence[int]
    latency_ms: float
    energy_mj: float
    accuracy: Estimate
    regained: Estimate | None = None


@dataclass(frozen=True)
class CurveResult:
    """What more latency and energy buys. `accuracy` and `lost` are the fault-unaware choice's.

    Factors of the allowance: `knee`, after which more buys least; `least` that regains the share
    `target`; `helps`, the least with which more is right, beyond chance.
    """

    accuracy: Estimate
    lost: float
    target: float
    points: Sequence[AllowancePoint]
    knee: float | None
    least: float | None
    helps: float | None
    passes: int  # of an image under faults, for the curve alone


@dataclass(frozen=True)
class FormatRow:
    """The fault-unaware mapping in a number format of the experiment's width, held out.

    `clean` without faults, `accuracy` with faults in weights and activations. `difference` to the
    experiment's own format and `regained`, the share of what faults take there, are on the same
    draws and images; None for that format itself, and where faults take nothing from it.
    """

    format: str
    scale: str
    frac: int | None  # bits after the binary point, None where scales are calibrated
    clean: Estimate
    accuracy: Estimate
    difference: Estimate | None = None
    regained: Estimate | None = None


@dataclass(frozen=True)
class LearntResult:
    """How the search that learns went, under one kind of fault.

    `maximal`: how many mappings within the allowance cannot err less, where they are few. `factor`:
    on all fault rates, at which single moves said something.
    """

    scenario: str
    method: str
    maximal: int | None
    passes: int
    factor: float


@dataclass(frozen=True)
class PartitionResult:
    """AFarePart's mapping beside its baselines'."""

    model: ModelResult
    devices: Sequence[str]
    data: DataResult
    faults: FaultsResult
    notes: Sequence[NoteResult]
    clean: CleanResult
    selected: Point
    table: Sequence[Row]
    advantages: Sequence[Advantage]
    front: Sequence[Point]
    search: SearchResult
    sensitivity: Sequence[Sensitivity]
    sweep: Sequence[SweepPoint]
    costs: Sequence[CostResult]
    surrogate: Sequence[LearntResult] | None = None
    curve: CurveResult | None = None
    formats: Sequence[FormatRow] | None = None  # the experiment's own first

    @property
    def tools(self) -> list[str]:
        """The tools of the table, in its order."""
        return list(dict.fromkeys(row.tool for row in self.table))

    @property
    def best(self) -> str:
        """The tool whose mapping is selected."""
        rows = [self.row(tool) for tool in ("surrogate", "afarepart") if tool in self.tools]
        chosen = [row.tool for row in rows if list(row.mapping) == list(self.selected.mapping)]
        return chosen[0] if chosen else "afarepart"

    def row(self, tool: str, scenario: str = "both") -> Row:
        """A tool's row of the table."""
        return next(r for r in self.table if (r.tool, r.scenario) == (tool, scenario))
