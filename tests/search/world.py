"""A made-up world whose accuracies are known, for races and comparisons."""

import itertools

import numpy as np
from scipy import special

from afpjax.search.objectives import RobustnessObjective

CLEAN, IMAGES = 0.95, 64


def normal(*words):
    """A standard normal number for every combination of whole numbers, by mixing their bits."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for word in words:
            state = (state ^ np.asarray(word, np.uint64)) * np.uint64(0xFF51AFD7ED558CCD)
            state = (state ^ (state >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
            state ^= state >> np.uint64(29)
    return special.ndtri((state.astype(np.float64) + 0.5) / 2**64)


class World(RobustnessObjective):
    """Layers on three devices: slow, frugal and tough; cheap and fragile; costly and safe.

    A draw is hard or easy for all (`common`) and strikes each mapping in its own way (`own`).
    """

    @property
    def images(self):
        return IMAGES

    def __init__(self, seed=0, trials=8, layers=12, common=0.3, own=0.4):
        rng = np.random.default_rng(seed)
        object.__setattr__(self, "trials", trials)  # a field of a frozen class
        self.seed, self.layers = seed, layers
        self.common, self.own = common, own
        size = rng.uniform(0.5, 2, layers)
        slow, frugal = size * rng.uniform(2, 3.5, layers), size * rng.uniform(0.4, 0.8, layers)
        costly = size * rng.uniform(1.3, 1.8, layers)
        self.prices = np.stack([[slow, size, 1.01 * size], [frugal, size, costly]])
        fragile = rng.uniform(0.5, 2, layers)
        hurt = np.stack([0.1 * rng.uniform(0.5, 2, layers), fragile, np.zeros(layers)])
        self.hurt = 1.5 * hurt / fragile.sum()
        self.asked: list[tuple[bytes, int]] = []

    def costs(self, mappings):
        at = np.arange(self.layers)
        return self.prices[:, mappings, at].sum(axis=2).T.astype(np.float32)

    def drop(self, mappings):
        hurt = self.hurt[mappings, np.arange(self.layers)].sum(axis=1)
        return 0.85 * (1 - np.exp(-hurt))

    def points(self, mappings):
        return np.column_stack([self.costs(mappings), self.drop(mappings)]).astype(np.float64)

    def rows(self, mappings):
        return [mapping.tobytes() for mapping in mappings]

    def fault_free(self):
        return CLEAN

    def right(self, mappings, numbers):
        self.asked += itertools.product(self.rows(mappings), numbers)
        drop, name = self.drop(mappings)[:, None], mappings @ 3 ** np.arange(self.layers)
        hard = 1 + self.common * normal(self.seed, 1, list(numbers))
        luck = normal(self.seed, 2, list(numbers), name[:, None])
        accuracy = CLEAN - drop * hard - self.own * np.minimum(1, 4 * drop) * luck
        return np.round(IMAGES * accuracy.clip(0, 1)).astype(np.int64)

    def means(self, mappings, numbers):
        """Accuracy over these draws, not noted as asked for."""
        noted = list(self.asked)
        accuracy = self.right(mappings, numbers).mean(axis=1) / IMAGES
        self.asked = noted
        return accuracy

    def genomes(self, count, seed=0):
        return np.random.default_rng(seed).integers(0, 3, (count, self.layers)).astype(np.int32)
