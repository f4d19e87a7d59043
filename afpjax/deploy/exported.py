"""An export as a service of devices runs it: the manifest's tasks as plans, and parts to load."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from afpjax.deploy.flow import Plan, Task, plan_of
from afpjax.deploy.layout import NoRoom
from afpjax.deploy.manifest import Manifest
from afpjax.deploy.ready import ManifestPart
from afpjax.inputs.files import PART, read_bytes

MB = 1e6


@dataclass(frozen=True, eq=False)
class FromManifest:
    """An export for a service whose devices are `names`, some of which may have no part in it.

    `files` are the export's, by name.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    names: tuple[str, ...]

    @staticmethod
    def of_folder(manifest: Manifest, folder: Path, names: Sequence[str]) -> "FromManifest":
        """With the files of a run folder."""
        files = {
            each.file: read_bytes(folder / each.file, "serve.export", PART)
            for each in manifest.devices
        }
        return FromManifest(manifest, files, tuple(names))

    def prepared(
        self, images: Sequence[UInt8[np.ndarray, "H W C"]]
    ) -> Float32[np.ndarray, "B H W C"]:
        """(image / 255 - mean) / std, the last image again where the batch has room for more."""
        given = self.manifest.image
        every = [*images, *[images[-1]] * (self.manifest.batch - len(images))]
        mean, std = (np.array(each, np.float32) for each in (given.mean, given.std))
        return (np.stack(every).astype(np.float32) / np.float32(255) - mean) / std

    def part(self, device: int) -> ManifestPart | None:
        """What a device has to load, if it has a part."""
        name = self.names[device]
        for each in self.manifest.devices:
            if each.device == name:
                return ManifestPart(self.manifest, self.files[each.file], name, self.names)
        return None

    def survives(self, lost: Collection[int]) -> bool:
        """A placement as long as one device is left, a mapping without any device of its tasks."""
        if self.manifest.kind == "placement":
            return len(lost) < len(self.names)
        return not {self.names[device] for device in lost} & {t.device for t in self.manifest.tasks}

    def plan(self, number: int, lost: Collection[int]) -> Plan:
        """Who works out what without the lost devices."""
        known = self.manifest
        number_of = {name: device for device, name in enumerate(self.names)}
        pieces = self._needed(lost)
        needed = {made for of_device in pieces.values() for made in of_device.values()}
        spared = {made for each in known.pieces.values() for made in each.made} - needed
        tasks = [
            Task(each.task, number_of[each.device], each.inputs, each.outputs)
            for each in known.tasks
            if not spared.issuperset(each.outputs)
        ]
        return plan_of(
            tasks,
            pieces,
            lost,
            number=number,
            image=known.image.tensor,
            answer=known.output,
            batch=known.batch,
        )

    def _needed(self, lost: Collection[int]) -> dict[str, dict[int, str]]:
        """By shared tensor, the pieces that are read without the lost devices: not replicas of what
        others give, and no coded sums as long as all are there."""
        found: dict[str, dict[int, str]] = {}
        if self.manifest.pieces:
            by = self.manifest.answering(lost)
            for tensor, each in self.manifest.pieces.items():
                read = sorted({int(device) for device in by[tensor]} - {-1})
                found[tensor] = {device: each.made[device] for device in read}
        return found

    def used_bytes(self) -> dict[str, int]:
        """What each device's part takes: its weights, and the most that it holds beside them."""
        return {
            each.device: each.weight_bytes + each.activation_bytes for each in self.manifest.devices
        }

    def check_room(self, limits: Mapping[str, float], setting: str) -> "FromManifest":
        """Itself. Raises `NoRoom` for a part that takes more than its device's bytes."""
        for name, used in self.used_bytes().items():
            if used > limits[name]:
                raise NoRoom(
                    f"{setting}: device {name} has {limits[name] / MB:.4g} MB and its part needs "
                    f"{used / MB:.4g} MB; give it more, or export for more devices"
                )
        return self
