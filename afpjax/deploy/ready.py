"""A device's part in its process: tensors are put together, and kept while they are needed.

Without JAX, as `device` is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afpjax.deploy.device import Missing, Work
from afpjax.deploy.flow import Source
from afpjax.deploy.manifest import Manifest, Task, joined
from afpjax.deploy.part import Part


@dataclass(frozen=True, eq=False)
class ManifestPart:
    """A device's part on its way to its process. `names` are all devices of the service."""

    manifest: Manifest
    content: bytes
    device: str
    names: tuple[str, ...]

    def open(self) -> "Ready":
        """With one onnxruntime session for each task."""
        return Ready(self, Part(self.manifest, self.content, self.device))


class Kept:
    """The tensors of one batch that tasks of this device still have to read."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.left = {task.task: task for task in tasks}
        self.tensors: dict[str, np.ndarray] = {}

    def after(self, task: str, known: Mapping[str, np.ndarray]) -> None:
        """A task is done that read and made these. What others lent is copied: they may take it
        back once the task is done."""
        del self.left[task]
        later = {tensor for each in self.left.values() for tensor in each.inputs}
        self.tensors = {
            name: array if array.flags.owndata else array.copy()
            for name, array in {**self.tensors, **known}.items()
            if name in later
        }


@dataclass(eq=False)
class Ready:
    """Runs tasks. Raises `Missing` for one that needs what was neither sent nor kept."""

    given: ManifestPart
    part: Part
    _answering: dict[frozenset[int], Mapping[str, np.ndarray]] = field(default_factory=dict)
    _kept: dict[int, Kept] = field(default_factory=dict)  # by batch

    def __call__(self, work: Work, values: Sequence[Any]) -> list[Any]:
        self._kept = {batch: each for batch, each in self._kept.items() if batch >= work.oldest}
        kept = self._kept.setdefault(work.batch, Kept(self.part.tasks))
        sent, own = dict(zip(work.sources, values, strict=True)), kept.left[work.task]
        inputs = {name: self._tensor(name, kept, sent, work.lost) for name in own.inputs}
        outputs = self.part.run(work.task, inputs)
        kept.after(work.task, {**inputs, **outputs})
        return [outputs[name] for name in own.outputs]

    def _tensor(
        self, name: str, kept: Kept, sent: Mapping[Source, np.ndarray], lost: frozenset[int]
    ) -> np.ndarray:
        if name in kept.tensors:
            return kept.tensors[name]
        manifest = self.given.manifest
        if name in manifest.pieces:
            return self._whole(name, sent, lost)
        for source, value in sent.items():
            if source.tensor == name:
                return value
        raise Missing(f"{name} was not sent to {self.given.device}")

    def _whole(
        self, name: str, sent: Mapping[Source, np.ndarray], lost: frozenset[int]
    ) -> np.ndarray:
        """A tensor that devices share out, from their pieces."""
        manifest, names = self.given.manifest, self.given.names
        pieces, by = manifest.pieces[name], self._by(lost)[name]
        made = {
            manifest.names.index(names[source.device]): value
            for source, value in sent.items()
            if source.tensor in pieces.made
        }
        if not {int(device) for device in np.unique(by)} - {-1} <= made.keys():
            raise Missing(f"pieces of {name} were not sent to {self.given.device}")
        return joined(pieces, manifest.tensors[name], by, made)

    def _by(self, lost: frozenset[int]) -> Mapping[str, np.ndarray]:
        """Who answers for which neuron, by tensor."""
        if lost not in self._answering:
            manifest, gone = self.given.manifest, {self.given.names[device] for device in lost}
            failed = [number for number, name in enumerate(manifest.names) if name in gone]
            self._answering[lost] = manifest.answering(failed)
        return self._answering[lost]
