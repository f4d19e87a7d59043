"""What runs in a device's process: its own part of an exported model, and a heart that beats.

This module is imported in every device's process, so it must stay light: no JAX.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import psutil

from afpjax.deploy.local_runner import DevicePart
from afpjax.deploy.manifest import DeviceTask, Manifest, joined


class Heartbeat(NamedTuple):
    """A sign of life: where the process is, and the memory that it takes now."""

    pid: int
    node: str
    memory_mb: float


class TensorSource(NamedTuple):
    """A tensor, or a device's own piece of one, and the device that made it."""

    tensor: str
    device: str


class TaskRun(NamedTuple):
    """A task of a batch, where each input that is sent was made, and which devices are lost.

    The batches before `oldest` have ended.
    """

    task: str
    sources: tuple[TensorSource, ...]
    lost: frozenset[str]
    batch: int
    oldest: int


class MissingTensor(RuntimeError):
    """A tensor was not sent that the device does not have: the task before has failed."""


class TensorCache:
    """The tensors of one batch that tasks of this device still have to read."""

    def __init__(self, tasks: Mapping[str, DeviceTask]) -> None:
        self.left = dict(tasks)
        self.tensors: dict[str, np.ndarray] = {}

    def after(self, task: str, tensors: Mapping[str, np.ndarray]) -> None:
        """A task is done that read and made these. What others lent is copied: they may take it
        back once the task is done."""
        del self.left[task]
        later = {tensor for other in self.left.values() for tensor in other.inputs}
        self.tensors = {
            name: array if array.flags.owndata else array.copy()
            for name, array in {**self.tensors, **tensors}.items()
            if name in later
        }


@dataclass(frozen=True, eq=False)
class PartFiles:
    """A device's part of an export, on its way to the device's process."""

    manifest: Manifest
    content: bytes
    device: str

    def open(self) -> "PartRunner":
        """With one onnxruntime session for each task."""
        return PartRunner(self.manifest, DevicePart(self.manifest, self.content, self.device))


@dataclass(eq=False)
class PartRunner:
    """Runs tasks, and keeps what its later tasks of the batch read."""

    manifest: Manifest
    part: DevicePart
    _answering: dict[frozenset[str], Mapping[str, np.ndarray]] = field(default_factory=dict)
    _caches: dict[int, TensorCache] = field(default_factory=dict)  # by batch

    def __call__(self, run: TaskRun, values: Sequence[Any]) -> list[Any]:
        """A task's outputs, from the values of its sources. Raises `MissingTensor` where it needs
        what was neither sent nor kept."""
        self._caches = {batch: c for batch, c in self._caches.items() if batch >= run.oldest}
        cache = self._caches.setdefault(run.batch, TensorCache(self.part.tasks))
        sent, task = dict(zip(run.sources, values, strict=True)), cache.left[run.task]
        inputs = {name: self._tensor(name, cache, sent, run.lost) for name in task.inputs}
        outputs = self.part.run(run.task, inputs)
        cache.after(run.task, {**inputs, **outputs})
        return [outputs[name] for name in task.outputs]

    def _tensor(
        self,
        name: str,
        cache: TensorCache,
        sent: Mapping[TensorSource, np.ndarray],
        lost: frozenset[str],
    ) -> np.ndarray:
        if name in cache.tensors:
            return cache.tensors[name]
        if name in self.manifest.pieces:
            return self._whole(name, sent, lost)
        for source, value in sent.items():
            if source.tensor == name:
                return value
        raise MissingTensor(f"{name} was not sent to {self.part.device}")

    def _whole(
        self, name: str, sent: Mapping[TensorSource, np.ndarray], lost: frozenset[str]
    ) -> np.ndarray:
        """A tensor that devices share out, from their pieces."""
        manifest = self.manifest
        if lost not in self._answering:
            failed = [number for number, device in enumerate(manifest.names) if device in lost]
            self._answering[lost] = manifest.answering(failed)
        pieces, by = manifest.pieces[name], self._answering[lost][name]
        made = {
            manifest.names.index(source.device): value
            for source, value in sent.items()
            if source.tensor in pieces.made
        }
        if not {int(device) for device in np.unique(by)} - {-1} <= made.keys():
            raise MissingTensor(f"pieces of {name} were not sent to {self.part.device}")
        return joined(pieces, manifest.tensors[name], by, made)


class DeviceWorker:
    """One device, a Ray actor. It runs tasks one by one, in the order they come."""

    def __init__(self) -> None:
        self._part: PartRunner | None = None
        self._number = -1

    def load(self, number: int, part: PartFiles) -> None:
        """From now on this part of export `number` is run, and no other."""
        self._part, self._number = None, number  # its memory is free before the other takes any
        self._part = part.open()

    def run(self, number: int, run: TaskRun, *values: Any) -> Any:
        """The outputs of a task: one array, or as many as it has."""
        if self._part is None or number != self._number:
            raise RuntimeError(f"export {number} was asked for, {self._number} is loaded")
        outputs = self._part(run, values)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def heartbeat(self) -> Heartbeat:
        """Answered in a thread of its own, whatever else is going on."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Heartbeat(os.getpid(), node, psutil.Process().memory_info().rss / 1e6)

    def die(self) -> None:
        """As if killed from outside, for devices on other machines."""
        os.kill(os.getpid(), signal.SIGKILL)
