"""manifest.json of an export: which device runs what, and what is sent to whom.

Without JAX, as `part` and `chain` are: a device's process needs NumPy, onnx and onnxruntime only.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from afpjax.inputs.errors import InputError
from afpjax.neurons.placement import Placement

NAME = "manifest.json"
KINDS = ("mapping", "placement")


@dataclass(frozen=True)
class Model:
    """The network that was exported; `digest` is of its program's shapes and its parameters."""

    name: str
    digest: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """What the network reads, batch included: (uint8 / 255 - mean) / std, channels last."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Device:
    """One device and its ONNX file."""

    device: str
    file: str
    sha256: str
    weight_bytes: int
    activation_bytes: int  # most that it holds at once for a batch, what it reads included


@dataclass(frozen=True)
class Tensor:
    """A named tensor that enters or leaves a task, batch included."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Task:
    """Work that one device does without waiting: from the tensors it reads to those it makes."""

    task: str
    device: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Pieces:
    """A layer's tensor, put together from what the devices make of it along `axis`.

    Device d makes the tensor `made[d]`, whose i-th slice is neuron `neurons[d][i]`; a device
    without neurons makes none (""). Behind its own, device `spare` (-1: there is none) makes
    `sums` of the others' neurons (coded distributed computing): whose, sum by sum. `substitute` has
    the value of each neuron that is lost.
    """

    layer: str
    axis: int
    made: tuple[str, ...]
    neurons: tuple[tuple[int, ...], ...]
    substitute: tuple[float, ...]
    sums: tuple[tuple[int, ...], ...] = ()
    spare: int = -1


@dataclass(frozen=True)
class Send:
    """A tensor, or piece of one, that goes from a device to another for every batch."""

    tensor: str
    source: str
    target: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """An export. Tasks are in an order in which they can run; tensors are batches of `batch`.

    A mapping: every task runs, once. A placement: a layer's tensor is `joined` from the pieces of
    the devices that live; of the tasks that make `output` one is enough, all give the same.
    """

    afpjax: str
    kind: str  # of `KINDS`
    method: str  # how it was found
    model: Model
    format: Mapping[str, Any]
    image: Image
    output: str
    batch: int
    devices: tuple[Device, ...]
    tensors: Mapping[str, Tensor]
    tasks: tuple[Task, ...]
    pieces: Mapping[str, Pieces]  # by the layer's tensor; empty for a mapping
    sends: tuple[Send, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The devices' names; a device's number is its place here."""
        return tuple(each.device for each in self.devices)

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


def joined(
    pieces: Pieces, tensor: Tensor, by: np.ndarray, made: Mapping[int, np.ndarray]
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
        _uncode(pieces, by, np.moveaxis(made[pieces.spare], pieces.axis, 0), by_neuron)
    return whole


def _uncode(pieces: Pieces, by: np.ndarray, made: np.ndarray, by_neuron: np.ndarray) -> None:
    """Neurons that only the spare's sums still know; of each sum no more than one is missing."""
    own = pieces.neurons[pieces.spare]
    for place, members in enumerate(pieces.sums):
        for neuron in members:
            if by[neuron] == pieces.spare and neuron not in own:
                others = by_neuron[[each for each in members if each != neuron]]
                by_neuron[neuron] = made[len(own) + place] - others.sum(axis=0)


def to_json(manifest: Manifest) -> str:
    """manifest.json's text. `sends` are written with `from` and `to`."""
    record = asdict(manifest)
    for send in record["sends"]:
        send["from"], send["to"] = send.pop("source"), send.pop("target")
    return json.dumps(record, indent=1) + "\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
