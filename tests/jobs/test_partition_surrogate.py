"""Job `partition` with the search that learns beside NSGA-II."""

import itertools
import math

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.shared import learnt
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain
from afpjax.search.objectives import costs

from .kept import printed

LEARNS = {
    "platform__devices": ["eyeriss", "simba-ecc"],
    "search__method": "surrogate",
    "search__allow_latency": 0.4,
    "search__allow_energy": 0.4,
}


@pytest.fixture(scope="module")
def memory() -> dict[bytes, bytes]:
    return {}


@pytest.fixture(scope="module")
def found(outcome_of, memory, counted_once):
    return outcome_of("partition", memory, counted_once, **LEARNS)


def test_the_contract_holds_with_a_row_of_its_own(found, holds_the_contract, counted_once):
    result = plain(found.result)
    holds_the_contract(result, 2)
    assert found.result.best in ("surrogate", "afarepart")
    assert [row["scenario"] for row in result["surrogate"]] == ["weights", "activations", "both"]
    for description, total, done in counted_once.tasks:
        assert done == total > 0, description


def test_the_choice_is_within_the_allowance_and_no_upgrade_is_left(found, config_of):
    """Three layers on two devices: all mappings are few."""
    experiment = prepare(config_of(**LEARNS), Work({}, SILENT))
    tables = experiment.tables
    unaware = np.array(found.result.row("fault-unaware").mapping)
    limit = costs(tables, unaware[None])

    def allowed(mapping):
        cost = costs(tables, np.array([mapping]))
        return cost.latency_ms[0] <= limit.latency_ms[0] * 1.4 * (1 + 1e-6) and cost.energy_mj[
            0
        ] <= limit.energy_mj[0] * 1.4 * (1 + 1e-6)

    rows = {row.scenario: row for row in found.result.table if row.tool == "surrogate"}
    for entry in found.result.surrogate:
        mapping = list(rows[entry.scenario].mapping)
        assert allowed(mapping)
        if entry.method == "nothing lost":
            assert mapping == unaware.tolist()
            continue
        for layer in range(3):  # the second device has the lower rates
            if mapping[layer] == 0:
                assert not allowed([*mapping[:layer], 1, *mapping[layer + 1 :]])


def test_the_curve_is_measured_held_out_and_paired(found, config_of):
    curve = found.result.curve
    assert curve is not None
    factors = [point.factor for point in curve.points]
    assert factors == sorted(factors) and 1.0 in factors
    selected = next(point for point in curve.points if point.factor == 1.0)
    assert list(selected.mapping) == list(found.result.selected.mapping)
    assert selected.accuracy == found.result.selected.accuracy
    clean, unaware = found.result.clean.accuracy, found.result.row("fault-unaware").accuracy
    assert math.isclose(curve.lost, clean - unaware.value, abs_tol=1e-12)
    for point in curve.points:
        assert point.latency == pytest.approx(0.4 * point.factor)
        assert point.regained is not None
        share = (point.accuracy.value - unaware.value) / (clean - unaware.value)
        assert point.regained.value == pytest.approx(share)
        assert point.regained.low <= point.regained.value <= point.regained.high
    reach = [p.factor for p in curve.points if p.regained.value >= 0.8]
    assert curve.least == (min(reach) if reach else None)


def test_the_same_result_from_half_of_the_rows(found, memory, outcome_of):
    half = dict(list(memory.items())[::2])
    again = outcome_of("partition", half, **LEARNS)
    assert result_text(plain(again.result)) == result_text(plain(found.result))


def test_terminal_and_page_lead_with_the_trade_off(found):
    said = " ".join(printed(found.view, 200).split())
    first = " ".join(said.split(". ")[:2])  # a number format that solves the case comes before it
    assert "of what faults take" in first or "helps beyond chance" in first
    assert "Surrogate against fault-unaware" in said


def test_what_is_exported_is_what_is_selected(found, config_of, memory):
    experiment = prepare(config_of(**LEARNS), Work(dict(memory), SILENT))
    mapping, tool = learnt.chosen(experiment)
    assert mapping.tolist() == list(found.result.selected.mapping)
    assert tool == found.result.best


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"faults__strategy": "layerwise"}, "with faults.strategy = layerwise give nsga2"),
        ({"search__method": "annealing"}, "no choice"),
    ],
)
def test_what_cannot_be_is_refused(outcome_of, given, message):
    with pytest.raises(InputError, match=message):
        outcome_of("partition", **{**LEARNS, **given})


def test_every_pair_of_tools_is_compared_once(found):
    pairs = [(each.tool or "afarepart", each.over) for each in found.result.advantages
             if each.scenario == "both"]  # fmt: skip
    others = ("cnnparted", "fault-unaware")
    wanted = {*itertools.product(("afarepart", "surrogate"), others), ("surrogate", "afarepart")}
    assert set(pairs) == wanted and len(pairs) == len(wanted)
