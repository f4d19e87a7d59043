"""manifest.json of an export: which device runs what, and what is sent to whom.

Without JAX: a device's process needs NumPy, onnx and onnxruntime only.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from afpjax import __version__
from afpjax.inputs.errors import InputError, shortened
from afpjax.inputs.files import MIB, PART, Kind, read_bytes, understood
from afpjax.neurons.placement import Placement

NAME = "manifest.json"
_WHOLE = Kind("manifest of a whole export; export again", 32 * MIB)
_MOST_BYTES = 2**31  # that a tensor, or a batch of images, may have

Count = Annotated[int, Field(ge=0, le=2**53)]  # JSON's readers agree on whole numbers up to there
Positive = Annotated[float, Field(gt=0)]


class _Record(BaseModel):
    """Of a file, every value has the type that its field says; unknown keys are left out."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


class ModelInfo(_Record):
    """The network that was exported; `digest` is of its program's shapes and its parameters."""

    name: str
    digest: str
    layers: tuple[str, ...]


_Shaped = TypeVar("_Shaped", bound="TensorInfo | ImageFormat")


def _has_a_size(record: _Shaped) -> _Shaped:
    kind = np.dtype(record.dtype)
    size = float(np.prod(record.shape, dtype=np.float64)) * kind.itemsize
    if kind.kind not in "biuf" or min(record.shape, default=0) <= 0 or size > _MOST_BYTES:
        raise ValueError("it has no size, or more than 2 GiB")
    return record


class TensorInfo(_Record):
    """A named tensor that enters or leaves a task, batch included."""

    shape: tuple[Count, ...]
    dtype: str

    _size = model_validator(mode="after")(_has_a_size)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class ImageFormat(_Record):
    """What the network reads, batch included: (uint8 / 255 - mean) / std, channels last."""

    tensor: str
    shape: tuple[Count, ...]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    _size = model_validator(mode="after")(_has_a_size)

    @model_validator(mode="after")
    def _by_channel(self) -> "ImageFormat":
        if not {len(self.mean), len(self.std)} <= {1, self.shape[-1]}:
            raise ValueError("mean and std are not of its channels")
        return self


def _without_folder(file: str) -> str:
    if Path(file).name != file:
        raise ValueError("a file lies outside its folder")
    return file


class DeviceFile(_Record):
    """One device and its ONNX file."""

    device: str
    file: Annotated[str, AfterValidator(_without_folder)]
    sha256: str
    weight_bytes: Count
    activation_bytes: Count  # most that it holds at once for a batch, what it reads included


class DeviceTask(_Record):
    """Work that one device does without waiting: from the tensors it reads to those it makes."""

    task: str
    device: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class LayerPieces(_Record):
    """A layer's tensor, put together from what the devices make of it along `axis`.

    Device d makes the tensor `made[d]`, whose i-th slice is neuron `neurons[d][i]`; a device
    without neurons makes none (""). Behind its own, device `spare` (-1: there is none) makes
    `sums` of the others' neurons (coded distributed computing): whose, sum by sum. `substitute` has
    the value of each neuron that is lost.
    """

    layer: str
    axis: Count
    made: tuple[str, ...]
    neurons: tuple[tuple[Count, ...], ...]
    substitute: tuple[float, ...]
    sums: tuple[tuple[Count, ...], ...] = ()
    spare: Annotated[int, Field(ge=-1)] = -1


class TensorTransfer(_Record):
    """A tensor, or piece of one, that goes from a device to another for every batch."""

    tensor: str
    bytes: Count
    source: Annotated[str, Field(alias="from")]
    target: Annotated[str, Field(alias="to")]


class Manifest(_Record):
    """An export. Tasks are in an order in which they can run; tensors are batches of `batch`.

    A mapping: every task runs, once. A placement: a layer's tensor is `joined` from the pieces of
    the devices that live; of the tasks that make `output` one is enough, all give the same.
    """

    afpjax: str
    kind: Literal["mapping", "placement"]
    method: str  # how it was found
    model: ModelInfo
    format: dict[str, str | int | float | bool | None]
    image: ImageFormat
    output: str
    batch: Annotated[int, Field(gt=0)]
    devices: Annotated[tuple[DeviceFile, ...], Field(min_length=1)]
    tensors: dict[str, TensorInfo]
    tasks: tuple[DeviceTask, ...]
    pieces: dict[str, LayerPieces]  # by the layer's tensor; empty for a mapping
    sends: tuple[TensorTransfer, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> "Manifest":
        for holds, problem in self._checks():
            if not holds:
                raise ValueError(problem)
        return self

    def _checks(self) -> Iterator[tuple[bool, str]]:
        """What holds of a whole manifest, and what to say where it does not; in order."""
        names, files = self.names, {device.file for device in self.devices}
        yield len(set(names)) == len(names), "its devices are not told apart"
        yield len(files) == len(names), "two devices have one file"
        yield self.batch == self.image.shape[0], "the batch is not that of its images"
        yield len({task.task for task in self.tasks}) == len(self.tasks), "a task occurs twice"
        known = {self.image.tensor, *self.pieces}
        for task in self.tasks:
            name = shortened(task.task)
            yield task.device in names, f"task {name} is for no device"
            yield known.issuperset(task.inputs), f"task {name} reads what nobody made"
            yield self.tensors.keys() >= {*task.outputs}, f"task {name} makes no tensor"
            known.update(task.outputs)
        yield self.output in known & self.tensors.keys(), "nothing makes its output"
        placed = {layer for task in self.tasks for layer in task.layers}
        yield placed.issuperset(self.model.layers), "a layer runs nowhere"
        for send in self.sends:
            yield send.source in names and send.target in names, "it sends to no device"
        yield bool(self.pieces) == (self.kind == "placement"), "its kind is another"
        for tensor, pieces in self.pieces.items():
            yield tensor in self.tensors, f"{shortened(tensor)} is no tensor"
            yield self._fit(pieces, tensor), f"the pieces of {shortened(tensor)} do not fit"

    def _fit(self, pieces: LayerPieces, tensor: str) -> bool:
        """Whether a layer's pieces name neurons that it has and tensors that there are."""
        shape, devices = self.tensors[tensor].shape, len(self.devices)
        if pieces.axis >= len(shape) or pieces.spare >= devices:
            return False
        size = shape[pieces.axis]
        return (
            pieces.layer in self.model.layers
            and len(pieces.made) == len(pieces.neurons) == devices
            and self.tensors.keys() >= {*filter(None, pieces.made)}
            and len(pieces.substitute) == size
            and all(max(row, default=0) < size for row in (*pieces.neurons, *pieces.sums))
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The devices' names, in the order of their numbers."""
        return tuple(device.device for device in self.devices)

    @cached_property
    def placement(self) -> Placement:
        """Who computes which neurons. Raises `InputError` for a mapping, which has no neurons."""
        if self.kind != "placement":
            raise InputError(f"{NAME}: a mapping has no placement; export one of kind placement")
        holds = []
        for pieces in self.pieces.values():
            held = np.zeros((len(self.devices), len(pieces.substitute)), bool)
            for device, neurons in enumerate(pieces.neurons):
                held[device, list(neurons)] = True
            holds.append(held)
        layers = tuple(pieces.layer for pieces in self.pieces.values())
        spares = {pieces.spare for pieces in self.pieces.values()} - {-1}
        return Placement(self.method, layers, tuple(holds), max(spares, default=None))

    def answering(self, failed: Collection[int] = ()) -> dict[str, np.ndarray]:
        """By a layer's tensor, the device whose copy of each neuron is used, -1: it is lost."""
        return dict(zip(self.pieces, self.placement.answering(failed), strict=True))

    def to_json(self) -> str:
        """manifest.json's text."""
        return json.dumps(self.model_dump(by_alias=True), indent=1) + "\n"


def joined(
    pieces: LayerPieces, tensor: TensorInfo, by: np.ndarray, made: Mapping[int, np.ndarray]
) -> np.ndarray:
    """A layer's whole tensor from the pieces that devices made, by device.

    `by` has the device that answers for each neuron (int [C], see `Manifest.answering`); where it
    is -1 the neuron gives its substitute. Where the spare answers for a neuron that it does not
    compute, that is its sum less the sum's other neurons.
    """
    whole = np.empty(tensor.shape, tensor.dtype)
    by_neuron = np.moveaxis(whole, pieces.axis, 0)
    by_neuron[:] = np.asarray(pieces.substitute, whole.dtype).reshape(-1, *[1] * (whole.ndim - 1))
    for device, piece in made.items():
        neurons = np.asarray(pieces.neurons[device], np.int64)
        used = np.flatnonzero(by[neurons] == device)
        by_neuron[neurons[used]] = np.moveaxis(piece, pieces.axis, 0)[used]
    if pieces.sums and pieces.spare in made:
        own = pieces.neurons[pieces.spare]
        sums = np.moveaxis(made[pieces.spare], pieces.axis, 0)[len(own) :]
        for members, total in zip(pieces.sums, sums, strict=True):
            for neuron in members:  # of each sum no more than one is missing
                if by[neuron] == pieces.spare and neuron not in own:
                    others = by_neuron[[other for other in members if other != neuron]]
                    by_neuron[neuron] = total - others.sum(axis=0)
    return whole


def read_manifest(folder: Path | str, setting: str = "serve.export") -> Manifest:
    """The manifest of an export's run folder, its files checked against their checksums.

    Raises `InputError`, which opens with `setting`, where it is missing, damaged, written by
    another version (major.minor), or a file is missing or not what was exported.
    """
    folder = Path(folder)
    where = f"{setting}: {folder}"
    if not (folder / NAME).exists():
        raise InputError(f"{where} has no {NAME}; name the run folder of a job export")
    content = read_bytes(folder / NAME, setting, _WHOLE)
    with understood(folder / NAME, setting, _WHOLE):
        _check_version(json.loads(content), where)
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            at = "".join(f"{part}: " for part in first["loc"])
            raise ValueError(at + first["msg"].removeprefix("Value error, ")) from error
    for device in manifest.devices:
        path = folder / device.file
        if not path.exists():
            raise InputError(f"{where}: {path.name} is missing; export again")
        if sha256(read_bytes(path, setting, PART)) != device.sha256:
            raise InputError(
                f"{where}: {path.name} is not the file that was exported (its checksum differs); "
                "export again"
            )
    return manifest


def _check_version(record: Any, where: str) -> None:
    version = record.get("afpjax") if isinstance(record, dict) else None
    if not isinstance(version, str):
        raise InputError(f"{where}: {NAME} does not say which afpjax wrote it; export again")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise InputError(
            f"{where} was exported by afpjax {shortened(version)}, this is {__version__}; "
            "export again"
        )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
