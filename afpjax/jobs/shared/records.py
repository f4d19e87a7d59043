"""What several jobs write into result.json, in one form."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int

from afpjax.data.images import Images
from afpjax.experiment import Experiment
from afpjax.faults.model import layer_mask
from afpjax.hardware.tables import CostTables
from afpjax.jobs.shared.result import (
    CostResult,
    CoverageResult,
    DataResult,
    FaultsResult,
    LayerResult,
    LinkResult,
    ModelResult,
    NoteResult,
    real,
)
from afpjax.network import soundness
from afpjax.search.objectives import costs


def model(experiment: Experiment) -> ModelResult:
    """The network: its name, its layers in the order they run, and what of it they are."""
    return ModelResult(
        experiment.config.model.name,
        [LayerResult.of(layer) for layer in experiment.graph.layers],
        CoverageResult.of(experiment.program.coverage),
    )


def notes(experiment: Experiment) -> list[NoteResult]:
    """What has to be known before the answer is read, of the network on the held-out images."""
    held = experiment.held
    count = soundness.looked_at(experiment.quantized, len(held.labels))
    some = Images(*(each[:count] for each in held))
    found = soundness.notes(
        experiment.quantized,
        experiment.inputs(some),
        some.labels,
        calibration=lambda: experiment.inputs(experiment.calibration),
        readings=_readings(some.images, experiment.inputs(some)),
    )
    return [NoteResult.of(note) for note in found]


def chance(experiment: Experiment, images: Images) -> list[NoteResult]:
    """The same of the network in floating point, which no number format can spoil."""
    count = soundness.looked_at(experiment.network, len(images.labels))
    some = Images(*(each[:count] for each in images))
    inputs = experiment.inputs(some)
    readings = _readings(some.images, inputs)
    found = soundness.chance(experiment.network, inputs, some.labels, readings=readings)
    return [NoteResult.of(note) for note in found]


def _readings(images: np.ndarray, inputs: Array) -> soundness.Readings:
    """Other ways in which the same images may have been meant; none of what is as it is read."""
    if images.dtype != np.uint8:
        return {}
    ways = {
        "images from 0 to 255 (data.mean = 0, data.std = 0.003922)": lambda: images.astype(
            np.float32
        ),
        "images from 0 to 1 (data.mean = 0, data.std = 1)": lambda: (
            images.astype(np.float32) / np.float32(255)
        ),
        "rows and columns exchanged": lambda: np.swapaxes(np.asarray(inputs), 1, 2),
    }
    if images.shape[1] != images.shape[2]:
        ways.pop("rows and columns exchanged")
    if images.shape[3] > 1:
        ways["channels in the opposite order"] = lambda: np.asarray(inputs)[..., ::-1]
    return ways


def data(experiment: Experiment) -> DataResult:
    """How many images the search sees, and how many the answer is measured on."""
    searched, held = experiment.searched.labels, experiment.held.labels
    return DataResult(experiment.data_name, len(searched), len(held))


def faults(experiment: Experiment) -> FaultsResult:
    """The faults that everything is measured under."""
    model, names = experiment.faults, experiment.graph.names
    faulty = layer_mask(model, experiment.graph)
    return FaultsResult(
        experiment.config.faults.strategy,
        list(model.bits),
        [name for name, hit in zip(names, faulty, strict=True) if hit],
        *(
            [real(rate) for rate in model.rates(kind).max(axis=1)]
            for kind in ("weight", "activation")
        ),
        link=LinkResult(model.link_kind, model.link_rate) if model.link_rate > 0 else None,
    )


def priced(tables: CostTables, mapping: Int[np.ndarray, " L"]) -> tuple[float, float]:
    """Latency (ms) and energy (mJ) of a mapping, links included."""
    cost = costs(tables, mapping[None])
    return real(cost.latency_ms[0]), real(cost.energy_mj[0])


def layer_costs(experiment: Experiment, tables: CostTables) -> list[CostResult]:
    """Every layer on every device, links not included.

    Bytes are what a layer adds to those before it: a kernel that one of these reads too is theirs.
    """
    held = np.asarray(tables.weight_bytes) + np.asarray(tables.activation_bytes)
    if tables.shared is not None:
        held = held - np.asarray(tables.shared.bytes)
    return [
        CostResult(
            layer.name,
            device,
            real(tables.latency_ms[row, column]),
            real(tables.energy_mj[row, column]),
            int(held[row]),
        )
        for row, layer in enumerate(experiment.graph.layers)
        for column, device in enumerate(experiment.platform.names)
    ]


def as_list(mapping: Sequence[int] | np.ndarray) -> list[int]:
    """A mapping as JSON has it."""
    return [int(device) for device in mapping]
