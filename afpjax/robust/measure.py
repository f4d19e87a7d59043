"""First-order scores over many images of large networks, in programs compiled beforehand.

The mathematics is `importance`'s. Sums over images are made in the images' order, so that they do
not depend on which batch was done first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from afpjax import compiler
from afpjax.robust import ablation, first_order
from afpjax.robust.ablation import Scored
from afpjax.robust.importance import images_at_once
from afpjax.robust.subject import (
    Advance,
    Batch,
    Subject,
    Vectors,
    lower,
    on_all_cores,
    remembered,
)


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
            return [np.asarray(each, np.float64)[: batch.count].sum(axis=0) for each in found]

        found = on_all_cores(work, batches, [batch.count for batch in batches], advance)
        mean = [sum(each) / len(subject.images) for each in zip(*found, strict=True)]
        scores, neglected = jax.tree.unflatten(jax.tree.structure(shapes), mean)
        return {**scores, "": np.asarray(neglected)[None]}

    count = len(subject.images)
    scores = remembered(
        subject.memory, subject.key(f"estimate {classes} {count}"), make, advance, count
    )
    neglected = scores.pop("")
    return scores, max(0.0, float(neglected[0]))
