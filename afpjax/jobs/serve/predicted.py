"""What afpjax predicts of a service: accuracy with these devices lost, speed, and memory."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from scipy import stats

from afpjax.deploy.manifest import Manifest
from afpjax.deploy.service.requests import ImageRequest
from afpjax.experiment import Experiment
from afpjax.hardware.board import load_board
from afpjax.hardware.platform import load_link
from afpjax.jobs.serve.measured import accuracy, is_right
from afpjax.jobs.serve.result import LostSet, PredictedCost
from afpjax.jobs.shared.result import Estimate
from afpjax.jobs.shared.scoring import without_neurons
from afpjax.neurons.resources import resources
from afpjax.search.objectives import costs
from afpjax.statistics.intervals import wilson

Lost = tuple[int, ...]


def right(
    experiment: Experiment, manifest: Manifest, lost: Sequence[Lost]
) -> dict[Lost, Bool[np.ndarray, " B"]]:
    """Whether afpjax itself classifies each held-out image right, for each set of lost devices.

    A mapping that is made anew gives the answers of the first: no bit flips here.
    """
    if manifest.kind == "mapping":
        clean = experiment.held_out.clean()
        return dict.fromkeys(lost, clean)
    evaluator = without_neurons(experiment, experiment.config.distribute.substitute)
    answering = [manifest.placement.answering(devices) for devices in lost]
    with experiment.work.progress.task("Predicting accuracy", len(lost)) as task:
        right = evaluator.evaluate_placements(answering, progress=task.advance)
    return {devices: row[0] for devices, row in zip(lost, right, strict=True)}


def by_lost(
    answers: Sequence[ImageRequest],
    images: Sequence[int],
    expected: Mapping[Lost, Bool[np.ndarray, " B"]],
    names: Sequence[str],
    labels: np.ndarray,
) -> list[LostSet]:
    """Measured beside predicted accuracy, for each set of lost devices.

    `images` are the held-out images that the stream's images are, and `expected` says which of
    those afpjax itself classifies right.
    """
    rows = []
    for lost, own in expected.items():
        requests = [request for request in answers if request.lost == lost]
        right = np.array([is_right(request, labels) for request in requests])
        alike = int((right == own[[images[request.index] for request in requests]]).sum())
        rows.append(
            LostSet(
                lost=[names[device] for device in lost],
                answered=len(requests),
                accuracy=accuracy(requests, labels),
                predicted=_estimate(float(own.mean()), min(len(requests), len(own))),
                agreement=alike / len(requests),
            )
        )
    return rows


def overall(rows: Sequence[LostSet], held: int) -> Estimate:
    """Predicted of the whole run: each set's accuracy on all `held` images, weighted by answers.

    The interval is that of as many images as were answered, or are held out if these are fewer.
    """
    total = sum(row.answered for row in rows)
    predicted = 0.0
    for row in rows:
        predicted += row.predicted.value * row.answered / total
    return _estimate(predicted, min(total, held))


def speed(experiment: Experiment, manifest: Manifest) -> PredictedCost:
    """Frames per second and latency by the cost model of the hardware that was planned for.

    A mapping: devices work on different batches at the same time, so the busiest, or the link,
    sets the pace. A placement: `robust.resources`, on the boards of distribute.*.
    """
    if manifest.kind == "placement":
        return _boards(experiment, manifest)
    device_of = {layer: task.device for task in manifest.tasks for layer in task.layers}
    names = experiment.platform.names
    mapping = np.array([names.index(device_of[name]) for name in manifest.model.layers], np.int32)
    tables = experiment.tables
    cost = costs(tables, mapping[None])
    layer_ms = np.asarray(tables.latency_ms)[np.arange(len(mapping)), mapping]
    busy = np.bincount(mapping, layer_ms, len(names))
    pace_ms = max(float(busy.max()), float(cost.link_latency_ms[0]))
    batch = experiment.config.platform.batch
    hardware = " and ".join(dict.fromkeys(device_of.values()))
    return PredictedCost(1e3 * batch / pace_ms, float(cost.latency_ms[0]), hardware, batch)


def _boards(experiment: Experiment, manifest: Manifest) -> PredictedCost:
    distribute, batch = experiment.config.distribute, experiment.config.platform.batch
    board = load_board(distribute.board)
    link = load_link(distribute.link, "distribute.link").resending(experiment.faults.sent_times)
    loads = manifest.placement.loads()
    cost = resources(experiment.graph, loads, board, link, batch=batch, images=distribute.stream)
    hardware = f"{len(manifest.devices)} boards {board.name} on {link.name}"
    return PredictedCost(cost.fps, cost.compute_ms + cost.link_ms, hardware, batch)


def _estimate(share: float, images: int) -> Estimate:
    """With where the share of so many images lies: what is likely (95 %) to be drawn, and Wilson's.

    The first has the share 1 where nearly all images are right, the second is no point where all
    held-out images are.
    """
    low, high = wilson(share * images, images)
    least, most = stats.binom.ppf((0.025, 0.975), images, share) / images
    return Estimate(share, min(low, float(least)), max(high, float(most)))
