"""What an earlier run found, for a job that goes on from it."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from afpjax.experiment import Experiment
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import Kind, read_json, understood
from afpjax.jobs.shared.result import read

T = TypeVar("T")

NAME = "result.json"
_WHOLE = Kind("result of a whole run; run it again", 0)


@dataclass(frozen=True)
class LayerShape:
    """What tells a layer from those of another network."""

    name: str
    neurons: int
    macs: int


@dataclass(frozen=True)
class NetworkShape:
    layers: Sequence[LayerShape]


@dataclass(frozen=True)
class EarlierMapping:
    mapping: Sequence[int]


@dataclass(frozen=True)
class PartitionRun:
    """What is read of an earlier run of job partition, of whatever version."""

    model: NetworkShape
    devices: Sequence[str]
    selected: EarlierMapping
    front: Sequence[EarlierMapping] = ()


def job_of(setting: str, folder: Path, jobs: Iterable[str]) -> str:
    """Which of `jobs` a run folder is of; errors name the setting that names the folder."""
    return _content(setting, folder, tuple(jobs))["job"]


def result_of(setting: str, folder: Path, **kinds: type[T]) -> T:
    """The result of a run of one of the jobs in `kinds`, which says what its result is.

    Raises `InputError` for a folder of no such run, and for what is no whole result.
    """
    content = _content(setting, folder, tuple(kinds))
    with whole(setting, folder):
        return read(kinds[content["job"]], content)


def _content(setting: str, folder: Path, jobs: Sequence[str]) -> dict[str, Any]:
    where = f"{setting}: {folder}"
    if not (folder / NAME).exists():
        raise InputError(f"{where} has no {NAME}; name a run folder")
    content = read_json(folder / NAME, setting)
    job = content.get("job") if isinstance(content, dict) else None
    if job not in jobs:
        raise InputError(f"{where} is no run of job {' or '.join(jobs)}; name one")
    return content


def whole(setting: str, folder: Path) -> AbstractContextManager[None]:
    """What a result lacks, or has of another kind, is an `InputError` inside `with`."""
    return understood(folder / NAME, setting, _WHOLE)


def mappings(values: Any, experiment: Experiment) -> Int[np.ndarray, "*P L"]:
    """A mapping, or a list of them, of the experiment's layers to its devices' numbers.

    Raises ValueError for what is none.
    """
    found, wanted = np.array(values), len(experiment.graph.layers)
    devices = len(experiment.platform.names)
    if found.dtype.kind != "i" or found.shape[-1:] != (wanted,) or not found.size:
        raise ValueError("a mapping is not one of this network")
    if found.min() < 0 or found.max() >= devices:
        raise ValueError(f"a mapping names a device that is not one of {devices}")
    return found.astype(np.int64)


def same_network(
    setting: str, folder: Path, layers: Sequence[LayerShape], experiment: Experiment
) -> None:
    """Raise `InputError` unless a result's layers are those of the experiment's network."""
    theirs = [(each.name, each.neurons, each.macs) for each in layers]
    own = [(each.name, each.neurons, each.macs) for each in experiment.graph.layers]
    if theirs == own:
        return
    pairs = zip(theirs, own, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(theirs), len(own)))
    raise InputError(
        f"{setting}: {folder} is a mapping of another network ({len(theirs)} layers, "
        f"{len(own)} here; they differ from layer {place} on); add --config "
        f"{folder / 'config.toml'}"
    )


def same_devices(
    setting: str, folder: Path, devices: Sequence[str], experiment: Experiment
) -> None:
    """Raise `InputError` unless a result's devices are those of the experiment's platform."""
    names = experiment.platform.names
    if tuple(devices) != names:
        raise InputError(
            f"{setting}: {folder} maps to {', '.join(devices)}, and the devices here are "
            f"{', '.join(names)}; add --config {folder / 'config.toml'}"
        )
