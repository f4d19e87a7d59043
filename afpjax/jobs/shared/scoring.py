"""Scores of an experiment's neurons: worked out, or taken from an earlier run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from afpjax.config.work import counted
from afpjax.data.images import Images
from afpjax.evaluate.evaluator import Evaluator
from afpjax.experiment import EvaluatorParts, Experiment
from afpjax.inputs.errors import InputError
from afpjax.jobs.shared.earlier import result_of, whole
from afpjax.jobs.shared.result import Array
from afpjax.neurons.failures import NeuronValues, substitutes
from afpjax.neurons.importance import NAMES
from afpjax.neurons.scoring import HalfScores, half_scores, neuron_scores
from afpjax.neurons.scoring_data import ScoringData


@dataclass(frozen=True)
class ScoredNetwork:
    name: str


@dataclass(frozen=True)
class ScoringImages:
    count: int


@dataclass(frozen=True)
class DivergenceMethod:
    method: str


@dataclass(frozen=True)
class ScoredLayer:
    """A layer's scores by neuron, [C] each."""

    name: str
    l1: Array
    taylor: Array
    jsd: Array


@dataclass(frozen=True)
class ScoredRun:
    """What is read of an earlier run of job importance, of whatever version."""

    model: ScoredNetwork
    images: ScoringImages
    target: str
    divergence: DivergenceMethod
    layers: Sequence[ScoredLayer]


class Scored(NamedTuple):
    """Scores by layer and name, [C] each, and what they were made from."""

    scores: Mapping[str, Mapping[str, Float[np.ndarray, "_"]]]
    images: int
    source: str  # "training", "search", or "importance run"
    divergence: str  # "exact" or "estimate"
    target: str
    pairs: HalfScores = ()  # from either half of the images; none where they are not known


def images_of(experiment: Experiment) -> tuple[Images, str]:
    """Images that neurons are scored on, and where they are from: "training" or "search".

    Training images drawn from the seed, else those that a search sees.
    """
    return experiment.once(_images)


def substitutes_of(experiment: Experiment, kind: str) -> NeuronValues:
    """What lost neurons give, by layer. Means: over the images that neurons are scored on."""
    images = None
    if kind == "mean":
        images = np.asarray(experiment.inputs(images_of(experiment)[0]))
    return substitutes(experiment.quantized, kind, images)


def without_neurons(experiment: Experiment, substitute: str, *, held: bool = True) -> Evaluator:
    """Held-out (or searched) images where neurons can be lost: see `neurons.failures`."""
    return experiment.evaluator(_losing_neurons, substitute, held)


def _losing_neurons(experiment: Experiment, substitute: str, held: bool) -> EvaluatorParts:
    images, name = (experiment.held, "held out") if held else (experiment.searched, "search")
    values = substitutes_of(experiment, substitute)
    return EvaluatorParts(f"{name} without {substitute}", images, substitutes=values)


def _images(experiment: Experiment) -> tuple[Images, str]:
    split, wanted = experiment.train, experiment.config.importance.images
    if split is None or len(split) == 0:
        return experiment.searched.first(wanted), "search"
    order = np.random.default_rng(experiment.config.run.seed).permutation(len(split))
    with counted(experiment.work.progress, "Reading images to score on") as progress:
        return split.take(order[:wanted], progress), "training"


def subject(experiment: Experiment) -> tuple[ScoringData, str]:
    """The network in floating point on the images that neurons are scored on."""
    images, source = images_of(experiment)
    inputs = np.asarray(experiment.inputs(images))
    return ScoringData(experiment.network, inputs, images.labels, experiment.work.memory), source


def scored(experiment: Experiment) -> Scored:
    """The three scores of every neuron; raises `InputError` for an earlier run that has none."""
    folder = experiment.config.distribute.importance
    return _read(Path(folder), experiment) if folder else _worked_out(experiment)


def _worked_out(experiment: Experiment) -> Scored:
    settings, progress = experiment.config.importance, experiment.work.progress
    subjects, source = subject(experiment)
    whole = neuron_scores(
        subjects,
        target=settings.target,
        exact_passes=settings.exact_passes,
        classes=settings.classes,
        task=progress.task,
    )
    count = len(subjects.images)
    with progress.task("Scores of half the images", count) as task:
        pairs = half_scores(subjects, whole, settings.target, settings.classes, task.advance)
    method = "exact" if whole.exact else "estimate"
    return Scored(whole.scores, count, source, method, settings.target, pairs)


def _read(folder: Path, experiment: Experiment) -> Scored:
    """The scores in an importance run's result.json, of a network with the same name and layers."""
    setting = "distribute.importance"
    result = result_of(setting, folder, importance=ScoredRun)
    if result.model.name != experiment.config.model.name:
        raise InputError(
            f"{setting}: {folder} scores {result.model.name}, and the network here is "
            f"{experiment.config.model.name}; name a run that scores this one"
        )
    with whole(setting, folder):
        found = {layer.name: _scores(layer) for layer in result.layers}
        neurons = {layer.name: layer.neurons for layer in experiment.network.layers}
        if {name: len(scores[NAMES[0]]) for name, scores in found.items()} != neurons:
            raise ValueError("its layers are not those of this network")
    return Scored(
        found, result.images.count, "importance run", result.divergence.method, result.target
    )


def _scores(layer: ScoredLayer) -> dict[str, Float[np.ndarray, "_"]]:
    """The scores of a layer's neurons, by name. Raises ValueError for what is none."""
    found = {name: np.array(getattr(layer, name), np.float64) for name in NAMES}
    if len({each.shape for each in found.values()}) != 1 or found[NAMES[0]].ndim != 1:
        raise ValueError(f"scores of {layer.name}")
    if not all(np.isfinite(each).all() for each in found.values()):
        raise ValueError(f"scores of {layer.name} that are no numbers")
    return found
