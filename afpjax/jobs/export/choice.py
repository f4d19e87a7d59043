"""What job `export` exports: the choice of an earlier run, or one that is worked out now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from afpjax.config.config import Config, load
from afpjax.experiment import Experiment
from afpjax.hardware.platform import load_platform
from afpjax.inputs.errors import InputError
from afpjax.jobs.distribute.cases import Distribution
from afpjax.jobs.distribute.result import StabilityResult
from afpjax.jobs.shared import learnt, scoring
from afpjax.jobs.shared.earlier import (
    NetworkShape,
    PartitionRun,
    job_of,
    mappings,
    result_of,
    same_devices,
    same_network,
    whole,
)
from afpjax.neurons.placement import Placement

#: What a run of a job has chosen.
_KINDS = {"partition": "mapping", "distribute": "placement"}


@dataclass(frozen=True)
class HeldNeurons:
    """The devices that hold each of a layer's neurons, as bits."""

    layer: str
    held: Sequence[int]


@dataclass(frozen=True)
class DistributeRun:
    """What is read of an earlier run of job distribute, of whatever version."""

    model: NetworkShape
    substitute: str
    placement: Sequence[HeldNeurons]
    stability: Sequence[StabilityResult] | None = None


class Choice(NamedTuple):
    """A mapping of layers, or a placement of neurons, on named devices."""

    where: Int[np.ndarray, " L"] | Placement
    devices: tuple[str, ...]
    method: str
    source: str  # "given", "searched", "distributed", or "partition run", "distribute run"
    stability: StabilityResult | None = None  # how much a placement depends on scoring images


def choice(experiment: Experiment) -> Choice:
    """As export.* say. Raises `InputError` for a mapping of another network."""
    export = experiment.config.export
    kind_of(experiment.config)  # refuses an earlier run of another kind
    if export.source:
        return _of_run(Path(export.source), experiment)
    if export.kind == "placement":
        return _distributed(experiment)
    names = experiment.platform.names
    if export.mapping:
        return Choice(_checked(export.mapping, experiment), names, "given", "given")
    mapping, tool = learnt.chosen(experiment)
    return Choice(mapping, names, tool, "searched")


def _checked(mapping: Sequence[int], experiment: Experiment) -> Int[np.ndarray, " L"]:
    layers, devices = len(experiment.graph.layers), len(experiment.platform.names)
    if len(mapping) != layers:
        raise InputError(
            f"export.mapping: {len(mapping)} devices for a network of {layers} layers; give one "
            "for each layer"
        )
    if max(mapping) >= devices:
        raise InputError(
            f"export.mapping: no device {max(mapping)}; those of platform.devices are 0 to "
            f"{devices - 1}"
        )
    return np.array(mapping, np.int64)


def _distributed(experiment: Experiment) -> Choice:
    """As job `distribute` places neurons on its first number of devices."""
    config = experiment.config
    distribution = Distribution(experiment, scoring.scored(experiment))
    method, devices = config.export.method, config.distribute.devices[0]
    placement = distribution.place(method, devices)
    stable = distribution.stability(devices) if method == "robustdice" else None
    return Choice(placement, numbered(devices), method, "distributed", stable)


def device_names(config: Config) -> tuple[str, ...]:
    """The devices of what would be exported, known before there is anything to export."""
    if kind_of(config) == "mapping":
        return load_platform(config.platform.devices, config.platform.link).names
    distribute = config.distribute
    if config.export.source:
        folder = Path(config.export.source)
        distribute = load(folder / "config.toml", named=config.model.name).distribute
    return numbered(distribute.devices[0])


def kind_of(config: Config) -> str:
    """Of what is exported. Raises `InputError` for an earlier run of neither kind."""
    export = config.export
    if not export.source:
        return export.kind
    job = job_of("export.source", Path(export.source), _KINDS)
    if export.kind == "placement" != _KINDS[job]:
        raise InputError(
            f"export.kind: {export.source} is a run of job {job}, whose choice is a mapping; leave "
            "export.kind out, or leave export.source out for a placement worked out here"
        )
    return _KINDS[job]


def numbered(devices: int) -> tuple[str, ...]:
    """Names of devices that are all alike."""
    return tuple(f"device{number}" for number in range(devices))


def _of_run(folder: Path, experiment: Experiment) -> Choice:
    name = "export.source"
    result = result_of(name, folder, partition=PartitionRun, distribute=DistributeRun)
    same_network(name, folder, result.model.layers, experiment)
    with whole(name, folder):
        if isinstance(result, PartitionRun):
            same_devices(name, folder, result.devices, experiment)
            mapping = mappings([result.selected.mapping], experiment)[0]
            return Choice(mapping, experiment.platform.names, "afarepart", "partition run")
        return _placement_of(result, experiment, folder)


def _placement_of(result: DistributeRun, experiment: Experiment, folder: Path) -> Choice:
    """RobustDiCE's, on the first number of devices of that run."""
    substitute = experiment.config.distribute.substitute
    if result.substitute != substitute:
        raise InputError(
            f"export.source: {folder} has lost neurons give {result.substitute}, and "
            f"distribute.substitute is {substitute} here; add --config {folder / 'config.toml'}"
        )
    devices = load(folder / "config.toml", named=experiment.config.model.name).distribute.devices[0]
    holds = []
    for layer, row in zip(experiment.graph.layers, result.placement, strict=True):
        if len(row.held) != layer.neurons or not all(0 < mask < 1 << devices for mask in row.held):
            raise ValueError(f"placement of {row.layer}")
        holds.append(np.array([[mask >> d & 1 for mask in row.held] for d in range(devices)], bool))
    placement = Placement("robustdice", experiment.graph.names, tuple(holds))
    stable = next((row for row in result.stability or () if row.devices == devices), None)
    return Choice(placement, numbered(devices), "robustdice", "distribute run", stable)
