"""What a search that learns has measured, and what that says of one mapping beside another.

Mappings that give every layer the same rates are one: run once, paid once. All meet the same draws
in the same order, so what tells them apart is not the luck of the draw.

Legend: N measured mappings, P mappings, L layers, K draws.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from afpjax.evaluate.evaluator import Progress
from afpjax.search.objectives import LossObjective
from afpjax.search.ridge import DRAWS

_TELLS = 0.01  # chance by which mappings that are all alike seem to differ


class Measured(NamedTuple):
    """One row for each mapping and each factor on the rates, in the order of measurement."""

    mappings: Int[np.ndarray, "N L"]
    factor: Float[np.ndarray, " N"]
    draws: Int[np.ndarray, " N"]
    accuracy: Float[np.ndarray, " N"]  # as if all had met the first `DRAWS` draws
    worth: Float[np.ndarray, " N"]  # standardised: right answers and log loss, large is good


class _Row(NamedTuple):
    mapping: np.ndarray
    factor: float
    right: np.ndarray  # images, by draw
    loss: np.ndarray


class Evidence:
    """Measurements of one search; `passes` are images x draws x different rows."""

    def __init__(self, objective: LossObjective) -> None:
        self.objective = objective
        self.progress: Progress = lambda mappings: None  # told of mappings that were measured
        self._rows: dict[tuple[float, bytes], _Row] = {}

    @property
    def passes(self) -> int:
        """Passes of an image under faults that all this took."""
        return self.objective.images * sum(len(row.right) for row in self._rows.values())

    def measure(
        self, mappings: Int[np.ndarray, "P L"], draws: int = DRAWS, factor: float = 1.0
    ) -> None:
        """Have mappings meet the first so many draws at scaled rates, as far as they have not."""
        names = self.objective.names(mappings)
        missing: dict[int, dict[bytes, np.ndarray]] = {}
        for name, mapping in zip(names, mappings, strict=True):
            row = self._rows.get((factor, name))
            met = 0 if row is None else len(row.right)
            if met < draws:
                missing.setdefault(met, {})[name] = mapping
        for met, new in missing.items():
            answers = self.objective.outcomes(np.array([*new.values()]), range(met, draws), factor)
            for name, mapping, right, loss in zip(new, new.values(), *answers, strict=True):
                if met:
                    row = self._rows[factor, name]
                    right, loss = np.r_[row.right, right], np.r_[row.loss, loss]
                    mapping = row.mapping
                self._rows[factor, name] = _Row(mapping, factor, right, loss)
        self.progress(len(mappings))

    def knows(self, mappings: Int[np.ndarray, "P L"], factor: float | None = None) -> list[bool]:
        """Which mappings were measured, at these rates, or at any."""
        known = {name for of, name in self._rows if factor is None or of == factor}
        return [name in known for name in self.objective.names(mappings)]

    def accuracy(self, mapping: Int[np.ndarray, " L"], factor: float) -> float:
        """Share of images right over all draws that a measured mapping met."""
        row = self._rows[factor, self.objective.names(mapping[None])[0]]
        return float(row.right.mean()) / self.objective.images

    def tells(self, factor: float) -> bool:
        """Whether what was measured at these rates differs by more than the draws' own luck.

        Analysis of variance of log losses, mappings x draws, one in each cell.
        """
        rows = [row.loss[:DRAWS] for row in self._rows.values() if row.factor == factor]
        losses = np.array([row for row in rows if len(row) == DRAWS])
        if len(losses) < 2 or DRAWS < 2:
            return False
        of_mapping = losses.mean(axis=1, keepdims=True)
        rest = losses - of_mapping - losses.mean(axis=0) + losses.mean()
        freedom = len(losses) - 1, (len(losses) - 1) * (DRAWS - 1)
        between = DRAWS * float(((of_mapping - losses.mean()) ** 2).sum()) / freedom[0]
        within = float((rest**2).sum()) / freedom[1]
        if between == 0:
            return False
        return within == 0 or float(stats.f.sf(between / within, *freedom)) < _TELLS

    def table(self) -> Measured:
        """All of it, in one measure.

        Worth is logit((right + 1/2) / (n + 1)) and minus the mean log loss, each standardised
        within its factor, summed and standardised once more. Later draws, which only the best have
        met, count as hard or easy as they were for these.
        """
        rows = list(self._rows.values())
        factor = np.array([row.factor for row in rows])
        draws = np.array([len(row.right) for row in rows])
        images = self.objective.images
        right = _as_first(rows, factor, draws, lambda row: row.right / images).clip(0, 1)
        loss = _as_first(rows, factor, draws, lambda row: row.loss)
        count = images * draws
        share = (right * count + 0.5) / (count + 1)
        worth = _standardised(np.log(share / (1 - share)), factor)
        worth = _standardised(worth - _standardised(loss, factor), factor)
        return Measured(np.array([row.mapping for row in rows]), factor, draws, right, worth)


def _as_first(
    rows: list[_Row],
    factor: np.ndarray,
    draws: np.ndarray,
    values: Callable[[_Row], np.ndarray],
) -> Float[np.ndarray, " N"]:
    """Means over a mapping's draws, less what the later ones add for all who met as many."""
    means = np.array([values(row).mean() for row in rows])
    first = np.array([values(row)[:DRAWS].mean() for row in rows])
    for of, met in set(zip(factor.tolist(), draws.tolist(), strict=True)):
        same = (factor == of) & (draws == met)
        means[same] -= (means - first)[same].mean()
    return means


def _standardised(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Less the mean of each group, over the spread within all of them."""
    centred = values.astype(np.float64)
    for group in np.unique(groups):
        centred[groups == group] -= centred[groups == group].mean()
    return centred / (centred.std() or 1.0)
