"""A made-up network whose moves add up in logits, for the search that learns."""

import numpy as np

from afpjax.search.objectives import LossObjective

from .world import normal

RATES = np.array([[0.02], [0.2], [0.0]])  # of three devices


class Additive(LossObjective):
    """Layers of random fragility on three devices: frugal and fragile, tough, and safe.

    A draw is hard or easy for all, and hits each mapping in its own way besides.
    """

    seed: int
    count: int
    strength: float
    own: float
    clean: float
    depth: float
    hurt: np.ndarray
    hard: float  # by how much the draws from the fifth on are harder, in logits
    asked: list[tuple[int, tuple[int, ...], float]]

    def __init__(
        self, seed=0, layers=6, images=32, *, strength=1.0, own=0.1, clean=31 / 32, depth=2.0
    ):
        rng = np.random.default_rng(seed)
        fragile = rng.gamma(1.0, 1.0, layers)
        fragile /= fragile.sum()
        hurt = np.stack([0.1 * rng.uniform(0.5, 2, layers), np.ones(layers), np.zeros(layers)])
        settings = dict(
            seed=seed, count=images, strength=strength, own=own, clean=clean, depth=depth,
            hurt=fragile * hurt, hard=0.0, asked=[],
        )  # fmt: skip
        for name, value in settings.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name, value):  # the class it stands for is frozen
        object.__setattr__(self, name, value)

    @property
    def images(self):
        return self.count

    def names(self, mappings):
        return [mapping.tobytes() for mapping in np.asarray(mappings, np.int32)]

    def fault_free(self):
        return self.clean, 0.1

    def logits(self, mappings, factor=1.0):
        """Of the share that is right, in expectation."""
        at = np.arange(self.hurt.shape[1])
        hurt = self.hurt[mappings, at].sum(axis=1)
        return 5.0 - self.strength * 6 * self.depth * factor * hurt

    def accuracy(self, mappings, factor=1.0):
        share = 1 / (1 + np.exp(-self.logits(mappings, factor)))
        return 0.1 + (self.clean - 0.1) * share

    def answers(self, mappings, numbers, factor=1.0):
        numbers = np.array(list(numbers))
        name = np.asarray(mappings) @ 3 ** np.arange(self.hurt.shape[1])
        luck = 0.2 * normal(self.seed, 1, numbers) - self.hard * (numbers >= 4)
        luck = luck + self.own * normal(self.seed, 2, numbers, name[:, None])
        logit = self.logits(mappings, factor)[:, None] + luck
        share = 0.1 + (self.clean - 0.1) / (1 + np.exp(-logit))
        return np.round(self.count * share).astype(np.int64), -np.log(share)

    def outcomes(self, mappings, numbers, factor=1.0):
        self.asked.append((len(mappings), tuple(numbers), factor))
        return self.answers(mappings, numbers, factor)
