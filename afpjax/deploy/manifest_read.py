"""manifest.json read back: whole, of one piece, and its files those that were exported."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from afpjax import __version__
from afpjax.deploy.manifest import KINDS, NAME, Manifest, Pieces, Send, sha256
from afpjax.deploy.records import made
from afpjax.inputs.errors import InputError, shortened
from afpjax.inputs.files import MIB, PART, Kind, parsed, read_bytes, understood

_WHOLE = Kind("manifest of a whole export; export again", 32 * MIB)
_MOST_BYTES = 2**31  # that a tensor, or a batch of images, may have


def read(folder: Path | str, setting: str = "serve.export") -> Manifest:
    """The manifest of an export's run folder, its files checked against their checksums.

    Raises `InputError`, which opens with `setting`, where it is missing, damaged, written by
    another version (major.minor), or a file is missing or not what was exported.
    """
    folder = Path(folder)
    where = f"{setting}: {folder}"
    if not (folder / NAME).exists():
        raise InputError(f"{where} has no {NAME}; name the run folder of a job export")
    record = parsed(folder / NAME, setting, _WHOLE, json.loads)
    _check_version(record, where)
    with understood(folder / NAME, setting, _WHOLE):
        manifest = _from_record(record)
        for holds, problem in _checks(manifest):
            if not holds:
                raise ValueError(problem)
    for device in manifest.devices:
        _check_file(folder / device.file, device.sha256, where, setting)
    return manifest


def _check_version(record: Any, where: str) -> None:
    found = record.get("afpjax") if isinstance(record, dict) else None
    if not isinstance(found, str):
        raise InputError(f"{where}: {NAME} does not say which afpjax wrote it; export again")
    if found.split(".")[:2] != __version__.split(".")[:2]:
        raise InputError(
            f"{where} was exported by afpjax {shortened(found)}, this is {__version__}; "
            "export again"
        )


def _check_file(path: Path, expected: str, where: str, setting: str) -> None:
    if not path.exists():
        raise InputError(f"{where}: {path.name} is missing; export again")
    if sha256(read_bytes(path, setting, PART)) != expected:
        raise InputError(
            f"{where}: {path.name} is not the file that was exported (its checksum differs); "
            "export again"
        )


def _from_record(record: dict[str, Any]) -> Manifest:
    sends = [made(Send, each, {"source": "from", "target": "to"}) for each in record["sends"]]
    manifest = made(Manifest, {**record, "sends": []})
    return Manifest(**{**vars(manifest), "sends": tuple(sends)})


def _checks(manifest: Manifest) -> Iterator[tuple[bool, str]]:
    """What holds of a whole manifest, and what to say where it does not; in order."""
    names, image, tensors = manifest.names, manifest.image, manifest.tensors
    yield manifest.kind in KINDS, f"it is of kind {shortened(manifest.kind)}"
    yield 0 < len(names) == len(set(names)), "its devices are not told apart"
    files = [each.file for each in manifest.devices]
    yield all(Path(each).name == each for each in files), "a file lies outside its folder"
    yield len(set(files)) == len(files), "two devices have one file"
    held = [
        size for each in manifest.devices for size in (each.weight_bytes, each.activation_bytes)
    ]
    yield min(held) >= 0, "a device takes less than nothing"
    yield 0 < manifest.batch == image.shape[0], "the batch is not that of its images"
    yield _fits(image.shape, image.dtype), "its images are none"
    channels = {1, image.shape[-1]}
    yield {len(image.mean), len(image.std)} <= channels, "mean and std are not of its channels"
    yield min(image.std) > 0, "std is not above 0"
    yield all(_fits(each.shape, each.dtype) for each in tensors.values()), "a tensor has no size"
    yield len({each.task for each in manifest.tasks}) == len(manifest.tasks), "a task occurs twice"
    known = {image.tensor, *manifest.pieces}
    for task in manifest.tasks:
        yield task.device in names, f"task {shortened(task.task)} is for no device"
        yield known.issuperset(task.inputs), f"task {shortened(task.task)} reads what nobody made"
        yield _all_in(task.outputs, tensors), f"task {shortened(task.task)} makes no tensor"
        known.update(task.outputs)
    yield manifest.output in known and manifest.output in tensors, "nothing makes its output"
    placed = {layer for task in manifest.tasks for layer in task.layers}
    yield placed.issuperset(manifest.model.layers), "a layer runs nowhere"
    for send in manifest.sends:
        yield _all_in((send.source, send.target), names), "it sends to no device"
        yield send.bytes >= 0, "it sends less than nothing"
    yield bool(manifest.pieces) == (manifest.kind == "placement"), "its kind is another"
    for tensor, pieces in manifest.pieces.items():
        yield tensor in tensors, f"{shortened(tensor)} is no tensor"
        yield _whole(pieces, manifest, tensor), f"the pieces of {shortened(tensor)} do not fit"


def _fits(shape: tuple[int, ...], dtype: str) -> bool:
    kind = np.dtype(dtype)
    size = float(np.prod(shape, dtype=np.float64)) * kind.itemsize
    return kind.kind in "biuf" and min(shape, default=0) > 0 and size <= _MOST_BYTES


def _all_in(wanted: Iterable[str], known: Iterable[str]) -> bool:
    return set(known).issuperset(wanted)


def _whole(pieces: Pieces, manifest: Manifest, tensor: str) -> bool:
    """Whether a layer's pieces name neurons that it has and tensors that there are."""
    shape, devices = manifest.tensors[tensor].shape, len(manifest.devices)
    if not (0 <= pieces.axis < len(shape) and -1 <= pieces.spare < devices):
        return False
    neurons = shape[pieces.axis]
    named = [each for row in (*pieces.neurons, *pieces.sums) for each in row]
    return (
        pieces.layer in manifest.model.layers
        and len(pieces.made) == len(pieces.neurons) == devices
        and _all_in(filter(None, pieces.made), manifest.tensors)
        and len(pieces.substitute) == neurons
        and all(0 <= each < neurons for each in named)
    )
