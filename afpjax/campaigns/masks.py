"""Campaigns of masks: every bit (or value) struck at a rate, in one layer or bit, or everywhere."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from afpjax.campaigns.strata import reading
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import RIGHT_BIT
from afpjax.faults.bits import any_rare, threshold
from afpjax.faults.model import FaultModel
from afpjax.faults.spec import Thresholds, keepers
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer
from afpjax.statistics.intervals import accuracy_interval, masks_interval

FIRST, RATIO, MOST = 32, 2, 256  # masks at the first look, from look to look, and at most
LARGEST = 2**20  # masks of a cell that can be asked for
CHUNK = 64  # masks of cells that an evaluator is handed at once


class Cell(NamedTuple):
    """What is struck, and how often."""

    target: str  # "weights", "activations" or "link"
    layers: tuple[int, ...]
    columns: tuple[int, ...]  # places among the fault model's bits
    rate: float
    device: int | None = None  # whose rate it is


class Counted(NamedTuple):
    """What a cell's masks did: `metric.OUTCOME` of every mask and image."""

    cell: Cell
    answers: Int[np.ndarray, "K B"]
    confidence: float  # at which intervals are to be computed


def cells(
    faults: FaultModel,
    *,
    by: str,
    targets: Sequence[str],
    layers: Sequence[int],
    crossing: Sequence[int],
    rates: Sequence[float],
    network: Sequence[Layer] = (),
) -> list[Cell]:
    """Every layer and bit that `by` tells apart, at every rate; without `rates`, each device's.

    Weights that several layers of `network` share are those of the first of them, where the fault
    model strikes them as they are stored.
    `crossing` are the layers that read across a link. Raises `InputError` for a target that none of
    the layers has.
    """
    columns = tuple(range(faults.rates("weight").shape[1]))
    parts = [(column,) for column in columns] if by.endswith("bit") else [columns]
    made = []
    for target in targets:
        name = "weight" if target == "weights" else "activation"
        of_devices = list(enumerate(getattr(faults, f"{name}_rate")))
        own = reading(target, layers, crossing)
        if target == "weights" and network:
            own = list(dict.fromkeys(keepers(faults.shared, network)[own].tolist()))
        groups = [(layer,) for layer in own] if by.startswith("layer") else [tuple(own)]
        for group, part in product(groups, parts):
            for device, rate in [(None, rate) for rate in rates] or of_devices:
                made.append(Cell(target, group, part, float(rate), device))
    return made


def limits_of(faults: FaultModel, cell: Cell, layers: int) -> Thresholds:
    """Thresholds [L, columns] of one cell."""
    rates = np.zeros((layers, faults.rates("weight").shape[1]))
    rates[np.ix_(cell.layers, cell.columns)] = rates_of(faults, cell)[list(cell.columns)]
    struck = threshold(rates, rare=any_rare(rates))
    none = np.zeros_like(struck)
    return Thresholds(struck, none) if cell.target == "weights" else Thresholds(none, struck)


def rates_of(faults: FaultModel, cell: Cell) -> Float[np.ndarray, "columns"]:
    """How often each bit, or a value, would be struck at the cell's rate."""
    profile = np.asarray(faults.bit_profile or [1.0] * faults.rates("weight").shape[1])
    return np.minimum(cell.rate * profile, 1.0)


def asked(faults: FaultModel, trials: int) -> int:
    """How many masks are asked for: one, where it stays for the whole run."""
    return 1 if faults.scope == "run" else trials


def looks(trials: int) -> list[int]:
    """Numbers of masks at which a cell may stop: all `trials`, or where 0, a few up to `MOST`."""
    if trials > LARGEST:
        raise InputError(
            f"campaign.trials: {trials} masks of each cell; give {LARGEST} or fewer, or 0 for as "
            "many as campaign.margin asks for"
        )
    if trials:
        return [trials]
    found, size = [], FIRST
    while size < MOST:
        found.append(size)
        size *= RATIO
    return [*found, MOST]


def interval(
    faults: FaultModel, hits: Bool[np.ndarray, "K B"], confidence: float
) -> tuple[float, float]:
    """Over new masks and new images; over these alone for the mask that stays for a whole run."""
    of = accuracy_interval if faults.scope == "run" else masks_interval
    return of(hits, confidence)


def run(
    evaluator: Evaluator,
    faults: FaultModel,
    wanted: Sequence[Cell],
    *,
    trials: int,
    margin: float,
    confidence: float,
    advance: Callable[[int], None],
) -> list[Counted]:
    """Masks of every cell until the accuracy's interval, over new masks and new images, is narrow.

    All cells meet the same draws, mask by mask. Alpha is spent equally over the looks, so that the
    interval at the stop covers (Bonferroni); with a given number of `trials` there is one look.
    Masks that change nothing end at the first look with a margin of 0.1; 24 of them could not.
    """
    at = looks(asked(faults, trials))
    level = 1 - (1 - confidence) / len(at)
    found: list[Counted | None] = [None] * len(wanted)
    open_ = list(range(len(wanted)))
    for before, look in zip([0, *at], at, strict=False):
        still = []
        for start in range(0, len(open_), CHUNK):
            part = open_[start : start + CHUNK]
            answers = _answers(evaluator, faults, [wanted[place] for place in part], look)
            advance((look - before) * len(part))
            for place, each in zip(part, answers, strict=True):
                found[place] = Counted(wanted[place], each, level)
                low, high = interval(faults, (each & RIGHT_BIT) > 0, level)
                if (high - low) / 2 > margin and look < at[-1]:
                    still.append(place)
                else:
                    advance(at[-1] - look)
        open_ = still
    return [each for each in found if each is not None]


def _answers(
    evaluator: Evaluator, faults: FaultModel, wanted: Sequence[Cell], trials: int
) -> Int[np.ndarray, "P K B"]:
    """Cells of rare rates, whose thresholds are wider, apart from the others."""
    layers = len(evaluator.quantized.layers)
    alike: dict[int, dict[int, Thresholds]] = {}
    for place, cell in enumerate(wanted):
        limits = limits_of(faults, cell, layers)
        alike.setdefault(limits.weights.shape[-1], {})[place] = limits
    found = {}
    for each in alike.values():
        weights = np.stack([limits.weights for limits in each.values()])
        inputs = np.stack([limits.activations for limits in each.values()])
        weights = weights[:, keepers(faults.shared, evaluator.quantized.layers)]
        answers = evaluator.evaluate(faults, Thresholds(weights, inputs), range(trials))
        found |= dict(zip(each, answers, strict=True))
    return np.stack([found[place] for place in range(len(wanted))])
