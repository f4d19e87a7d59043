"""First-order scores over many images of large networks, in programs compiled beforehand.

The mathematics is `importance`'s. Sums over images are made in the images' order, so that they do
not depend on which batch was done first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from afpjax.network import compiler
from afpjax.neurons import ablation, first_order
from afpjax.neurons.ablation import Scored
from afpjax.neurons.halvings import block_means
from afpjax.neurons.importance import images_at_once
from afpjax.neurons.subject import (
    Advance,
    Batch,
    Subject,
    Vectors,
    lower,
    on_all_cores,
    remembered,
)

_BY_BLOCK = "by block "


def taylor(subject: Subject, target: str, advance: Advance = lambda images: None) -> Vectors:
    """`importance.taylor`; one step of progress for each image."""

    def make() -> Vectors:
        def gradient(network: Scored, batch: Batch) -> Any:
            return first_order.total_gradient(network, *batch, target)

        batches = subject.batches()
        shapes = jax.eval_shape(gradient, subject.network, batches[0])
        (program,) = compiler.compile_all([lower(gradient, subject.network, batches[0])])
        sums: Any = None
        for batch in batches:
            made = program(subject.network, batch)
            sums = made if sums is None else tuple(map(jnp.add, sums, made))
            advance(batch.count)
        mean = [each / len(subject.images) for each in sums]
        gradients = jax.tree.unflatten(jax.tree.structure(shapes), mean)
        scores = first_order.taylor_of(subject.network, gradients)
        return {name: np.asarray(each, np.float64) for name, each in scores.items()}

    return remembered(
        subject.memory, subject.key(f"taylor {target}"), make, advance, len(subject.images)
    )


def estimate(
    subject: Subject, classes: int, advance: Advance = lambda images: None
) -> tuple[Vectors, float]:
    """`importance.jsd_estimate`; one step of progress for each image."""
    found = _estimated(subject, classes, advance)
    names = [layer.name for layer in subject.network.program.graph.layers]
    return {name: found[name] for name in names}, max(0.0, float(found[""][0]))


def estimate_by_block(subject: Subject, classes: int) -> dict[str, Float[np.ndarray, "G _"]]:
    """`estimate`, as means over each of `halvings.blocks`; known once `estimate` is."""
    found = _estimated(subject, classes, lambda images: None)
    return {
        layer.name: found[f"{_BY_BLOCK}{layer.name}"].reshape(-1, layer.neurons)
        for layer in subject.network.program.graph.layers
    }


def _estimated(subject: Subject, classes: int, advance: Advance) -> Vectors:
    """Scores by layer, those of blocks behind one another, and under "" what is neglected."""
    count = len(subject.images)

    def make() -> Vectors:
        def one(network: Scored, image: Array) -> Any:
            logits = ablation.logits_of(network.program, ablation.clean(network, image))
            return first_order.estimated(network, image, logits, classes)

        def many(network: Scored, images: Array) -> Any:
            return jax.vmap(lambda image: one(network, image))(images)

        program = subject.network.program
        batches = subject.batches(images_at_once(program, classes))
        shapes = jax.eval_shape(many, subject.network, batches[0].images)
        (compiled,) = compiler.compile_all([lower(many, subject.network, batches[0].images)])

        def work(batch: Batch) -> Any:
            found = compiled(subject.network, batch.images)
            return [np.asarray(each, np.float64)[: batch.count] for each in found]

        found = on_all_cores(work, batches, [batch.count for batch in batches], advance)
        several = list(zip(*found, strict=True))
        mean = [sum(part.sum(axis=0) for part in parts) / count for parts in several]
        by_block = [block_means(np.concatenate(parts).T).ravel() for parts in several[:-1]]
        scores, neglected = jax.tree.unflatten(jax.tree.structure(shapes), mean)
        names = sorted(scores)  # the order of a dictionary's leaves
        of_blocks = {f"{_BY_BLOCK}{n}": each for n, each in zip(names, by_block, strict=True)}
        return {**scores, **of_blocks, "": np.asarray(neglected)[None]}

    key = subject.key(f"estimate {classes} {count}")
    return remembered(subject.memory, key, make, advance, count)
