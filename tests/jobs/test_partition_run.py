"""How job `partition` goes: the same from wherever it starts, its bars, and what it refuses."""

import numpy as np
import pytest

from afpjax.command.store import RowStore
from afpjax.config.work import SILENT, Work
from afpjax.evaluate import sizes
from afpjax.inputs.errors import InputError
from afpjax.jobs.partition import run as job
from afpjax.jobs.partition.charts import TOOL_NAMES
from afpjax.jobs.shared import searched
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain
from afpjax.network import compiler
from afpjax.search import explore
from afpjax.search.objectives import costs

from .kept import printed

TWO = {"platform__devices": ["eyeriss", "simba-ecc"]}


@pytest.fixture(scope="module")
def remembered(outcome_of, result_of, counted_once):
    """The rows of a run on two devices, which ends with what any other run finds."""
    memory: dict[bytes, bytes] = {}
    found = plain(outcome_of("partition", memory, counted_once, **TWO).result)
    assert result_text(found) == result_text(result_of("partition", **TWO))
    assert_bars_end(counted_once)
    return memory


def assert_bars_end(counted):
    """An enumeration's bar used to stop after its first step."""
    assert len(counted.tasks) >= 12
    for description, total, done in counted.tasks:
        assert done == total > 0, description


def test_the_same_result_from_half_of_the_rows_however_the_work_is_cut(
    outcome_of, result_of, remembered, counted, monkeypatch, tmp_path
):
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(least_images=5, most_images=5))
    monkeypatch.setattr(compiler, "workers", lambda: 1)
    with RowStore(tmp_path / "store.sqlite") as store:
        store.update(list(remembered.items())[1::2])
        assert 20 < len(store) < len(remembered)
        found = plain(outcome_of("partition", store, counted, **TWO).result)
        assert dict(store) == remembered
    assert result_text(found) == result_text(result_of("partition", **TWO))
    assert_bars_end(counted)


def test_the_choice_is_among_what_is_left_of_the_front(
    outcome_of, result_of, remembered, monkeypatch
):
    """Measured again, a mapping may be beaten: it is neither on the front nor chosen any more."""
    usual = result_of("partition", **TWO)
    chosen = [point["mapping"] for point in usual["front"]].index(usual["selected"]["mapping"])
    still_best = searched.still_best

    def others(front, correct):
        return [index for place, index in enumerate(still_best(front, correct)) if place != chosen]

    monkeypatch.setattr(searched, "still_best", others)
    result = plain(outcome_of("partition", dict(remembered), **TWO).result)
    assert result["front"] == [p for place, p in enumerate(usual["front"]) if place != chosen]
    assert result["selected"]["mapping"] in [point["mapping"] for point in result["front"]]


def test_the_searches_know_the_fault_unaware_choice(config_of, remembered, monkeypatch):
    """Thinned with its front, the mapping that the allowance is measured against could be lost."""
    given, first = [], []

    def search(key, tables, struck, budget, caps, *, initial, allowance, progress):
        given.append(initial)
        cost = costs(tables, initial[:1])
        assert allowance.latency_ms == pytest.approx(1.1 * float(cost.latency_ms[0]))
        assert allowance.energy_mj == pytest.approx(1.05 * float(cost.energy_mj[0]))
        raise InputError("far enough")

    monkeypatch.setattr(searched.partition, "search", search)
    choice = searched.fault_unaware

    def fault_unaware(*args, **options):
        first.append(choice(*args, **options))
        return first[-1]

    monkeypatch.setattr(searched, "fault_unaware", fault_unaware)
    with pytest.raises(InputError, match="far enough"):
        job.run(config_of(**TWO), Work(dict(remembered), SILENT))
    np.testing.assert_array_equal(given[0][0], first[0][0])


@pytest.mark.slow
def test_the_search_by_generations_holds_the_contract(
    outcome_of, result_of, holds_the_contract, counted, monkeypatch
):
    exact = result_of("partition", **TWO)["search"]
    assert exact["method"] == "enumeration" and exact["evaluations"] == 8
    monkeypatch.setattr(explore, "FEW", 0)
    found = outcome_of("partition", None, counted, search__renew_draws=True, **TWO)
    result = plain(found.result)
    holds_the_contract(result, 2)
    search = result["search"]
    assert (search["method"], search["generations"]) == ("nsga2", 3)
    assert len(search["history"]) == 3 and search["history"][-1] == search["hypervolume"]
    assert search["reference_point"] == exact["reference_point"]
    assert 0 < search["evaluations"] <= 8
    assert_bars_end(counted)


@pytest.mark.parametrize(
    ("few", "effort"), [(explore.FEW, 20), pytest.param(0, 80, marks=pytest.mark.slow)]
)
def test_an_effort_goes_on_from_wherever_it_was_interrupted(outcome_of, monkeypatch, few, effort):
    """Of all mappings, or of those of a search by generations."""
    monkeypatch.setattr(explore, "FEW", few)
    given = {**TWO, "search__effort": 16 * effort}
    memory: dict[bytes, bytes] = {}
    first = result_text(plain(outcome_of("partition", memory, **given).result))
    half = dict(list(memory.items())[::2])
    assert result_text(plain(outcome_of("partition", half, **given).result)) == first


@pytest.mark.parametrize("given", [{}, {"faults__strategy": "layerwise"}])
def test_the_terminal_says_what_was_found(found_by, given):
    outcome = found_by("partition", **TWO, **given)
    said = " ".join(printed(outcome.view, 100).split())
    for row in outcome.result.table:
        assert f"{TOOL_NAMES[row.tool]} {100 * row.accuracy.value:.1f} % [" in said
    assert f"All 8 mappings were tried: there are few enough. {len(outcome.result.front)}" in said
    assert ("do not add up" in said) == bool(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"faults__layers": ["haed"]}, "no layer 'haed'; layers: stem, hidden, head"),
        ({"faults__layers": [4]}, "the first 4 of 3 layers do not exist"),
        ({"search__effort": 16 * 8 - 1}, r"search.effort: 127 image passes are too few; .* 128;"),
        ({"search__effort": 10**6, "faults__strategy": "layerwise"}, "nothing to share out"),
    ],
)
def test_what_cannot_be_is_refused_before_any_search(outcome_of, monkeypatch, given, message):
    """An unknown layer used to be noticed when the baselines had been searched."""

    def never(*args):
        raise AssertionError("the search began")

    monkeypatch.setattr(searched, "baselines", never)
    with pytest.raises(InputError, match=message):
        outcome_of("partition", **TWO, **given)


def test_caps_that_nothing_meets_are_bad_input(outcome_of):
    with pytest.raises(InputError, match=r"raise search.latency_cap_ms \(1e-09\)"):
        outcome_of("partition", **TWO, search__latency_cap_ms=1e-9)
