"""Whether an export gives what afpjax gives: logits of both, and answers when a device is lost."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from afpjax.config.work import Task
from afpjax.data.dataset import Images, normalise
from afpjax.deploy.chain import Chain
from afpjax.experiment.prepare import Experiment
from afpjax.jobs.shared.records import Record
from afpjax.neurons.placement import Placement
from afpjax.statistics.intervals import wilson

_AT_ONCE = 32  # images

Logits = Float[np.ndarray, "N classes"]


def agreement(experiment: Experiment, chain: Chain) -> Record:
    """The same test images through both, held-out ones first.

    `top1`: share of images with the same class; `largest_difference`: of two logits, as a share of
    the range of afpjax's.
    """
    images = _test_images(experiment)
    count = len(images.labels)
    with experiment.work.progress.task("Comparing logits", 2 * count) as task:
        own = _logits(experiment, images, _afpjax(experiment), task)
        theirs = _logits(experiment, images, chain, task)
    same = own.argmax(axis=1) == theirs.argmax(axis=1)
    span = float(np.ptp(own)) or 1.0
    right = [(logits.argmax(axis=1) == images.labels).mean() for logits in (theirs, own)]
    return {
        "images": count,
        **_share("top1", same),
        "largest_difference": float(np.abs(own - theirs).max()) / span,
        "accuracy": right[0],
        "afpjax_accuracy": right[1],
    }


def losses(experiment: Experiment, placement: Placement, chain: Chain) -> list[Record]:
    """Each device lost alone: which held-out images both classify right.

    `alike`: share of images that are right in both or wrong in both.
    """
    held, limit = experiment.held, experiment.config.export.images
    images = Images(held.images[:limit], held.labels[:limit])
    evaluator = experiment.without(experiment.config.distribute.substitute)
    sets = [(device,) for device in range(placement.devices)]
    own = evaluator.evaluate_placements([placement.answering(failed) for failed in sets])[:, 0]
    rows, count = [], len(images.labels)
    with experiment.work.progress.task("Losing devices", count * len(sets)) as task:
        for (device,), right in zip(sets, own, strict=True):
            logits = _logits(experiment, images, lambda x, d=device: chain(x, (d,)), task)
            theirs, right = logits.argmax(axis=1) == images.labels, right[:count]
            rows.append(
                {
                    "device": chain.manifest.names[device],
                    "images": count,
                    "alike": (theirs == right).mean(),
                    **_share("accuracy", theirs),
                    "afpjax_accuracy": right.mean(),
                }
            )
    return rows


def _share(name: str, right: Bool[np.ndarray, " N"]) -> Record:
    low, high = wilson(int(right.sum()), len(right))
    share = float(right.mean())
    return {name: share, f"{name}_interval": [min(low, share), max(high, share)]}


def _test_images(experiment: Experiment) -> Images:
    """No more than `export.images`. Nothing is chosen by them here, so the search's serve too."""
    limit = experiment.config.export.images
    pairs = zip(experiment.held, experiment.searched, strict=True)
    return Images(*(np.concatenate(pair)[:limit] for pair in pairs))


def _afpjax(experiment: Experiment) -> Callable[[Logits], Logits]:
    return lambda images: np.asarray(experiment.quantized(jnp.asarray(images)))


def _logits(
    experiment: Experiment, images: Images, network: Callable[..., Logits], task: Task
) -> Logits:
    """Batches are all of one size: the last is filled up with its last image."""
    found = []
    for start in range(0, len(images.labels), _AT_ONCE):
        part = images.images[start : start + _AT_ONCE]
        missing = np.repeat(part[-1:], _AT_ONCE - len(part), axis=0)
        filled = np.concatenate([part, missing])
        inputs = np.asarray(normalise(filled, experiment.mean, experiment.std))
        found.append(network(inputs)[: len(part)])
        task.advance(len(part))
    return np.concatenate(found)
