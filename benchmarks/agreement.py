"""Whether a rival computes what we do: its time counts only then."""

import numpy as np
from jaxtyping import Float

CLOSE = 1e-4  # of the logits' range
DEVIATIONS = 5.0  # a right rate fails once in 1.7 million times


class Disagrees(Exception):
    """A rival's answers are not ours, or its masks do not have the rate they should have."""


def check_logits(
    ours: Float[np.ndarray, "B classes"],
    theirs: Float[np.ndarray, "B classes"],
    *,
    exact: bool = False,
) -> None:
    """Raise `Disagrees` unless logits are within `CLOSE` and say the same top-1; or are equal.

    `exact` asks for equality to the bit, as integers below 2^24 have it in any order of summation.
    """
    if ours.shape != theirs.shape:
        raise Disagrees(f"logits of shape {theirs.shape} instead of {ours.shape}")
    distance = float(np.abs(ours - theirs).max() / np.ptp(ours))
    if exact and not np.array_equal(ours, theirs):
        raise Disagrees(f"logits should be equal, and are off by {distance:.1g} of their range")
    if not distance <= CLOSE:
        raise Disagrees(f"logits are off by {distance:.1g} of their range")
    others = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    if others:
        raise Disagrees(f"{others} of {len(ours)} images get another class")


def check_equal(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raise `Disagrees` unless two answers are the same."""
    if not np.array_equal(ours, theirs):
        share = np.mean(ours != theirs) if ours.shape == theirs.shape else 1.0
        raise Disagrees(f"{what}: {share:.1%} of the answers differ")


def check_rate(flips: int, sites: int, rate: float) -> None:
    """Raise `Disagrees` unless so many flips are what independent bits at this rate give."""
    deviation = (sites * rate * (1 - rate)) ** 0.5
    off = abs(flips - sites * rate) / max(deviation, 1e-9)
    if off > DEVIATIONS:
        raise Disagrees(
            f"{flips / sites:.5f} of {sites} bits flip instead of {rate:.5f}: "
            f"{off:.1f} standard deviations"
        )
