"""What afpjax foretells of a service: accuracy with these devices lost, speed, and memory."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from scipy import stats

from afpjax.deploy.manifest import Manifest
from afpjax.deploy.requests import Request, State
from afpjax.experiment.prepare import Experiment
from afpjax.hardware.board import load_board
from afpjax.hardware.platform import load_link
from afpjax.jobs.shared.records import Record
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
    evaluator = experiment.without(experiment.config.distribute.substitute)
    answering = [manifest.placement.answering(each) for each in lost]
    with experiment.work.progress.task("Foretelling accuracy", len(lost)) as task:
        found = evaluator.evaluate_placements(answering, progress=task.advance)
    return {each: row[0] for each, row in zip(lost, found, strict=True)}


def accuracy(
    answered: Sequence[Request],
    places: Sequence[int],
    said: Mapping[Lost, Bool[np.ndarray, " B"]],
    names: Sequence[str],
    labels: np.ndarray,
) -> Record:
    """Measured beside foretold accuracy: of the whole run, and for each set of lost devices.

    `places` are the held-out images that the stream's images are. What is foretold is afpjax's
    accuracy on all held-out images, weighted by how many were answered under each set; the
    interval is that of as many images as were answered, or are held out if these are fewer.
    `agreement`: the share of answers that are right or wrong where afpjax's own are.
    """
    rows, foretold, alike = [], 0.0, 0
    for lost, own in said.items():
        mine = [each for each in answered if each.lost == lost]
        got = np.array([int(np.argmax(each.logits)) == labels[each.place] for each in mine])  # pyright: ignore
        same = int((got == own[[places[each.place] for each in mine]]).sum())
        rows.append(
            {
                "lost": [names[device] for device in lost],
                "answered": len(mine),
                "accuracy": float(got.mean()),
                "accuracy_interval": list(wilson(int(got.sum()), len(mine))),
                "predicted": float(own.mean()),
                "predicted_interval": _interval(float(own.mean()), min(len(mine), len(own))),
                "agreement": same / len(mine),
            }
        )
        foretold += float(own.mean()) * len(mine) / len(answered)
        alike += same
    held = len(next(iter(said.values())))
    return {
        "predicted": foretold,
        "predicted_interval": _interval(foretold, min(len(answered), held)),
        "agreement": alike / len(answered),
        "by_lost": rows,
    }


def speed(experiment: Experiment, manifest: Manifest) -> Record:
    """Frames per second and latency by the cost model of the hardware that was planned for.

    A mapping: devices work on different batches at the same time, so the busiest, or the link,
    sets the pace. A placement: `robust.resources`, on the boards of distribute.*.
    """
    if manifest.kind == "placement":
        return _boards(experiment, manifest)
    of = {layer: task.device for task in manifest.tasks for layer in task.layers}
    names = experiment.platform.names
    mapping = np.array([names.index(of[name]) for name in manifest.model.layers], np.int32)
    tables = experiment.tables
    cost = costs(tables, mapping[None])
    each = np.asarray(tables.latency_ms)[np.arange(len(mapping)), mapping]
    busy = np.bincount(mapping, each, len(names))
    pace_ms = max(float(busy.max()), float(cost.link_latency_ms[0]))
    batch = experiment.config.platform.batch
    return {
        "fps": 1e3 * batch / pace_ms,
        "latency_ms": float(cost.latency_ms[0]),
        "hardware": " and ".join(dict.fromkeys(of.values())),
        "batch": batch,
    }


def _boards(experiment: Experiment, manifest: Manifest) -> Record:
    given, batch = experiment.config.distribute, experiment.config.platform.batch
    board = load_board(given.board)
    link = load_link(given.link, "distribute.link").resending(experiment.faults.sent_times)
    loads = manifest.placement.loads()
    cost = resources(experiment.graph, loads, board, link, batch=batch, images=given.stream)
    return {
        "fps": cost.fps,
        "latency_ms": cost.compute_ms + cost.link_ms,
        "hardware": f"{len(manifest.devices)} boards {board.name} on {link.name}",
        "batch": batch,
    }


def _interval(share: float, images: int) -> list[float]:
    """Where the share of so many images lies: what is likely (95 %) to be drawn, and Wilson's.

    The first has the share 1 where nearly all images are right, the second is no point where all
    held-out images are.
    """
    low, high = wilson(share * images, images)
    least, most = stats.binom.ppf((0.025, 0.975), images, share) / images
    return [min(low, float(least)), max(high, float(most))]


def answered(requests: Sequence[Request]) -> list[Request]:
    """Those of the stream that were answered."""
    return [each for each in requests if each.place >= 0 and each.state is State.ANSWERED]
