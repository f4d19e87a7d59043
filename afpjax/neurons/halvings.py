"""How far scores, and what is made of them, depend on the images: balanced half-samples.

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

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.linalg import hadamard
from scipy.stats import t as student

BLOCKS = 16
HALVINGS = BLOCKS - 1
#: Whether a block is in the first half, by halving.
FIRST: Bool[np.ndarray, "H G"] = hadamard(BLOCKS)[1:] > 0
_T95 = float(student.ppf(0.975, HALVINGS))

Half = TypeVar("Half")


class Spread(NamedTuple):
    """A number that was made from all images: 95 % of where other images would put it."""

    value: float
    interval: tuple[float, float]


def blocks(images: int) -> list[Int[np.ndarray, "_"]]:
    """Which images are in each block; none where there are fewer images than blocks."""
    dealt = np.arange(images)
    return [dealt[first::BLOCKS] for first in range(BLOCKS)] if images >= BLOCKS else []


def block_means(values: Float[np.ndarray, "N B"]) -> Float64[np.ndarray, "G N"]:
    """Means over the images of each block; [0, N] where there are too few images."""
    found = [values[:, block].mean(axis=1) for block in blocks(values.shape[1])]
    return np.array(found, np.float64).reshape(len(found), len(values))


def halves(
    means: Float[np.ndarray, "G N"], images: int
) -> list[tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "N"]]]:
    """Means over the two halves of the images, for each halving, from those of the blocks."""
    sizes = np.array([len(block) for block in blocks(images)], np.float64)

    def mean(chosen: Bool[np.ndarray, "G"]) -> Float64[np.ndarray, "N"]:
        return sizes[chosen] @ means[chosen] / sizes[chosen].sum()

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
