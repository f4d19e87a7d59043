"""What more latency and energy buys: the curve of the share regained over the allowance.

An allowance of factor f is f times the experiment's: with 10 % latency and 5 % energy, 2 stands for
20 and 10 %. Pure functions of points that were measured; nothing here runs a network.
"""

from collections.abc import Sequence

import numpy as np

from afpjax.search.objectives import Caps

FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)
TARGET = 0.8  # share of what faults take that is to be regained
HALVINGS = 3  # of the gap in which the least allowance lies


def scaled_caps(base: Caps, latency: float, energy: float, factor: float) -> Caps:
    """The most that a mapping may cost: so many times the shares `latency` and `energy` more.

    `base` is what the reference costs (ms, mJ).
    """
    return Caps(base.latency_ms * (1 + factor * latency), base.energy_mj * (1 + factor * energy))


def least(
    factors: Sequence[float], regained: Sequence[float], target: float = TARGET
) -> float | None:
    """The least factor that was tried and regains the target, None where none does."""
    reach = [factor for factor, share in zip(factors, regained, strict=True) if share >= target]
    return min(reach) if reach else None


def between(
    factors: Sequence[float], regained: Sequence[float], target: float = TARGET
) -> float | None:
    """The factor to try next on the way to the least that regains the target.

    Halfway from the last one below it that does not; an allowance of nothing regains nothing. None
    where no factor regains it.
    """
    high = least(factors, regained, target)
    if high is None:
        return None
    low = max((factor for factor in factors if factor < high), default=0.0)
    return (low + high) / 2


def knee(factors: Sequence[float], regained: Sequence[float]) -> float | None:
    """The factor after which more buys least: farthest above the chord (Satopaa et al., 2011).

    From the origin, where nothing is allowed and nothing regained, to the largest factor. None
    where no point is above the chord.
    """
    x = np.array([0.0, *factors], np.float64)
    y = np.array([0.0, *regained], np.float64)
    order = np.argsort(x)
    x, y = x[order], y[order]
    if y[-1] <= 0 or len(x) < 3:
        return None
    above = y / y[-1] - x / x[-1]
    place = int(above.argmax())
    return float(x[place]) if above[place] > 1e-9 else None
