"""Job `importance`: RobustDiCE's three scores of every neuron, and how far they agree.

Scores are those of the network in floating point, as in the paper. Its divergence takes one run of
the network for each neuron: beyond `importance.exact_passes` it is estimated, and a sample of each
layer's neurons is left out for real, to say how good the estimate is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.experiment import Experiment, prepare
from afpjax.jobs.importance.result import (
    CleanAccuracy,
    Correlations,
    DataName,
    Divergence,
    ImportanceResult,
    LayerCorrelations,
    LayerScores,
    Neuron,
    ScoredImages,
)
from afpjax.jobs.importance.view import view
from afpjax.jobs.shared import plans, records, scoring
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import real
from afpjax.neurons import ablation
from afpjax.neurons.importance import NAMES
from afpjax.neurons.left_out import LeftOut, left_out
from afpjax.neurons.scoring import NeuronScores, estimate, neuron_scores
from afpjax.neurons.scoring_data import ScoringData
from afpjax.neurons.stability import agreement, spearman

_UNIT = "nats"  # of divergences


class Neurons(NamedTuple):
    """What was found of one layer's neurons."""

    name: str
    scores: Mapping[str, Float[np.ndarray, " C"]]
    out: Int[np.ndarray, " N"]  # neurons that were left out for real
    lost: LeftOut  # what that did
    estimated: Float[np.ndarray, " N"] | None  # their estimate on the same images, if there is one


def plan(config: Config, work: Work) -> object:
    """Scores; where divergences are estimated, a sample of neurons is left out to check them."""
    experiment, settings = prepare(config, work), config.importance
    neurons = sum(min(settings.sample, layer.neurons) for layer in experiment.graph.layers)
    sampled = neurons * min(settings.sample_images, settings.images)
    steps = [*plans.scoring(experiment), plans.Step("neurons left out", sampled, 0)]
    return plans.shown(experiment, steps)


def run(config: Config, work: Work) -> Outcome:
    """Scores of every neuron, their rank correlations, and accuracy lost without a neuron."""
    experiment = prepare(config, work)
    subject, source = scoring.subject(experiment)
    program, settings = experiment.network.program, config.importance
    clean, cost = subject.right, ablation.exact_passes(program, len(subject.images))
    scores = neuron_scores(
        subject,
        target=settings.target,
        exact_passes=settings.exact_passes,
        classes=settings.classes,
        task=work.progress.task,
    )
    layers, divergence = (_exact if scores.exact else _estimated)(experiment, subject, scores, cost)
    result = ImportanceResult(
        model=records.model(experiment),
        data=DataName(experiment.data_name),
        images=ScoredImages(len(subject.images), source),
        clean=CleanAccuracy(float(clean)),
        notes=records.chance(experiment, scoring.images_of(experiment)[0]),
        target=settings.target,
        divergence=divergence,
        layers=[_layer(layer) for layer in layers],
        correlations=_correlations(layers),
        neurons=[row for layer in layers for row in _neurons(layer)],
    )
    return Outcome(result, view=view(result))


def _exact(
    experiment: Experiment, subject: ScoringData, scores: NeuronScores, passes: float
) -> tuple[list[Neurons], Divergence]:
    """Every neuron of every layer left out."""
    layers = [
        Neurons(
            layer.name,
            _float32(scores.scores[layer.name]),
            np.arange(layer.neurons),
            scores.left_out[number],
            None,
        )
        for number, layer in enumerate(experiment.graph.layers)
    ]
    return layers, Divergence(_UNIT, "exact", passes, experiment.config.importance.exact_passes)


def _estimated(
    experiment: Experiment, subject: ScoringData, scores: NeuronScores, passes: float
) -> tuple[list[Neurons], Divergence]:
    """All divergences estimated, and some of every layer's neurons left out to check them."""
    layers, settings = experiment.graph.layers, experiment.config.importance
    checked = subject.first(settings.sample_images)
    with experiment.work.progress.task("Estimates to check", len(checked.images)) as task:
        same, _ = estimate(checked, settings.classes, task.advance)
    some = {n: _sample(experiment, n, layer.neurons) for n, layer in enumerate(layers)}
    runs = len(checked.images) * sum(map(len, some.values()))
    with experiment.work.progress.task("Leaving out a sample of neurons", runs) as task:
        lost = left_out(checked, some, task.advance)
    found = []
    for number, layer in enumerate(layers):
        own, out = _float32(scores.scores[layer.name]), some[number]
        found.append(Neurons(layer.name, own, out, lost[number], same[layer.name][out]))
    classes = min(settings.classes, experiment.config.model.classes)
    limit, neglected = settings.exact_passes, real(scores.neglected)
    count = len(checked.images)
    return found, Divergence(_UNIT, "estimate", passes, limit, classes, neglected, count)


def _sample(experiment: Experiment, number: int, neurons: int) -> Int[np.ndarray, " N"]:
    """Some neurons of a layer, in order, drawn from the seed."""
    key = jax.random.fold_in(experiment.key("importance"), number)
    count = min(experiment.config.importance.sample, neurons)
    return np.sort(np.asarray(jax.random.permutation(key, neurons)[:count]))


def _float32(scores: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " C"]]:
    return {name: np.asarray(values, np.float32) for name, values in scores.items()}


def _layer(layer: Neurons) -> LayerScores:
    """A layer's scores, and how good its estimate is where there is one."""
    scores = [layer.scores[name] for name in NAMES]
    if layer.estimated is None:
        return LayerScores(layer.name, *scores, drop=layer.lost.drop, jsd_method="exact")
    return LayerScores(
        layer.name,
        *scores,
        drop=None,
        jsd_method="estimate",
        jsd_error=real(np.sqrt(np.mean((layer.estimated - layer.lost.divergence) ** 2))),
        jsd_sample_mean=real(layer.lost.divergence.mean()),
        jsd_sampled=len(layer.out),
        jsd_rank_correlation=spearman(layer.estimated, layer.lost.divergence),
    )


def _correlations(layers: Sequence[Neurons]) -> Correlations:
    """Over all neurons, and within each layer."""

    def all_of(parts: Sequence[Any]) -> Float[np.ndarray, " N"]:
        return np.concatenate(parts)

    scores = {name: all_of([layer.scores[name] for layer in layers]) for name in NAMES}
    out = {name: all_of([layer.scores[name][layer.out] for layer in layers]) for name in NAMES}
    whole = _agreement(scores, out, all_of([layer.lost.drop for layer in layers]))
    return Correlations(whole, [_within(layer) for layer in layers])


def _within(layer: Neurons) -> LayerCorrelations:
    out = {name: scores[layer.out] for name, scores in layer.scores.items()}
    return LayerCorrelations(layer.name, _agreement(layer.scores, out, layer.lost.drop))


def _agreement(
    scores: Mapping[str, Any], out: Mapping[str, Any], drop: Float[np.ndarray, " N"]
) -> dict[str, float]:
    """Between each two scores; between each score and the drop, of neurons that were left out."""
    found = agreement(scores)
    for name in NAMES:
        if (value := spearman(out[name], drop)) is not None:
            found[f"{name}_drop"] = value
    return found


def _neurons(layer: Neurons) -> list[Neuron]:
    """Every neuron; where divergences are estimated, what was measured beside them."""
    rows = [
        Neuron(layer.name, number, *(real(layer.scores[name][number]) for name in NAMES))
        for number in range(len(layer.scores["l1"]))
    ]
    for index, neuron in enumerate(layer.out):
        drop, divergence = real(layer.lost.drop[index]), real(layer.lost.divergence[index])
        left_out = None if layer.estimated is None else divergence
        rows[neuron] = replace(rows[neuron], drop=drop, jsd_left_out=left_out)
    return rows
