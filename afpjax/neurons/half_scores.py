"""Scores of neurons from either half of the images, for each of the balanced halvings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from afpjax.network import compiler
from afpjax.neurons import first_order
from afpjax.neurons.ablation import Scored
from afpjax.neurons.halvings import FIRST, HALVINGS, blocks, halves
from afpjax.neurons.importance import images_at_once
from afpjax.neurons.subject import Advance, Batch, Subject, Vectors, lower, remembered

_ROOM = 2**31  # bytes of the sums of gradients that are held at once

#: {layer: {name: [C]}}, as `importance` has them.
Scores = dict[str, dict[str, Float[np.ndarray, "_"]]]
Pairs = Sequence[tuple[Scores, Scores]]


def half_scores(
    subject: Subject,
    l1: Mapping[str, Any],
    divergence: Mapping[str, Float[np.ndarray, "G _"]],
    target: str,
    advance: Advance = lambda images: None,
) -> Pairs:
    """All three scores of both halves, for each halving; [] with fewer images than blocks.

    `divergence` are means over `halvings.blocks`, by layer. l1 knows no images. One step of
    progress for each image.
    """
    count = len(subject.images)
    slopes = taylor_halves(subject, target, advance)
    moved = {name: halves(each, count) for name, each in divergence.items()} if slopes else {}

    def half(number: int, side: int) -> Scores:
        return {
            name: {
                "l1": np.asarray(l1[name]),
                "taylor": slopes[number][side][name],
                "jsd": moved[name][number][side],
            }
            for name in divergence
        }

    return [(half(number, 0), half(number, 1)) for number in range(len(slopes))]


def taylor_halves(
    subject: Subject, target: str, advance: Advance = lambda images: None
) -> list[tuple[Vectors, Vectors]]:
    """`measure.taylor` of both halves, for each halving.

    Gradients are summed with their signs before magnitudes are taken, so every half has sums of its
    own. They are of all weights, so large networks take several passes over the images.
    """
    count = len(subject.images)
    if not blocks(count):
        return []

    def make() -> Vectors:
        work = _Gradients.of(subject, target)
        most = max(1, _ROOM // work.bytes)
        found = {}
        for start in range(0, HALVINGS, most):
            for key, scores in work.of_halves(range(start, min(start + most, HALVINGS))):
                found |= {f"{key}/{name}": scores[name] for name in scores}
        return found

    key = subject.key(f"taylor halves {target} {count}")
    every = remembered(subject.memory, key, make, advance, count)
    names = [layer.name for layer in subject.network.program.graph.layers]
    return [
        (
            {name: every[f"{number} 0/{name}"] for name in names},
            {name: every[f"{number} 1/{name}"] for name in names},
        )
        for number in range(HALVINGS)
    ]


class _Gradients:
    """Sums of gradients over parts of a subject's images."""

    def __init__(
        self, network: Scored, program: Any, shapes: Any, batches: Sequence[Sequence[Batch]]
    ) -> None:
        self._network, self._program, self._shapes = network, program, shapes
        self._batches = batches
        self.bytes = sum(each.size * each.dtype.itemsize for each in jax.tree.leaves(shapes))

    @classmethod
    def of(cls, subject: Subject, target: str) -> "_Gradients":
        def gradient(network: Scored, batch: Batch) -> Any:
            return first_order.total_gradient(network, *batch, target)

        parts = blocks(len(subject.images))
        size = min(images_at_once(subject.network.program), len(parts[-1]))  # the smallest
        images, labels = np.asarray(subject.images), np.asarray(subject.labels)
        subjects = [Subject(subject.network, images[p], labels[p], {}) for p in parts]
        batches = [each.batches(size) for each in subjects]
        shapes = jax.eval_shape(gradient, subject.network, batches[0][0])
        (program,) = compiler.compile_all([lower(gradient, subject.network, batches[0][0])])
        return cls(subject.network, program, shapes, batches)

    def of_halves(self, chosen: Sequence[int]) -> Iterator[tuple[str, Vectors]]:
        """Taylor scores of both halves of some halvings, in one pass over the images."""
        zeros = [np.zeros(each.shape, each.dtype) for each in jax.tree.leaves(self._shapes)]
        total, firsts = zeros, {number: [each.copy() for each in zeros] for number in chosen}
        for block, batches in enumerate(self._batches):
            for batch in batches:
                made = [np.asarray(each) for each in self._program(self._network, batch)]
                _add(total, made)
                for number in chosen:
                    if FIRST[number, block]:
                        _add(firsts[number], made)
        for number, first in firsts.items():
            second = [each - part for each, part in zip(total, first, strict=True)]
            yield f"{number} 0", self._scores(first, FIRST[number])
            yield f"{number} 1", self._scores(second, ~FIRST[number])

    def _scores(self, sums: Sequence[np.ndarray], of: np.ndarray) -> Vectors:
        images = sum(b.count for block in np.flatnonzero(of).tolist() for b in self._batches[block])
        mean = jax.tree.unflatten(
            jax.tree.structure(self._shapes), [each / np.float32(images) for each in sums]
        )
        scores = first_order.taylor_of(self._network, mean)
        return {name: np.asarray(each, np.float64) for name, each in scores.items()}


def _add(sums: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> None:
    for total, each in zip(sums, made, strict=True):
        total += each
