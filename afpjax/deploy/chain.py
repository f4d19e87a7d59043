"""An export run whole, in one process: every device's tasks, one after the other."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from afpjax.deploy.manifest import Manifest, joined
from afpjax.deploy.part import Part
from afpjax.inputs.errors import InputError

Arrays = dict[str, np.ndarray]


class Chain:
    """The parts of all devices. `files` is the export's folder, or its files by name."""

    def __init__(
        self, manifest: Manifest, files: Path | str | Mapping[str, bytes], *, threads: int = 0
    ) -> None:
        self.manifest = manifest
        self._parts = {
            each.device: Part(
                manifest,
                files[each.file] if isinstance(files, Mapping) else files,
                each.device,
                threads=threads,
            )
            for each in manifest.devices
        }

    def __call__(self, inputs: np.ndarray, failed: Collection[int] = ()) -> np.ndarray:
        """Logits [N, classes] of N inputs as the network takes them, any N.

        `failed` are the numbers of devices that are lost, of a placement. Raises `InputError` where
        none is left, or one of a mapping is lost.
        """
        manifest, count = self.manifest, len(inputs)
        if manifest.kind == "mapping" and failed:
            raise InputError("failed: every device of a mapping is needed; export a placement")
        if len(set(failed)) == len(manifest.devices):
            raise InputError("failed: all devices are lost; keep one")
        logits = []
        for start in range(0, count, manifest.batch):
            part = inputs[start : start + manifest.batch]
            missing = manifest.batch - len(part)
            whole = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            logits.append(self._batch(whole.astype(manifest.image.dtype), failed)[: len(part)])
        return np.concatenate(logits)

    def _batch(self, inputs: np.ndarray, failed: Collection[int]) -> np.ndarray:
        manifest, known = self.manifest, {self.manifest.image.tensor: inputs}
        if manifest.kind == "mapping":
            for task in manifest.tasks:
                known |= self._parts[task.device].run(task.task, known)
            return known[manifest.output]
        by, made = manifest.answering(failed), {}
        whole = {piece: name for name, each in manifest.pieces.items() for piece in each.made}
        alive = [task for task in manifest.tasks if manifest.names.index(task.device) not in failed]
        for task in alive:
            for name in task.inputs:
                if name not in known:
                    known[name] = self._whole(name, by[name], made)
            if manifest.output in known:
                break
            found = self._parts[task.device].run(task.task, known)
            made |= {name: each for name, each in found.items() if name in whole}
            known |= {name: each for name, each in found.items() if name not in whole}
        return known[manifest.output]

    def _whole(self, name: str, by: np.ndarray, made: Arrays) -> np.ndarray:
        manifest = self.manifest
        pieces = manifest.pieces[name]
        found = {d: made[piece] for d, piece in enumerate(pieces.made) if piece in made}
        return joined(pieces, manifest.tensors[name], by, found)
