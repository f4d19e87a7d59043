"""Who works out what of an export, and how a batch of images goes through the devices.

The service moves references to tensors, never the tensors: each device fetches what it needs from
whoever made it, once, and keeps it for its later tasks of the batch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from afpjax.deploy.manifest import DeviceTask, Manifest
from afpjax.deploy.service.requests import ImageRequest
from afpjax.deploy.service.worker import PartFiles, TensorSource
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import PART, read_bytes

MB = 1e6
SERVICE = ""  # where images come from: no device


class OutOfMemory(InputError):
    """A device has too little memory for its part."""


class ExecutionPlan(NamedTuple):
    """Who works out what, with some devices lost; a batch is answered under one plan throughout.

    `tasks` are those of the living devices. `sources` has, for each tensor that a task reads or
    that is the answer, what has to be there: one source, or the living devices' pieces. `number`
    tells exports apart: devices refuse tasks of another one than they have loaded.
    """

    number: int
    image: str
    answer: str
    batch: int
    lost: frozenset[str]
    tasks: tuple[DeviceTask, ...]
    sources: Mapping[str, tuple[TensorSource, ...]]

    @property
    def final(self) -> TensorSource:
        """Where the answer is made."""
        return self.sources[self.answer][0]


def execution_plan(
    tasks: Sequence[DeviceTask],
    pieces: Mapping[str, Mapping[str, str]],
    lost: Collection[str],
    *,
    number: int = 0,
    image: str,
    answer: str,
    batch: int,
) -> ExecutionPlan:
    """A plan without the lost devices.

    `pieces` names, for each tensor that devices share out, the piece that each of them makes. A
    tensor that several living devices make whole is worked out by the first of them alone.
    """
    alive = [task for task in tasks if task.device not in lost]
    makers = dict[str, DeviceTask]()
    for task in alive:
        for tensor in task.outputs:
            makers.setdefault(tensor, task)
    shared = {name for by_device in pieces.values() for name in by_device.values()}
    kept = tuple(
        task
        for task in alive
        if any(tensor in shared or makers[tensor] is task for tensor in task.outputs)
    )
    sources: dict[str, tuple[TensorSource, ...]] = {image: (TensorSource(image, SERVICE),)}
    for tensor, by_device in pieces.items():
        sources[tensor] = tuple(
            TensorSource(piece, device) for device, piece in by_device.items() if device not in lost
        )
    for tensor, maker in makers.items():
        if tensor not in shared:
            sources[tensor] = (TensorSource(tensor, maker.device),)
    return ExecutionPlan(number, image, answer, batch, frozenset(lost), kept, sources)


@dataclass(frozen=True, eq=False)
class ServedExport:
    """An export for a service whose devices are `names`, some of which may have no part in it.

    `files` are the export's, by name. Devices are numbers in the order of `names`.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    names: tuple[str, ...]

    @staticmethod
    def of_folder(manifest: Manifest, folder: Path, names: Sequence[str]) -> "ServedExport":
        """With the files of a run folder."""
        files = {
            device.file: read_bytes(folder / device.file, "serve.export", PART)
            for device in manifest.devices
        }
        return ServedExport(manifest, files, tuple(names))

    def network_input(
        self, images: Sequence[UInt8[np.ndarray, "H W C"]]
    ) -> Float32[np.ndarray, "B H W C"]:
        """(image / 255 - mean) / std, the last image again where the batch has room for more."""
        batch = np.stack([*images, *[images[-1]] * (self.manifest.batch - len(images))])
        mean, std = (
            np.array(values, np.float32)
            for values in (self.manifest.image.mean, self.manifest.image.std)
        )
        return (batch.astype(np.float32) / np.float32(255) - mean) / std

    def part(self, device: int) -> PartFiles | None:
        """What a device has to load, if it has a part."""
        name = self.names[device]
        for file in self.manifest.devices:
            if file.device == name:
                return PartFiles(self.manifest, self.files[file.file], name)
        return None

    def survives(self, lost: Collection[int]) -> bool:
        """A placement as long as one device is left, a mapping without any device of its tasks."""
        if self.manifest.kind == "placement":
            return len(lost) < len(self.names)
        return not {self.names[device] for device in lost} & {t.device for t in self.manifest.tasks}

    def plan(self, number: int, lost: Collection[int]) -> ExecutionPlan:
        """Who works out what without the lost devices.

        Left out are copies of what others give, and coded sums as long as all devices are there.
        """
        manifest, pieces = self.manifest, dict[str, dict[str, str]]()
        for tensor, by in (manifest.answering(lost) if manifest.pieces else {}).items():
            made = manifest.pieces[tensor].made
            read = sorted({int(device) for device in by} - {-1})
            pieces[tensor] = {manifest.names[device]: made[device] for device in read}
        needed = {piece for by_device in pieces.values() for piece in by_device.values()}
        unneeded = {made for layer in manifest.pieces.values() for made in layer.made} - needed
        return execution_plan(
            [task for task in manifest.tasks if not unneeded.issuperset(task.outputs)],
            pieces,
            {self.names[device] for device in lost},
            number=number,
            image=manifest.image.tensor,
            answer=manifest.output,
            batch=manifest.batch,
        )

    def used_bytes(self) -> dict[str, int]:
        """What each device's part takes: its weights, and the most that it holds beside them."""
        return {d.device: d.weight_bytes + d.activation_bytes for d in self.manifest.devices}

    def check_memory(self, limits: Mapping[str, float], setting: str) -> "ServedExport":
        """Itself. Raises `OutOfMemory` for a part that takes more than its device's bytes."""
        for name, used in self.used_bytes().items():
            if used > limits[name]:
                raise OutOfMemory(
                    f"{setting}: device {name} has {limits[name] / MB:.4g} MB and its part needs "
                    f"{used / MB:.4g} MB; give it more, or export for more devices"
                )
        return self


@dataclass(eq=False)
class ServedBatch:
    """Images under way together. `refs` are to tensors that are there, or will be.

    `held` has the tensors, whole, that each device has from its finished tasks; to keep those that
    its other tasks read is its own business (`worker.TensorCache`).
    """

    number: int
    requests: list[ImageRequest]
    plan: ExecutionPlan
    refs: dict[TensorSource, Any]
    held: dict[str, set[str]] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)  # tasks by their index in the plan
    pending: dict[Any, int] = field(default_factory=dict)  # reference -> task that will make it

    @property
    def available(self) -> set[TensorSource]:
        """What has been made, or has failed."""
        tasks = (self.plan.tasks[index] for index in self.pending.values())
        return set(self.refs) - {
            TensorSource(t, task.device) for task in tasks for t in task.outputs
        }

    @property
    def is_through(self) -> bool:
        """Whether the answer is there."""
        return self.plan.final in self.available

    def ready(self) -> Iterator[tuple[int, DeviceTask, list[TensorSource]]]:
        """Tasks whose inputs are all there, with those to be sent; each is given out once."""
        available = self.available
        for index, task in enumerate(self.plan.tasks):
            if index in self.started:
                continue
            needed = self._to_send(task)
            if available.issuperset(needed):
                self.started.add(index)
                yield index, task, needed

    def under_way(self, index: int, refs: Sequence[Any]) -> None:
        """The task has been given out; these references will hold its outputs."""
        task = self.plan.tasks[index]
        sources = [TensorSource(tensor, task.device) for tensor in task.outputs]
        self.refs.update(zip(sources, refs, strict=True))
        self.pending[refs[0]] = index

    def finished(self, ref: Any) -> None:
        """A task has been done, or has failed: its device has what it read and made."""
        task = self.plan.tasks[self.pending.pop(ref)]
        whole = {tensor for tensor in task.outputs if tensor in self.plan.sources}
        self.held.setdefault(task.device, set()).update(task.inputs, whole)

    def drop_unneeded(self) -> None:
        """Let go of what no task reads any more: where it lies, its memory is free again."""
        waiting = (task for i, task in enumerate(self.plan.tasks) if i not in self.started)
        needed = {source for task in waiting for source in self._to_send(task)} | {self.plan.final}
        self.refs = {source: ref for source, ref in self.refs.items() if source in needed}

    def _to_send(self, task: DeviceTask) -> list[TensorSource]:
        """What a task reads and its device has not got yet."""
        held = self.held.get(task.device, ())
        missing = (tensor for tensor in task.inputs if tensor not in held)
        return [source for tensor in missing for source in self.plan.sources[tensor]]
