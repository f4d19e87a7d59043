"""Campaigns of masks: thresholds by hand, the accuracy that `afpjax.accuracy` gives, stopping."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from afpjax.campaigns import masks
from afpjax.campaigns.masks import Cell
from afpjax.evaluate.evaluator import Evaluator, accuracy
from afpjax.evaluate.metric import OUTCOME, RIGHT_BIT, SDC1
from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.statistics.intervals import accuracy_interval, masks_interval

FAULTS = FaultModel(
    bits=(2, 9), bit_profile=(1.0, 0.25), weight_rate=(0.5, 0.125), activation_rate=(0.0, 0.25)
)
ZERO = FaultModel(kind="zero", weight_rate=0.5)
KEY, CERTAIN = 3, 2**31  # the threshold that every draw is below


def made(faults: FaultModel = FAULTS, **changes: Any) -> list[Cell]:
    options: dict[str, Any] = dict(
        by="network", targets=["weights"], layers=[0, 1, 2], crossing=[], rates=[]
    )
    return masks.cells(faults, **{**options, **changes})


def test_cells_are_layers_and_bits_at_every_rate_or_that_of_each_device():
    whole, both = (0, 1, 2), (0, 1)
    assert made(rates=[0.1, 0.2]) == [Cell("weights", whole, both, rate) for rate in (0.1, 0.2)]

    def places(by, layers):
        cells = made(by=by, layers=layers, rates=[0.1])
        return [(cell.layers, cell.columns) for cell in cells]

    assert places("layer", [0, 2]) == [((0,), both), ((2,), both)]
    assert places("bit", [0, 1, 2]) == [(whole, (0,)), (whole, (1,))]
    assert places("layer-bit", [1, 2]) == list(product([(1,), (2,)], [(0,), (1,)]))
    assert made(targets=["weights", "activations"]) == [
        Cell("weights", whole, both, 0.5, 0),
        Cell("weights", whole, both, 0.125, 1),
        Cell("activations", whole, both, 0.0, 0),
        Cell("activations", whole, both, 0.25, 1),
    ]
    # Values that are struck as a whole have no bits.
    assert made(ZERO, by="bit", rates=[0.5]) == [Cell("weights", whole, (0,), 0.5)]


def test_links_are_those_layers_that_read_across_one():
    options: dict[str, Any] = dict(targets=["link", "weights"], crossing=[2], rates=[0.5])
    assert made(by="layer", **options) == [
        Cell("link", (2,), (0, 1), 0.5),
        *(Cell("weights", (layer,), (0, 1), 0.5) for layer in range(3)),
    ]
    assert made(by="network", **options)[0] == Cell("link", (2,), (0, 1), 0.5)
    with pytest.raises(
        InputError, match=r"campaign\.targets: link: no layer of faults\.layers reads"
    ):
        made(targets=["weights", "link"], rates=[0.5])


def test_thresholds_of_a_cell_by_hand():
    """Only its layers and bits, each at the rate times its factor."""
    weights, inputs, _ = masks.limits_of(FAULTS, Cell("weights", (0, 2), (1,), 0.5), 3)
    assert weights.tolist() == [[0, 2**28], [0, 0], [0, 2**28]] and not inputs.any()
    for target in ("activations", "link"):
        weights, inputs, _ = masks.limits_of(FAULTS, Cell(target, (1,), (0, 1), 1.0), 3)
        assert inputs.tolist() == [[0, 0], [CERTAIN, 2**29], [0, 0]] and not weights.any()
    zero, *_ = masks.limits_of(ZERO, Cell("weights", (0,), (0,), 1.0), 2)
    assert zero.tolist() == [[CERTAIN], [0]]


def test_looks():
    assert masks.looks(5) == [5]
    with pytest.raises(InputError, match=r"campaign\.trials: 1048577 masks of each cell"):
        masks.looks(2**20 + 1)
    assert masks.looks(0) == [32, 64, 128, 256]


def test_only_masks_drawn_anew_allow_for_others():
    """One mask of a whole run is judged over images alone; one of many says nothing of the rest."""
    hits = np.random.default_rng(0).random((1, 400)) < 0.9
    kept = masks.interval(FaultModel(scope="run"), hits, 0.95)
    assert kept == accuracy_interval(hits) and kept[1] - kept[0] < 0.07
    low, high = masks.interval(FaultModel(), hits, 0.95)
    assert low < 0.1 and high > 0.99


@pytest.fixture
def evaluator(quantized, images, labels) -> Evaluator:
    return Evaluator(quantized, images, labels, KEY, metric=OUTCOME)


def run(evaluator: Evaluator, faults: FaultModel, wanted: Sequence[Cell], **options: Any):
    """What was counted; progress adds up to the most masks that there can be."""
    told: list[int] = []
    options = dict(trials=0, margin=0.05, confidence=0.95) | options
    found = masks.run(evaluator, faults, wanted, advance=told.append, **options)
    assert sum(told) == len(wanted) * masks.looks(options["trials"])[-1]
    assert [each.cell for each in found] == list(wanted)
    return found


STRUCK = FaultModel(bits=(6, 12), weight_rate=0.0, activation_rate=0.0)  # one program for all


@pytest.mark.parametrize("target", ["weights", "activations"])
def test_all_layers_at_a_rate_are_the_fault_model(evaluator, quantized, images, labels, target):
    wanted = made(STRUCK, targets=[target], rates=[0.01, 0.2])
    found = run(evaluator, STRUCK, wanted, trials=6)
    for cell, (_, answers, level) in zip(wanted, found, strict=True):
        rates: dict[str, Any] = {
            "weight_rate" if target == "weights" else "activation_rate": cell.rate
        }
        model, mapping = replace(STRUCK, **rates), np.zeros((1, 3), np.int32)
        expected = accuracy(quantized, images, labels, mapping, model, KEY, trials=6)[0]
        np.testing.assert_array_equal(((answers & RIGHT_BIT) > 0).mean(1), expected)
        assert level == 0.95 and 0 < expected.mean() < 0.8
    assert (found[0].answers & SDC1 > 0).mean() < (found[1].answers & SDC1 > 0).mean()


def test_cells_stop_each_for_itself_at_the_first_narrow_interval(evaluator, monkeypatch):
    monkeypatch.setattr(masks, "CHUNK", 2)
    wanted = made(STRUCK, by="layer-bit", rates=[0.0, 0.05])
    found = run(evaluator, STRUCK, wanted, margin=0.13)
    at = masks.looks(0)
    every = run(evaluator, STRUCK, wanted, trials=at[-1], margin=0.13)
    level = 1 - 0.05 / len(at)
    for one, all_masks in zip(found, every, strict=True):
        for look in at:
            low, high = masks_interval((all_masks.answers[:look] & RIGHT_BIT) > 0, level)
            if (high - low) / 2 <= 0.13:
                break
        assert len(one.answers) == look and one.confidence == level
        np.testing.assert_array_equal(one.answers, all_masks.answers[:look])
    assert len({len(one.answers) for one in found}) > 1


def test_cells_meet_the_same_draws_and_no_mask_runs_twice(evaluator):
    """A bit's cell at 0.2 strikes what it strikes at 0.1 and more; rates of 0 need one pass."""
    wanted = made(STRUCK, by="layer", rates=[0.0, 0.1, 0.2])
    found = run(evaluator, STRUCK, wanted, trials=4)
    assert evaluator.evaluations == 3 * 2 * 4 + 1
    clean = found[0].answers
    assert (clean == clean[0]).all() and not (clean & SDC1).any()
    for layer in range(3):
        np.testing.assert_array_equal(found[3 * layer].answers, clean)
    run(evaluator, STRUCK, wanted, trials=4)
    assert evaluator.evaluations == 3 * 2 * 4 + 1
