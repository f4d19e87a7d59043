"""Scores of every neuron over many images of large networks, in programs compiled beforehand.

The mathematics is `importance`'s. Sums over images are made in the images' order, so that they do
not depend on which batch was done first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from afpjax.network import compiler
from afpjax.neurons import ablation, importance
from afpjax.neurons.ablation import AnyNetwork, images_at_once
from afpjax.neurons.left_out import LeftOut, left_out
from afpjax.neurons.scoring_data import (
    Advance,
    ScoringBatch,
    ScoringData,
    Vectors,
    lower,
    on_all_cores,
)
from afpjax.neurons.stability import FIRST, HALVINGS, block_means, blocks, halves

_BY_BLOCK = "by block "
_ROOM = 2**31  # bytes of the sums of gradients that are held at once

#: {layer: {name: [C]}}, as `importance` has them.
Scores = dict[str, dict[str, Float[np.ndarray, "_"]]]
#: Scores from either half of the images, for each halving.
HalfScores = Sequence[tuple[Scores, Scores]]
#: (description, steps) -> context of something with `advance(steps)`: a progress bar.
Task = Callable[[str, int], AbstractContextManager[Any]]


@dataclass(frozen=True)
class NeuronScores:
    """The three scores of every neuron, and how the divergences were had."""

    scores: Scores
    left_out: dict[int, LeftOut]  # all neurons of each layer; {} where divergences are estimated
    neglected: float  # probability of the classes that an estimate takes not to change

    @property
    def exact(self) -> bool:
        return bool(self.left_out)


def neuron_scores(
    data: ScoringData, *, target: str, exact_passes: int, classes: int, task: Task
) -> NeuronScores:
    """l1, Taylor and Jensen-Shannon scores of every neuron, as `importance` has them, float64.

    Divergences are exact up to `exact_passes` passes of an image through the network.
    """
    layers, count = data.network.program.graph.layers, len(data.images)
    with task("Taylor scores", count) as progress:
        slopes = taylor(data, target, progress.advance)
    lost: dict[int, LeftOut] = {}
    neglected = 0.0
    if ablation.exact_passes(data.network.program, count) <= exact_passes:
        every = {index: np.arange(layer.neurons) for index, layer in enumerate(layers)}
        runs = count * sum(layer.neurons for layer in layers)
        with task("Leaving out neurons", runs) as progress:
            lost = left_out(data, every, progress.advance)
        moved = {layer.name: lost[index].divergence for index, layer in enumerate(layers)}
    else:
        with task("Estimating divergences", count) as progress:
            moved, neglected = estimate(data, classes, progress.advance)
    sizes = importance.l1(data.network)
    scores = {
        name: {"l1": np.asarray(sizes[name]), "taylor": slopes[name], "jsd": moved[name]}
        for name in data.network.program.graph.names
    }
    return NeuronScores(scores, lost, neglected)


def taylor(data: ScoringData, target: str, advance: Advance = lambda images: None) -> Vectors:
    """`importance.taylor`; one step of progress for each image."""

    def compute() -> Vectors:
        batches = data.batches()
        program, shapes = _gradient_program(data.network, batches[0], target)
        sums: Any = None
        for batch in batches:
            gradients = program(data.network, batch)
            sums = gradients if sums is None else tuple(map(jnp.add, sums, gradients))
            advance(batch.count)
        mean = [total / len(data.images) for total in sums]
        return _taylor_of(data.network, shapes, mean)

    return data.remembered(f"taylor {target}", compute, advance, len(data.images))


def estimate(
    data: ScoringData, classes: int, advance: Advance = lambda images: None
) -> tuple[Vectors, float]:
    """`importance.jsd_estimate`; one step of progress for each image."""
    scores = _estimated(data, classes, advance)
    names = data.network.program.graph.names
    return {name: scores[name] for name in names}, max(0.0, float(scores[""][0]))


def estimate_by_block(data: ScoringData, classes: int) -> dict[str, Float[np.ndarray, "G _"]]:
    """`estimate`, as means over each of `stability.blocks`; known once `estimate` is."""
    scores = _estimated(data, classes, lambda images: None)
    return {
        layer.name: scores[f"{_BY_BLOCK}{layer.name}"].reshape(-1, layer.neurons)
        for layer in data.network.program.graph.layers
    }


def _estimated(data: ScoringData, classes: int, advance: Advance) -> Vectors:
    """Scores by layer, those of blocks behind one another, and under "" what is neglected."""
    count = len(data.images)

    def compute() -> Vectors:
        def of_images(network: AnyNetwork, images: Array) -> Any:
            return jax.vmap(lambda image: importance.estimated(network, image, classes))(images)

        batches = data.batches(images_at_once(data.network.program, classes))
        shapes = jax.eval_shape(of_images, data.network, batches[0].images)
        (program,) = compiler.compile_all([lower(of_images, data.network, batches[0].images)])

        def work(batch: ScoringBatch) -> Any:
            outputs = program(data.network, batch.images)
            return [np.asarray(output, np.float64)[: batch.count] for output in outputs]

        results = on_all_cores(work, batches, [batch.count for batch in batches], advance)
        by_output = list(zip(*results, strict=True))
        mean = [sum(part.sum(axis=0) for part in parts) / count for parts in by_output]
        by_block = [block_means(np.concatenate(parts).T).ravel() for parts in by_output[:-1]]
        scores, neglected = jax.tree.unflatten(jax.tree.structure(shapes), mean)
        names = sorted(scores)  # the order of a dictionary's leaves
        of_blocks = {f"{_BY_BLOCK}{n}": means for n, means in zip(names, by_block, strict=True)}
        return {**scores, **of_blocks, "": np.asarray(neglected)[None]}

    return data.remembered(f"estimate {classes} {count}", compute, advance, count)


def half_scores(
    data: ScoringData,
    whole: NeuronScores,
    target: str,
    classes: int,
    advance: Advance = lambda images: None,
) -> HalfScores:
    """The scores of both halves of the images, for each halving; [] with fewer images than blocks.

    `whole` are those of all images. l1 knows no images. One step of progress for each image.
    """
    count, names = len(data.images), data.network.program.graph.names
    slopes = taylor_halves(data, target, advance)
    if not slopes:
        return []
    if whole.exact:
        means = {name: whole.left_out[index].blocks for index, name in enumerate(names)}
    else:
        means = estimate_by_block(data, classes)
    moved = {name: halves(means[name], count) for name in names}

    def half(number: int, side: int) -> Scores:
        return {
            name: {
                "l1": whole.scores[name]["l1"],
                "taylor": slopes[number][side][name],
                "jsd": moved[name][number][side],
            }
            for name in names
        }

    return [(half(number, 0), half(number, 1)) for number in range(len(slopes))]


def taylor_halves(
    data: ScoringData, target: str, advance: Advance = lambda images: None
) -> list[tuple[Vectors, Vectors]]:
    """`taylor` of both halves, for each halving.

    Gradients are summed with their signs before magnitudes are taken, so every half has sums of its
    own. They are of all weights, so large networks take several passes over the images.
    """
    count = len(data.images)
    if not blocks(count):
        return []

    def compute() -> Vectors:
        gradients = _BlockGradients(data, target)
        most = max(1, _ROOM // gradients.bytes)
        vectors = {}
        for start in range(0, HALVINGS, most):
            for key, scores in gradients.halves(range(start, min(start + most, HALVINGS))):
                vectors |= {f"{key}/{name}": scores[name] for name in scores}
        return vectors

    vectors = data.remembered(f"taylor halves {target} {count}", compute, advance, count)

    def half(number: int, side: int) -> Vectors:
        names = data.network.program.graph.names
        return {name: vectors[f"{number} {side}/{name}"] for name in names}

    return [(half(number, 0), half(number, 1)) for number in range(HALVINGS)]


class _BlockGradients:
    """Sums of gradients over the blocks of a network's images."""

    def __init__(self, data: ScoringData, target: str) -> None:
        parts = blocks(len(data.images))
        size = min(images_at_once(data.network.program), len(parts[-1]))  # the smallest
        images, labels = np.asarray(data.images), np.asarray(data.labels)
        of_blocks = [ScoringData(data.network, images[p], labels[p], {}) for p in parts]
        self._network, self._batches = data.network, [block.batches(size) for block in of_blocks]
        self._program, self._shapes = _gradient_program(self._network, self._batches[0][0], target)
        leaves = jax.tree.leaves(self._shapes)
        self.bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    def halves(self, numbers: Sequence[int]) -> Iterator[tuple[str, Vectors]]:
        """Taylor scores of both halves of some halvings, in one pass over the images."""
        zeros = [np.zeros(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(self._shapes)]
        total, firsts = zeros, {number: [zero.copy() for zero in zeros] for number in numbers}
        for block, batches in enumerate(self._batches):
            for batch in batches:
                gradients = [np.asarray(leaf) for leaf in self._program(self._network, batch)]
                _add(total, gradients)
                for number in numbers:
                    if FIRST[number, block]:
                        _add(firsts[number], gradients)
        for number, first in firsts.items():
            second = [whole - part for whole, part in zip(total, first, strict=True)]
            yield f"{number} 0", self._scores(first, FIRST[number])
            yield f"{number} 1", self._scores(second, ~FIRST[number])

    def _scores(self, sums: Sequence[np.ndarray], of: np.ndarray) -> Vectors:
        images = sum(b.count for block in np.flatnonzero(of).tolist() for b in self._batches[block])
        mean = [total / np.float32(images) for total in sums]
        return _taylor_of(self._network, self._shapes, mean)


def _gradient_program(network: AnyNetwork, batch: ScoringBatch, target: str) -> tuple[Any, Any]:
    """Compiled: (network, batch) -> leaves of the summed gradient; and the gradient's shapes."""

    def gradient(network: AnyNetwork, batch: ScoringBatch) -> Any:
        return importance.total_gradient(network, *batch, target)

    (program,) = compiler.compile_all([lower(gradient, network, batch)])
    return program, jax.eval_shape(gradient, network, batch)


def _taylor_of(network: AnyNetwork, shapes: Any, mean: Sequence[Any]) -> Vectors:
    """Taylor scores, float64, from the leaves of a mean gradient."""
    gradients = jax.tree.unflatten(jax.tree.structure(shapes), mean)
    scores = importance.taylor_of(network, gradients)
    return {name: np.asarray(values, np.float64) for name, values in scores.items()}


def _add(sums: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
    for total, value in zip(sums, values, strict=True):
        total += value
