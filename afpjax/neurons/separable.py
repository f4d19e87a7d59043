"""Good starts for a search over ordered levels: each gene measured alone, and put together.

A network keeps about the product of what it keeps when each layer alone is thinned. That needs as
many measurements as there are levels, not combinations of them, and says for every memory which
combination to try.

Legend: N choices, G genes, K levels of a gene; level 0 of each gene costs most memory and loses
nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int

_STATES = 2048  # partial combinations that are followed
_FLOOR = 1e-3  # of the accuracy: what is lost altogether is no worse than this


def alone(cardinality: Int[np.ndarray, "G"], most: int) -> list[Int[np.ndarray, "_"]]:
    """Of each gene, which levels to measure with all others at 0: all, or evenly spread, in all
    at most `most` of them where each gene has its last level."""
    levels = [np.arange(1, size) for size in cardinality]
    stride = 1
    while sum(len(_every(each, stride)) for each in levels) > most and stride < max(cardinality):
        stride += 1
    return [_every(each, stride) for each in levels]


def _every(levels: Int[np.ndarray, "_"], stride: int) -> Int[np.ndarray, "_"]:
    """Each `stride`-th, the last among them."""
    return levels[::-1][::stride][::-1]


def genomes_alone(levels: Sequence[Int[np.ndarray, "_"]]) -> Int[np.ndarray, "N G"]:
    """Each gene at each of its levels, all others at 0; genes in their order."""
    found = np.zeros((sum(map(len, levels)), len(levels)), np.int32)
    gene = np.repeat(np.arange(len(levels)), [len(each) for each in levels])
    found[np.arange(len(found)), gene] = np.concatenate(levels)
    return found


def penalties(
    cardinality: Int[np.ndarray, "G"],
    levels: Sequence[Int[np.ndarray, "_"]],
    kept: Float64[np.ndarray, "N"],
) -> list[Float64[np.ndarray, "_"]]:
    """-log of what each gene's levels keep of the accuracy, from `genomes_alone` in its order.

    Levels in between are interpolated; what seems to gain by chance counts as losing nothing.
    """
    found, start = [], 0
    for size, each in zip(cardinality, levels, strict=True):
        own = -np.log(np.clip(kept[start : start + len(each)], _FLOOR, 1.0))
        start += len(each)
        known = np.concatenate([[0], each])
        found.append(np.interp(np.arange(size), known, np.concatenate([[0.0], own])))
    return found


def combined(
    penalty: Sequence[Float64[np.ndarray, "_"]],
    memory: Callable[[Int[np.ndarray, "N G"]], Float64[np.ndarray, "N"]],
) -> Int[np.ndarray, "N G"]:
    """The combinations that are best for some memory if penalties add up; least memory first.

    A knapsack, gene by gene, of which the best partial combinations are followed; exact up to
    2048 of them, beyond that the best of as many equal steps of memory.
    """
    genomes, cost = np.zeros((1, len(penalty)), np.int32), np.zeros(1)
    for gene, own in enumerate(penalty):
        count = len(genomes)
        genomes = np.repeat(genomes, len(own), axis=0)
        genomes[:, gene] = np.tile(np.arange(len(own)), count)
        cost = (cost[:, None] + own).ravel()
        kept = _undominated(memory(genomes), cost)
        genomes, cost = genomes[kept], cost[kept]
    return genomes


def _undominated(
    memory: Float64[np.ndarray, "N"], cost: Float64[np.ndarray, "N"]
) -> Int[np.ndarray, "n"]:
    order = np.lexsort((cost, memory))
    falling = np.minimum.accumulate(cost[order])
    kept = order[np.concatenate([[True], cost[order][1:] < falling[:-1]])]
    if len(kept) <= _STATES:
        return kept
    of = memory[kept]
    step = np.floor((of - of[0]) / (of[-1] - of[0]) * (_STATES - 1))
    last = np.append(step[1:] != step[:-1], True)  # of a step the last costs least
    return kept[last]
