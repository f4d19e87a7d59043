"""Layer-wise fault sweeping: which layers are fragile, on which device (AFarePart, Section V-C).

Two views, since single-layer drops do not add up: this layer faulty alone, and every layer faulty
but this one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from afpjax.evaluate.evaluator import Evaluator, Progress
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.spec import Thresholds, keepers


class SensitivityOutcomes(NamedTuple):
    """Right or wrong for every layer, device, trial and image, in both views."""

    alone: Bool[np.ndarray, "L D K B"]
    all_but: Bool[np.ndarray, "L D K B"]


def sensitivity(
    evaluator: Evaluator,
    faults: FaultModel,
    devices: int,
    trials: int,
    progress: Progress = lambda rows: None,
) -> SensitivityOutcomes:
    """Outcomes with faults in one layer, and in all but one, at each device's rates.

    Trial numbers 0 … K-1; the draws are those of any mapping, so figures compare in pairs. All
    layers are on one device: a link has no faults.
    """
    layers = len(evaluator.quantized.layers)
    one, own = np.eye(layers, dtype=bool), keepers(faults.shared, evaluator.quantized.layers)
    stored = np.equal.outer(own, own)  # weights are faulty for all who read them

    def view(*faulty: np.ndarray) -> np.ndarray:
        outcomes = _outcomes(evaluator, faults, devices, range(trials), faulty, progress)
        return outcomes.reshape(layers, devices, *outcomes.shape[1:])

    return SensitivityOutcomes(view(stored, one), view(~stored, ~one))


def drops_alone(
    evaluator: Evaluator, faults: FaultModel, devices: int, trials: Sequence[int]
) -> Float[np.ndarray, "L D"]:
    """Accuracy lost with one layer faulty alone, at each device's rates, mean over the trials."""
    one = np.eye(len(evaluator.quantized.layers), dtype=bool)
    outcomes = _outcomes(evaluator, faults, devices, trials, (one, one), lambda rows: None)
    return evaluator.clean(faults).mean() - outcomes.mean(axis=(1, 2)).reshape(len(one), devices)


def _outcomes(
    evaluator: Evaluator,
    faults: FaultModel,
    devices: int,
    trials: Sequence[int],
    faulty: tuple[Bool[np.ndarray, "L L"], ...],
    progress: Progress,
) -> Bool[np.ndarray, "LD K B"]:
    """Row l·D + d: the layers of `faulty[…][l]`, weights and inputs, at device d's rates."""
    layers = len(faulty[0])
    everywhere = np.repeat(np.arange(devices, dtype=np.int32)[:, None], layers, axis=1)
    whole = thresholds(faults, evaluator.quantized, everywhere)

    def rows(table: Any, faulty: np.ndarray) -> np.ndarray:
        table = np.asarray(table)
        picked = np.where(faulty[:, None, :, None], table[None], np.uint32(0))
        return picked.reshape(layers * devices, *table.shape[1:])

    some = Thresholds(rows(whole.weights, faulty[0]), rows(whole.activations, faulty[1]))
    return evaluator.evaluate(faults, some, trials, progress)
