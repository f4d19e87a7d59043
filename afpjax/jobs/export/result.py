"""What job `export` gives: the files, what is sent to whom, and if they agree with afpjax."""

from collections.abc import Sequence
from dataclasses import dataclass

from afpjax.jobs.distribute.result import StabilityResult
from afpjax.jobs.shared.result import DataName, Estimate, ModelResult, NoteResult, named


@dataclass(frozen=True)
class FormatResult:
    """The number format that the network was exported in."""

    kind: str
    bits: int


@dataclass(frozen=True)
class FileResult:
    """A device's file: what enters and leaves it, and what it takes, in bytes."""

    device: str
    file: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    sha256: str
    layers: int
    tasks: int
    file_bytes: int
    weight_bytes: int
    activation_bytes: int  # the most that it holds at once for a batch


@dataclass(frozen=True)
class NeuronsHeld:
    """How many of a layer's neurons, or coded sums of them, every device computes."""

    layer: str
    neurons: int
    held: Sequence[int]


@dataclass(frozen=True)
class TaskResult:
    """Work that one device does without waiting."""

    task: str
    device: str
    inputs: Sequence[str]
    outputs: Sequence[str]


@dataclass(frozen=True)
class SendResult:
    """A tensor that goes from a device to another for every batch."""

    tensor: str
    source: str = named("from")
    target: str = named("to")
    bytes: int = named("bytes")


@dataclass(frozen=True)
class Agreement:
    """The same test images through onnxruntime and through afpjax.

    `top1`: share of images with the same class; `largest_difference`: of two logits, as a share of
    the range of afpjax's.
    """

    images: int
    top1: Estimate
    largest_difference: float
    accuracy: float
    afpjax_accuracy: float


@dataclass(frozen=True)
class LostDevice:
    """A device lost alone; `alike`: share of images that are right in both or wrong in both."""

    device: str
    images: int
    alike: float
    accuracy: Estimate
    afpjax_accuracy: float


@dataclass(frozen=True)
class ExportResult:
    """An export, its files checked where onnxruntime is installed."""

    model: ModelResult
    notes: Sequence[NoteResult]
    data: DataName
    format: FormatResult
    kind: str
    method: str
    source: str
    devices: Sequence[str]
    batch: int
    parts: Sequence[FileResult]
    mapping: Sequence[int] | None
    placement: Sequence[NeuronsHeld] | None
    substitute: str | None  # what a lost neuron gives
    tasks: Sequence[TaskResult]
    sends: Sequence[SendResult]
    agreement: Agreement | None
    lost: Sequence[LostDevice] | None
    stability: Sequence[StabilityResult] | None  # of a placement: how far it depends on images
