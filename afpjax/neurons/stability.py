"""How much a placement depends on the images that its neurons were scored on."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from afpjax.network.layers import Layer
from afpjax.neurons.equal_memory import largest_share
from afpjax.neurons.half_scores import Pairs, Scores
from afpjax.neurons.halvings import Spread, spread
from afpjax.neurons.placement import Placement


class Stability(NamedTuple):
    """What other images would change; overlaps are of placements from two halves of the images."""

    memory: Spread  # share of the weights on the device that holds most
    overlap: float  # of what two placements hold, the share that both hold; the mean
    overlap_lowest: float
    overlap_highest: float


def stability(
    place: Callable[[Scores], Placement],
    placement: Placement,
    pairs: Pairs,
    layers: Sequence[Layer],
) -> Stability:
    """Of a placement from all images, by those that `place` makes of either half of them."""
    halves = [(place(first), place(second)) for first, second in pairs]
    memory = spread(
        largest_share(placement, layers),
        halves,
        lambda each: largest_share(each, layers),
        (0.0, 1.0),
    )
    overlaps = [overlap(first, second, layers) for first, second in halves]
    return Stability(memory, float(np.mean(overlaps)), min(overlaps), max(overlaps))


def overlap(one: Placement, other: Placement, layers: Sequence[Layer]) -> float:
    """Of the weights that one of two placements keeps on a device, the share that both do."""
    both = either = 0.0
    for layer, ours, theirs in zip(layers, one.holds, other.holds, strict=True):
        each = (layer.weights + layer.biases) / layer.neurons
        both += each * float((ours & theirs).sum())
        either += each * float((ours | theirs).sum())
    return both / either
