"""What a campaign is expected to find, from one backward pass, before it injects anything."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from afpjax.evaluate.vulnerability import Coefficients, coefficients, increase, per_flip
from afpjax.experiment import Experiment
from afpjax.faults.sites import size
from afpjax.jobs.campaign.result import ALL, CellResult, Predicted, TargetCorrelation
from afpjax.neurons.stability import spearman

IMAGES = 256  # the most that a prediction looks at


def predict(experiment: Experiment) -> Coefficients:
    """The coefficients of the expected loss on the campaign's images."""
    held = experiment.held.first(IMAGES)
    key = experiment.key("vulnerability")
    return coefficients(experiment.quantized, experiment.inputs(held), held.labels, key)


def foreseen(experiment: Experiment) -> bool:
    """Whether the faults are those that the prediction is of."""
    return experiment.faults.kind == "flip" and experiment.config.campaign.design != "listed"


def compared(
    experiment: Experiment, cells: Sequence[CellResult]
) -> tuple[list[Predicted] | None, list[TargetCorrelation] | None]:
    """Predicted loss of every cell with a layer of its own beside its SDC rate, and how far their
    orders agree."""
    known = [
        cell for cell in cells if cell.layer != ALL and cell.target in ("weights", "activations")
    ]
    finest = [cell for cell in known if cell.bit != ALL] or known
    if not finest:
        return None, None
    made = predict(experiment)
    rows = [
        Predicted(
            layer=cell.layer,
            bit=cell.bit,
            target=cell.target,
            rate=cell.rate,
            device=cell.device,
            predicted=_short(_of_cell(experiment, made, cell)),
            sdc_rate=cell.sdc_rate.value,
        )
        for cell in finest
    ]
    rows.sort(key=lambda row: -row.predicted)
    return rows, _correlations(rows)


def _short(value: float) -> float:
    """Three digits: the seventh depends on how many devices a process has."""
    return float(f"{value:.3g}")


def _of_cell(experiment: Experiment, made: Coefficients, cell: CellResult) -> float:
    """Nats that one fault of a cell adds to the loss, or its masks at their rate."""
    names, layers = experiment.graph.names, experiment.graph.layers
    place, target = names.index(cell.layer), cell.target
    moments = made.weights if target == "weights" else made.activations
    bits = _bits(experiment, cell)
    if cell.rate is not None:
        rates = np.zeros(moments.first.shape, np.float32)
        rates[place, bits] = cell.rate
        return float(increase(moments, jnp.asarray(rates))[place])
    each: Float[np.ndarray, bits] = np.asarray(per_flip(moments))[place, bits]
    return float(each.mean()) / size(layers[place], target)


def _bits(experiment: Experiment, cell: CellResult) -> list[int]:
    if cell.bit != ALL:
        return [int(cell.bit)]
    if cell.rate is not None:
        return list(experiment.faults.bits)
    given = experiment.config.campaign.bits
    return sorted(given) or list(range(experiment.format.width))


def _correlations(rows: Sequence[Predicted]) -> list[TargetCorrelation]:
    """Spearman's rank correlation for each target; none where nothing varies."""
    found = []
    for target in dict.fromkeys(row.target for row in rows):
        mine = [row for row in rows if row.target == target]
        rank = spearman(
            np.array([row.predicted for row in mine]), np.array([row.sdc_rate for row in mine])
        )
        if rank is not None:
            found.append(TargetCorrelation(target, len(mine), rank))
    return found
