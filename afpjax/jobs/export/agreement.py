"""Whether an export gives what afpjax gives: logits of both, and answers when a device is lost."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from afpjax.config.work import Task
from afpjax.data.images import Images
from afpjax.deploy.local_runner import LocalRunner
from afpjax.experiment import Experiment
from afpjax.jobs.export.result import Agreement, LostDevice
from afpjax.jobs.shared.result import Estimate
from afpjax.jobs.shared.scoring import without_neurons
from afpjax.neurons.placement import Placement
from afpjax.statistics.intervals import wilson

_AT_ONCE = 32  # images

Logits = Float[np.ndarray, "N classes"]


def agreement(experiment: Experiment, runner: LocalRunner) -> Agreement:
    """The same test images through both, held-out ones first."""
    images = _test_images(experiment)
    count = len(images.labels)
    with experiment.work.progress.task("Comparing logits", 2 * count) as task:
        own = _logits(experiment, images, lambda x: experiment.quantized(jnp.asarray(x)), task)
        theirs = _logits(experiment, images, runner, task)
    return Agreement(
        images=count,
        top1=_share(own.argmax(axis=1) == theirs.argmax(axis=1)),
        largest_difference=float(np.abs(own - theirs).max()) / (float(np.ptp(own)) or 1.0),
        accuracy=float((theirs.argmax(axis=1) == images.labels).mean()),
        afpjax_accuracy=float((own.argmax(axis=1) == images.labels).mean()),
    )


def losses(experiment: Experiment, placement: Placement, runner: LocalRunner) -> list[LostDevice]:
    """Each device lost alone: which held-out images both classify right."""
    held, limit = experiment.held, experiment.config.export.images
    images = held.first(limit)
    evaluator = without_neurons(experiment, experiment.config.distribute.substitute)
    sets = [(device,) for device in range(placement.devices)]
    own = evaluator.evaluate_placements([placement.answering(failed) for failed in sets])[:, 0]
    rows, count = [], len(images.labels)
    with experiment.work.progress.task("Losing devices", count * len(sets)) as task:
        for (device,), right in zip(sets, own, strict=True):
            logits = _logits(experiment, images, lambda x, d=device: runner(x, (d,)), task)
            theirs, right = logits.argmax(axis=1) == images.labels, right[:count]
            rows.append(
                LostDevice(
                    device=runner.manifest.names[device],
                    images=count,
                    alike=float((theirs == right).mean()),
                    accuracy=_share(theirs),
                    afpjax_accuracy=float(right.mean()),
                )
            )
    return rows


def _share(right: Bool[np.ndarray, " N"]) -> Estimate:
    low, high = wilson(int(right.sum()), len(right))
    share = float(right.mean())
    return Estimate(share, min(low, share), max(high, share))


def _test_images(experiment: Experiment) -> Images:
    """No more than `export.images`. Nothing is chosen by them here, so the search's serve too."""
    limit = experiment.config.export.images
    pairs = zip(experiment.held, experiment.searched, strict=True)
    return Images(*(np.concatenate(pair)[:limit] for pair in pairs))


def _logits(
    experiment: Experiment, images: Images, network: Callable[..., Any], task: Task
) -> Logits:
    """Batches are all of one size: the last is filled up with its last image."""
    logits = []
    for start in range(0, len(images.labels), _AT_ONCE):
        part = images.images[start : start + _AT_ONCE]
        missing = np.repeat(part[-1:], _AT_ONCE - len(part), axis=0)
        filled = np.concatenate([part, missing])
        inputs = np.asarray(experiment.inputs_of(filled))
        logits.append(np.asarray(network(inputs))[: len(part)])
        task.advance(len(part))
    return np.concatenate(logits)
