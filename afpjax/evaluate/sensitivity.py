"""Layer-wise fault sweeping: which layers are fragile, on which device (AFarePart, Section V-C).

Two views, since single-layer drops do not add up: this layer struck alone, and every layer struck
but this one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from afpjax.evaluate.evaluator import Evaluator, Progress
from afpjax.faults.model import FaultModel, Thresholds, keepers, thresholds


class Sensitivity(NamedTuple):
    """Right or wrong for every layer, device, trial and image, in both views."""

    alone: Bool[np.ndarray, "L D K B"]
    all_but: Bool[np.ndarray, "L D K B"]


def sensitivity(
    evaluator: Evaluator,
    faults: FaultModel,
    devices: int,
    trials: int,
    progress: Progress = lambda rows: None,
) -> Sensitivity:
    """Outcomes with one layer struck, and with all but one, at each device's rates.

    Trial numbers 0 … K-1; the draws are those of any mapping, so figures compare in pairs. All
    layers are on one device: faults of a link strike none.
    """
    layers = len(evaluator.quantized.layers)
    one, own = np.eye(layers, dtype=bool), keepers(faults.shared, evaluator.quantized.layers)
    stored = np.equal.outer(own, own)  # weights are struck for all who read them

    def view(*struck: np.ndarray) -> np.ndarray:
        outcomes = _outcomes(evaluator, faults, devices, range(trials), struck, progress)
        return outcomes.reshape(layers, devices, *outcomes.shape[1:])

    return Sensitivity(view(stored, one), view(~stored, ~one))


def drops_alone(
    evaluator: Evaluator, faults: FaultModel, devices: int, trials: Sequence[int]
) -> Float[np.ndarray, "L D"]:
    """Accuracy lost with one layer struck alone, at each device's rates, mean over the trials."""
    one = np.eye(len(evaluator.quantized.layers), dtype=bool)
    outcomes = _outcomes(evaluator, faults, devices, trials, (one, one), lambda rows: None)
    return evaluator.clean(faults).mean() - outcomes.mean(axis=(1, 2)).reshape(len(one), devices)


def _outcomes(
    evaluator: Evaluator,
    faults: FaultModel,
    devices: int,
    trials: Sequence[int],
    struck: tuple[Bool[np.ndarray, "L L"], ...],
    progress: Progress,
) -> Bool[np.ndarray, "LD K B"]:
    """Row l·D + d: the layers of `struck[…][l]`, weights and inputs, at device d's rates."""
    layers = len(struck[0])
    everywhere = np.repeat(np.arange(devices, dtype=np.int32)[:, None], layers, axis=1)
    limits = thresholds(faults, evaluator.quantized, everywhere)

    def rows(table: Any, struck: np.ndarray) -> np.ndarray:
        table = np.asarray(table)
        picked = np.where(struck[:, None, :, None], table[None], np.uint32(0))
        return picked.reshape(layers * devices, *table.shape[1:])

    return evaluator.correct(faults, Thresholds(*map(rows, limits, struck)), trials, progress)
