"""How far scores, and what is made of them, depend on the images, and agree with each other.

The images are dealt to 16 blocks, and 15 ways to halve the blocks, the rows of a Hadamard matrix,
halve every pair of blocks equally often. With A and B what the two halves give,

    s² = mean over the halvings of ((A - B) / 2)²

is the variance of a mean over all images, exactly what the 16 blocks' own variance says, with 15
degrees of freedom; of what is no mean (a placement's memory) it is an estimate. Two halves of n/2
images differ as two means of n/2 do, so halving the difference gives the error at n. Unlike
resampling with replacement, no image counts twice, which clusters of neurons would notice.

McCarthy, "Pseudo-replication: half samples", Review of the International Statistical Institute
37(3), 1969.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.linalg import hadamard
from scipy.stats import spearmanr
from scipy.stats import t as student

from afpjax.network.layers import Layer
from afpjax.neurons.placement import Placement, largest_share

BLOCKS = 16
HALVINGS = BLOCKS - 1
#: Whether a block is in the first half, by halving.
FIRST: Bool[np.ndarray, "H G"] = hadamard(BLOCKS)[1:] > 0
FEWEST = 3  # neurons whose order is compared; any two are in perfect order or in perfect disorder
_T95 = float(student.ppf(0.975, HALVINGS))

Half = TypeVar("Half")


class Spread(NamedTuple):
    """A number that was made from all images: 95 % of where other images would put it."""

    value: float
    interval: tuple[float, float]


class Stability(NamedTuple):
    """What other images would change; overlaps are of placements from two halves of the images."""

    memory: Spread  # share of the weights on the device that holds most
    overlap: float  # of what two placements hold, the share that both hold; the mean
    overlap_lowest: float
    overlap_highest: float


def blocks(images: int) -> list[Int[np.ndarray, "_"]]:
    """Which images are in each block; none where there are fewer images than blocks."""
    dealt = np.arange(images)
    return [dealt[first::BLOCKS] for first in range(BLOCKS)] if images >= BLOCKS else []


def block_means(values: Float[np.ndarray, "N B"]) -> Float64[np.ndarray, "G N"]:
    """Means over the images of each block; [0, N] where there are too few images."""
    means = [values[:, block].mean(axis=1) for block in blocks(values.shape[1])]
    return np.array(means, np.float64).reshape(len(means), len(values))


def halves(
    means: Float[np.ndarray, "G N"], images: int
) -> list[tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "N"]]]:
    """Means over the two halves of the images, for each halving, from those of the blocks."""
    sizes = np.array([len(block) for block in blocks(images)], np.float64)

    def mean(half: Bool[np.ndarray, "G"]) -> Float64[np.ndarray, "N"]:
        return sizes[half] @ means[half] / sizes[half].sum()

    return [(mean(first), mean(~first)) for first in FIRST]


def spread(
    value: float,
    pairs: Sequence[tuple[Half, Half]],
    number: Callable[[Half], float],
    limits: tuple[float, float],
) -> Spread:
    """The 95 % interval of `value`, from what `number` makes of both halves of every halving."""
    apart = np.array([number(first) - number(second) for first, second in pairs])
    error = _T95 * float(np.sqrt(np.mean((apart / 2) ** 2)))
    low, high = limits
    return Spread(value, (max(low, value - error), min(high, value + error)))


def stability(
    placement: Placement, halves: Sequence[tuple[Placement, Placement]], layers: Sequence[Layer]
) -> Stability:
    """Of a placement from all images, by those from either half of them."""

    def memory(placement: Placement) -> float:
        return largest_share(placement, layers)

    overlaps = [overlap(first, second, layers) for first, second in halves]
    interval = spread(memory(placement), halves, memory, (0.0, 1.0))
    return Stability(interval, float(np.mean(overlaps)), min(overlaps), max(overlaps))


def overlap(one: Placement, other: Placement, layers: Sequence[Layer]) -> float:
    """Of the weights that one of two placements keeps on a device, the share that both do."""
    both = either = 0.0
    for layer, ours, theirs in zip(layers, one.holds, other.holds, strict=True):
        parameters = (layer.weights + layer.biases) / layer.neurons
        both += parameters * float((ours & theirs).sum())
        either += parameters * float((ours | theirs).sum())
    return both / either


def spearman(one: Float[np.ndarray, " N"], other: Float[np.ndarray, " N"]) -> float | None:
    """Rank correlation, ties by mean rank, -1 to 1; None where a score is constant or N < 3."""
    if len(one) < FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.asarray(spearmanr(one, other))[0])


def agreement(scores: Mapping[str, Float[np.ndarray, " N"]]) -> dict[str, float]:
    """`spearman` of each two scores, by `ONE_OTHER`; those that do not exist are left out."""
    pairs = {
        f"{one}_{other}": spearman(scores[one], scores[other])
        for one, other in combinations(scores, 2)
    }
    return {name: value for name, value in pairs.items() if value is not None}
