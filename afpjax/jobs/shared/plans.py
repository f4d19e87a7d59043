"""What a job would take, said before it begins: `--dry-run`.

Nothing is trained, read or compiled for it: passes follow from the settings, the layers and how
many images there are; time and memory follow from these, to an order of magnitude.
"""

import math
import os
from collections.abc import Iterable
from math import comb
from typing import NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afpjax.experiment import Experiment
from afpjax.experiment.experiment import FEW_IMAGES
from afpjax.experiment.network_source import trains_here
from afpjax.inputs.image_size import rows_columns
from afpjax.neurons import ablation
from afpjax.neurons.failures import MOST
from afpjax.search.curve import FACTORS, HALVINGS
from afpjax.search.explore import few, populations
from afpjax.search.ridge import DRAWS
from afpjax.search.surrogate import SurrogatePlan

# What one CPU core does in the convolutions of small networks; large ones reach several times that.
MACS_PER_SECOND = 1e10
_BACKWARD = 3  # a step of training, or a gradient, in forward passes
_RUNTIME_BYTES = 6e8  # Python, JAX, and a few compiled programs


class Step(NamedTuple):
    """A part of a job: forward passes of an image at most, and at least where it may stop early."""

    what: str
    most: int | float
    least: int | float | None = None


def shown(experiment: Experiment, steps: Iterable[Step], note: str = "") -> RenderableType:
    """The plan as a table: every step, then all of them, with time and memory."""
    steps = [*_training(experiment), *steps]
    table = Table(box=None, pad_edge=False)
    table.add_column("forward passes of an image")
    for head in ("at least", "at most"):
        table.add_column(head, justify="right")
    for step in steps:
        table.add_row(step.what, *map(_count, (_least(step), step.most)))
    least, most = sum(map(_least, steps)), sum(step.most for step in steps)
    table.add_row("all", _count(least), _count(most), style="bold")
    macs = sum(layer.macs for layer in experiment.graph.layers)
    speed = MACS_PER_SECOND * (os.cpu_count() or 1)
    table.add_row("time", *(_time(passes * macs / speed) for passes in (least, most)))
    table.add_row("memory", "", f"{_memory(experiment) / 1e9:.1f} GB")
    how = (
        f"Orders of magnitude: {macs / 1e6:,.1f} M multiply-accumulates a pass, "
        f"{speed / 1e9:,.0f} G a second on this machine's cores; compiling (seconds to minutes) "
        "and what is no pass not counted; memory for parameters, images and activations."
    )
    return Group(table, Text(), *(Text(text) for text in (how, note) if text))


def counts(experiment: Experiment) -> tuple[int, int]:
    """Images that a search sees, and images that are held out."""
    return experiment.image_counts


def search(experiment: Experiment, kinds: int) -> list[Step]:
    """AFarePart's search under so many kinds of fault, and the choice from each front."""
    settings, trials = experiment.config.search, experiment.config.faults.trials
    layers, devices = len(experiment.graph.layers), len(experiment.platform.names)
    images, _ = counts(experiment)
    newcomers = settings.population * (1 + settings.renew_draws)
    mappings = populations(experiment.budget, True) * newcomers
    front = settings.population
    if few(np.full(layers, devices)):
        mappings = front = devices**layers
    rows = mappings * trials
    if experiment.config.faults.strategy == "layerwise":
        rows = layers * devices * trials
    most = min(rows * images, settings.effort or rows * images)
    chosen = kinds * front * settings.final_trials * images
    first = min(most, min(front, mappings) * images)
    return [
        Step(f"searches ({kinds})", kinds * most, kinds * first),
        Step("choosing from fronts", chosen, chosen / front),
    ]


def learning(experiment: Experiment, kinds: int) -> Step:
    """The search that learns under so many kinds of fault, and the curve of other allowances."""
    layers, devices = len(experiment.graph.layers), len(experiment.platform.names)
    images = min(FEW_IMAGES, counts(experiment)[0])
    first = layers * (devices - 1) + 1
    small = SurrogatePlan(rounds=2, finalists=4).passes(images)
    most = kinds * (first * DRAWS * images + SurrogatePlan().passes(images))
    return Step(f"learning ({kinds}) and the curve", most + (len(FACTORS) + HALVINGS) * small, 0)


def scoring(experiment: Experiment) -> list[Step]:
    """The scores of every neuron."""
    settings = experiment.config.importance
    train, (searched, _) = experiment.train, counts(experiment)
    images = min(settings.images, len(train) if train else searched)
    exact = ablation.exact_passes(experiment.program, images)
    if exact > settings.exact_passes:
        exact = images * (1 + _BACKWARD * min(settings.classes, experiment.config.model.classes))
    return [Step("Taylor scores", images * _BACKWARD), Step("divergences", exact)]


def failures(devices: int, lost: int) -> int:
    """Sets of devices that fail together, as many as are run."""
    return min(comb(devices, lost), MOST)


def _training(experiment: Experiment) -> list[Step]:
    if experiment.config.run.job == "profile" or not trains_here(experiment.config):
        return []
    given, train = experiment.config.train, experiment.train
    epochs = (0 if experiment.config.model.weights else given.epochs) + (
        given.fault_epochs if given.faults else 0
    )
    passes = epochs * (len(train) if train else 0) * _BACKWARD
    return [Step("training, unless it was done before", passes, 0)]


def _least(step: Step) -> int | float:
    return step.most if step.least is None else step.least


def _memory(experiment: Experiment) -> int | float:
    """Bytes: what stays, and activations of the images that are run at once."""
    config, graph = experiment.config, experiment.graph
    parameters = sum(layer.weights + layer.biases for layer in graph.layers)
    if config.run.job == "profile":
        return _RUNTIME_BYTES
    images = sum(counts(experiment))
    values = math.prod(rows_columns(config.model.image_size)) * config.model.channels
    outputs = sum(layer.inputs + layer.outputs for layer in graph.layers)
    return _RUNTIME_BYTES + 12 * parameters + 5 * images * values + 8 * min(images, 256) * outputs


def _count(passes: int | float) -> str:
    return f"{passes:,.0f}" if passes < 1e9 else f"{passes:.1e}"


def _time(seconds: int | float) -> str:
    units = (("years", 31_557_600), ("days", 86_400), ("h", 3600), ("min", 60))
    for name, size in units:
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{max(seconds, 1):.0f} s"
