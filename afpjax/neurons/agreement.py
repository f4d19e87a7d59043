"""How far scores agree on which neurons matter: Spearman's rank correlation."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

FEWEST = 3  # neurons; any two are in perfect order or in perfect disorder


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
