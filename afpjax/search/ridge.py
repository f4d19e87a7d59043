"""What single moves away from a reference are worth, learnt from mappings that were measured.

A mapping is the sum of its moves: one column for each layer and each choice but the reference's.
Bayesian ridge regression gives their worth, and how sure it is, in closed form (Bishop, "Pattern
Recognition and Machine Learning", 2006, 3.3). A safer device is never worth less than one that errs
more, which the regression does not know; `gains` does.

Shape legend: N measured mappings, P mappings, L layers, D devices, F moves, G groups.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from afpjax.search.maximal import Reliability

NOISE = 0.1  # variance of a standardised measurement of `DRAWS` draws
DRAWS = 4  # behind a measurement; half as many have twice the variance
_PRIOR = 1.0  # variance of a move's worth
_LEVELS = 100.0  # variance of a group's level: nothing is known of it
_SAFER = 1e-3  # worth of erring less where nothing else tells


class Moves(NamedTuple):
    """Columns of the regression."""

    column: Int[np.ndarray, "L D"]  # -1 for what is alike to the reference's choice
    count: int
    reliability: Reliability

    def features(self, mappings: Int[np.ndarray, "P L"]) -> Float[np.ndarray, "P F"]:
        """1 for each move that a mapping makes."""
        made = self.column[np.arange(len(self.column)), mappings]
        return (made[:, :, None] == np.arange(self.count)).any(axis=1).astype(np.float64)

    def single(self, reference: Int[np.ndarray, " L"]) -> Int[np.ndarray, "F L"]:
        """The mappings that are one move away from the reference, by column."""
        singles = np.repeat(reference[None], self.count, axis=0)
        for number in range(self.count):
            layer, device = np.argwhere(self.column == number)[0]
            singles[number, layer] = device
        return singles


def moves_of(reliability: Reliability, reference: Int[np.ndarray, " L"]) -> Moves:
    """The moves away from a reference; devices that are alike for a layer are one choice."""
    alike, column, count = reliability.alike, np.full(reliability.alike.shape, -1), 0
    for layer, device in np.ndindex(*alike.shape):
        if alike[layer, device] == alike[layer, reference[layer]]:
            continue
        if alike[layer, device] == device:
            column[layer, device], count = count, count + 1
        else:
            column[layer, device] = column[layer, alike[layer, device]]
    return Moves(column, count, reliability)


class Posterior(NamedTuple):
    """A normal distribution over the worth of every move."""

    mean: Float[np.ndarray, " F"]
    covariance: Float[np.ndarray, "F F"]

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
        """One possible worth of every move."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(values.clip(min=0))
        return self.mean + root @ rng.normal(size=len(self.mean))


def posterior(
    features: Float[np.ndarray, "N F"],
    worth: Float[np.ndarray, " N"],
    draws: Int[np.ndarray, " N"],
    groups: Int[np.ndarray, " N"],
) -> Posterior:
    """What measurements say of the moves.

    `worth` is standardised, its noise `NOISE` for `DRAWS` draws. Each group (0 … G-1) has a level
    of its own: mappings that met faults at other rates are compared among themselves alone.
    """
    levels = (groups[:, None] == np.arange(groups.max(initial=0) + 1)).astype(np.float64)
    x = np.concatenate([features, levels], axis=1)
    weight = draws / (NOISE * DRAWS)
    prior = np.r_[np.full(features.shape[1], _PRIOR), np.full(levels.shape[1], _LEVELS)]
    covariance = np.linalg.inv((x * weight[:, None]).T @ x + np.diag(1 / prior))
    mean = covariance @ (x.T @ (weight * worth))
    count = features.shape[1]
    return Posterior(mean[:count], covariance[:count, :count])


def gains(moves: Moves, worth: Float[np.ndarray, " F"]) -> Float[np.ndarray, "L D"]:
    """What each device is worth to each layer; 0 is the reference's, but for `_SAFER`.

    A device is worth as much as any that errs more, and a trifle for each of these.
    """
    own = np.concatenate([worth, [0.0]])[moves.column]  # column -1 is the reference's
    below = np.where(moves.reliability.safer, own[:, :, None], -np.inf).max(axis=1)
    return np.maximum(own, below) + _SAFER * moves.reliability.safer.sum(axis=1)


def total(
    gain: Float[np.ndarray, "L D"], mappings: Int[np.ndarray, "P L"]
) -> Float[np.ndarray, " P"]:
    """What mappings are worth: the sum over their layers."""
    return gain[np.arange(len(gain)), mappings].sum(axis=1)
