"""Neurons left out for real, one at a time: exact divergences, and the accuracy that is lost.

A neuron is one output channel of a layer, and it is gone when its output, after the folded bias
and before the activation, is zero: a placement with one neuron that no device answers for.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Float, Int

from afpjax.evaluate.placements import LOST
from afpjax.neurons.scoring_data import Advance, ScoringData, Vectors
from afpjax.neurons.stability import block_means

AT_ONCE = 256  # neurons whose outcomes are held at once


class LeftOut(NamedTuple):
    """What leaving neurons out, one at a time, does: means over images."""

    divergence: Float[np.ndarray, "N"]  # nats
    drop: Float[np.ndarray, "N"]  # of accuracy, a fraction of 1
    blocks: Float[np.ndarray, "G N"]  # divergence, means over `stability.blocks`


def left_out(
    data: ScoringData,
    wanted: Mapping[int, Int[np.ndarray, "N"]],
    advance: Advance = lambda passes: None,
) -> dict[int, LeftOut]:
    """What leaving out each of some neurons of some layers does, exactly, by layer.

    One step of progress for each neuron and image. A layer that is done is kept.
    """
    count, results = len(data.images), {}
    for layer, neurons in wanted.items():
        name = f"left out {layer} {count} {crc32(neurons.tobytes())}"
        compute = partial(_of_layer, data, layer, neurons, advance)
        sums = data.remembered(name, compute, advance, len(neurons) * count)
        by_block = sums["blocks"].reshape(-1, len(neurons))
        results[layer] = LeftOut(sums["divergence"], data.right - sums["right"], by_block)
    return results


def _of_layer(
    data: ScoringData, layer: int, neurons: Int[np.ndarray, "N"], advance: Advance
) -> Vectors:
    """Means over images, of neurons that are gone one at a time."""
    whole = [np.zeros(own.neurons, np.int8) for own in data.network.layers]
    evaluator, count, parts = data.evaluator, len(data.images), []
    for start in range(0, len(neurons), AT_ONCE):
        without = []
        for neuron in neurons[start : start + AT_ONCE]:
            lost = whole[layer].copy()
            lost[neuron] = LOST
            without.append([*whole[:layer], lost, *whole[layer + 1 :]])
        found = evaluator.evaluate_placements(without, progress=lambda rows: advance(rows * count))
        evaluator.memory.clear()  # the layer's means are what is kept
        parts.append(found[:, 0].astype(np.float64))
    moved, right = np.moveaxis(np.concatenate(parts), 2, 0)
    return {
        "divergence": moved.mean(axis=1),
        "right": right.mean(axis=1),
        "blocks": block_means(moved).ravel(),
    }
