"""The threshold that leads to a wanted memory, so that ways to cluster compare at equal cost."""

from collections.abc import Callable, Sequence

from afpjax.network.layers import Layer
from afpjax.neurons.placement import Placement, memory_share

HALVINGS = 24
LARGEST = 2.0**20  # no scale of scores has neurons so far apart that this does not join them


def largest_share(placement: Placement, layers: Sequence[Layer]) -> float:
    """Share of the network's weights that the fullest device holds."""
    return float(memory_share(placement, layers).max())


def threshold_for(
    memory: float, place: Callable[[float], Placement], layers: Sequence[Layer]
) -> tuple[float, Placement]:
    """The threshold for all layers whose placement's largest share is nearest to `memory`.

    `place(t)` makes a placement. Memory falls with the threshold but for small steps back, so this
    halves an interval and keeps the nearest of what it met; the smaller threshold of equals.
    """
    met: list[tuple[float, float, Placement]] = []

    def share(threshold: float) -> float:
        placement = place(threshold)
        found = largest_share(placement, layers)
        met.append((abs(found - memory), threshold, placement))
        return found

    low, high = 0.0, 1.0
    while share(high) > memory and high < LARGEST:
        low, high = high, 4 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > memory else (low, middle)
    _, threshold, placement = min(met, key=lambda each: each[:2])
    return threshold, placement
