"""Job `partition` from an experiment to what stands in result.json."""

import io
import itertools
import math

import numpy as np
import pytest
from rich.console import Console

from afpjax.errors import InputError
from afpjax.experiment import SCENARIOS, prepare
from afpjax.faults import evaluate
from afpjax.jobs import partition as job
from afpjax.jobs.summary import comparison
from afpjax.outcome import Work, plain, result_text
from afpjax.progress import SILENT
from afpjax.search import explore
from afpjax.store import RowStore

LAYERS = ["stem", "hidden", "head"]
TOOLS = ("cnnparted", "fault-unaware", "afarepart")
TWO = {"platform__devices": ["eyeriss", "simba-ecc"]}
BUDGET = {**TWO, "faults__budget": 12}
NAMED = {**TWO, "faults__layers": ["hidden"]}
CHANGES = {
    "three devices": {},
    "two devices": TWO,
    "layerwise": {**TWO, "faults__strategy": "layerwise"},
    "budget": BUDGET,
    "named layers": NAMED,
    "first two layers, eight bits, batch of four": {
        "faults__layers": [2],
        "format__bits": 8,
        "faults__bits": [3, 4],
        "format__scale": "tensor",
        "platform__batch": 4,
    },
    "one rate": {"faults__weight_rate": [0.1], "faults__activation_rate": [0.0]},
    "no faults, bfloat16": {
        **TWO,
        "format__kind": "bfloat16",
        "faults__weight_rate": [0.0],
        "faults__activation_rate": [0.0],
    },
}


def holds_estimate(record, name="accuracy"):
    low, high = record[f"{name}_interval"]
    assert 0 <= low <= record[name] <= high <= 1


def holds_the_contract(result, devices):
    """DESIGN.md, section `result.json`, of job partition."""
    names = [layer["name"] for layer in result["model"]["layers"]]
    assert names == LAYERS
    for layer in result["model"]["layers"]:
        assert layer["kind"] in ("conv", "dense")
        assert layer["macs"] > 0 < layer["weights"]
    assert len(result["devices"]) == devices
    for point in (*result["front"], result["selected"]):
        assert len(point["mapping"]) == len(names)
        assert set(point["mapping"]) <= set(range(devices))
        assert point["latency_ms"] > 0 < point["energy_mj"]
        assert -1 <= point["accuracy_drop"] <= 1
        holds_estimate(point)
    mappings = [point["mapping"] for point in result["front"]]
    assert mappings and len({tuple(mapping) for mapping in mappings}) == len(mappings)
    assert result["selected"]["mapping"] in mappings
    for one, other in itertools.permutations(result["front"], 2):
        pairs = [(one[k], other[k]) for k in ("latency_ms", "energy_mj", "accuracy_drop")]
        assert not (all(a <= b for a, b in pairs) and any(a < b for a, b in pairs))
    rows = [(row["tool"], row["scenario"]) for row in result["table"]]
    assert sorted(rows) == sorted(itertools.product(TOOLS, SCENARIOS))
    for row in result["table"]:
        assert row["latency_ms"] > 0 < row["energy_mj"]
        holds_estimate(row)
    search = result["search"]
    assert search["generations"] >= 0 < search["evaluations"]
    assert search["hypervolume"] >= 0 and len(search["reference_point"]) == 3


def rows_of(result, key, tool, scenario):
    return [row for row in result[key] if (row["tool"], row["scenario"]) == (tool, scenario)]


def row_of(result, tool, scenario):
    (row,) = rows_of(result, "table", tool, scenario)
    return row


@pytest.mark.parametrize("name", CHANGES)
def test_results_hold_the_contract(result_of, name):
    changes = CHANGES[name]
    result = result_of("partition", **changes)
    devices = len(changes.get("platform__devices", [0, 1, 2]))
    holds_the_contract(result, devices)
    assert "NaN" not in result_text(result) and "Infinity" not in result_text(result)
    for row in result["sensitivity"]:
        holds_estimate(row, "alone")
        holds_estimate(row, "all_but")
    assert len(result["sensitivity"]) == len(result["costs"]) == 3 * devices
    for row in result["sweep"]:
        holds_estimate(row)
    assert len(result["sweep"]) == 9 * 4
    # The chosen mapping is one thing, wherever it stands.
    chosen = row_of(result, "afarepart", "both")
    for key in ("mapping", "latency_ms", "energy_mj", "accuracy", "accuracy_interval"):
        assert chosen[key] == result["selected"][key]
    assert math.isclose(
        result["selected"]["accuracy_drop"],
        result["clean"]["accuracy"] - result["selected"]["accuracy"],
        abs_tol=1e-12,
    )


def test_the_table_is_measured_on_held_out_images_under_fresh_draws(config_of, result_of):
    """Every row again, image by image, without the evaluator that the job uses."""
    result = result_of("partition")
    experiment = prepare(config_of(), Work({}, SILENT))
    held = experiment.held
    images, key = experiment.inputs(held), experiment.key("draws held out")
    assert len(held.labels) == 16
    for row in result["table"]:
        faults = experiment.scenario(row["scenario"])
        right = [
            np.asarray(
                experiment.quantized(
                    images, mapping=np.array(row["mapping"]), faults=faults, key=key, trial=trial
                )
            ).argmax(axis=1)
            == held.labels
            for trial in range(3)
        ]
        assert row["accuracy"] == np.mean(right)
    clean = np.asarray(experiment.quantized(images)).argmax(axis=1) == held.labels
    assert result["clean"]["accuracy"] == clean.mean() > 0.6
    assert result["clean"]["images"] == 16
    # The network in floating point is right but where the labels are wrong on purpose.
    said = np.asarray(experiment.network(images)).argmax(axis=1)
    assert result["clean"]["float_accuracy"] == (said == held.labels).mean()


@pytest.mark.parametrize("changes", [{}, TWO])
def test_faults_matter_in_these_tests(result_of, changes):
    result = result_of("partition", **changes)
    assert len(result["front"]) > 2
    chosen = row_of(result, "afarepart", "both")["accuracy"]
    assert chosen > row_of(result, "fault-unaware", "both")["accuracy"]
    for tool in ("cnnparted", "fault-unaware"):
        assert row_of(result, tool, "both")["accuracy"] < result["clean"]["accuracy"]


def test_the_choice_is_among_what_is_left_of_the_front(outcome_of, result_of, monkeypatch):
    """Measured again, a mapping may be beaten: it is neither on the front nor chosen any more."""
    usual = result_of("partition", **TWO)
    chosen = [point["mapping"] for point in usual["front"]].index(usual["selected"]["mapping"])
    still_best = job._still_best

    def others(front, correct):
        return [index for place, index in enumerate(still_best(front, correct)) if place != chosen]

    monkeypatch.setattr(job, "_still_best", others)
    result = plain(outcome_of("partition", **TWO).result)
    assert result["front"] == [p for place, p in enumerate(usual["front"]) if place != chosen]
    assert result["selected"]["mapping"] in [point["mapping"] for point in result["front"]]


def test_the_searches_know_the_fault_unaware_choice(config_of, monkeypatch):
    """Thinned with its front, the mapping that the allowance is measured against could be lost."""
    given, first = [], []

    def search(key, tables, struck, budget, caps, *, initial, progress):
        given.append(initial)
        raise InputError("far enough")

    monkeypatch.setattr(job, "search", search)
    choice = job.fault_unaware

    def fault_unaware(*args, **options):
        first.append(choice(*args, **options))
        return first[-1]

    monkeypatch.setattr(job, "fault_unaware", fault_unaware)
    with pytest.raises(InputError, match="far enough"):
        job.run(config_of(**TWO), Work({}, SILENT))
    np.testing.assert_array_equal(given[0][0], first[0][0])


def test_baselines_have_one_mapping_for_all_scenarios(result_of):
    result = result_of("partition")
    for tool in ("cnnparted", "fault-unaware"):
        assert len({str(row_of(result, tool, name)["mapping"]) for name in SCENARIOS}) == 1


@pytest.mark.parametrize(
    ("given", "allow_latency", "allow_energy"),
    [({"search__allow_latency": 9.0}, 9.0, 0.05), ({"search__allow_energy": 9.0}, 0.1, 9.0)],
)
def test_the_choice_is_within_the_allowance_wherever_the_front_is(
    result_of, given, allow_latency, allow_energy
):
    """Each of the two allowances holds where the other allows everything."""
    result = result_of("partition", **TWO, **given)
    unaware = row_of(result, "fault-unaware", "both")
    latency = unaware["latency_ms"] * (1 + allow_latency)
    energy = unaware["energy_mj"] * (1 + allow_energy)
    within = [
        point
        for point in result["front"]
        if point["latency_ms"] <= latency and point["energy_mj"] <= energy
    ]
    assert 0 < len(within) < len(result["front"])
    assert result["selected"]["mapping"] in [point["mapping"] for point in within]


def test_caps_hold_for_every_mapping_of_every_tool(result_of):
    free = result_of("partition")
    keys = {"search__latency_cap_ms": "latency_ms", "search__energy_cap_mj": "energy_mj"}
    caps = {}
    for cap, key in keys.items():
        costs = [row[key] for row in free["front"]]
        caps[cap] = (min(costs) + max(costs)) / 2
        assert max(costs) > caps[cap]
    capped = result_of("partition", **caps)
    for cap, key in keys.items():
        assert max(row[key] for row in (*capped["front"], *capped["table"])) <= caps[cap]


def test_caps_that_nothing_meets_are_bad_input(result_of):
    with pytest.raises(InputError, match=r"raise search.latency_cap_ms \(1e-09\)"):
        result_of("partition", search__latency_cap_ms=1e-9)


def test_flips_are_those_of_the_layers_that_faults_strike(result_of):
    result = result_of("partition", **NAMED)
    flips = {row["layer"]: row for row in result["selected"]["flips"]}
    assert list(flips) == LAYERS
    for name in ("stem", "head"):
        assert flips[name]["weights"] == flips[name]["activations"] == 0
    device = result["selected"]["mapping"][1]
    # Two bits of every weight or value, at the device's rate; means of 3 trials, 24 images.
    for target, sites, draws in (("weights", 2 * 36, 3), ("activations", 2 * 6, 24)):
        rate = result["faults"][f"{target[:-1]}_rate"][device]
        spread = (sites * rate * (1 - rate) / draws) ** 0.5
        assert abs(flips["hidden"][target] - sites * rate) < 5 * spread


def test_a_budget_limits_the_flips(result_of):
    free, limited = result_of("partition", **TWO), result_of("partition", **BUDGET)

    def flips(result):
        return sum(row["weights"] + row["activations"] for row in result["selected"]["flips"])

    assert 0 < flips(limited) <= 12 < flips(free)


def test_the_sweep_passes_through_the_table(result_of):
    """At the devices' own rates, with as many trials, both measure the same."""
    result = result_of("partition")
    for tool, scenario in itertools.product(TOOLS, SCENARIOS):
        rows = rows_of(result, "sweep", tool, scenario)
        assert [row["rate"] for row in rows] == pytest.approx([0.05, 0.1, 0.2, 0.4])
        assert rows[2]["accuracy"] == row_of(result, tool, scenario)["accuracy"]


def test_sensitivity_strikes_one_layer_or_all_others(config_of, result_of):
    result = result_of("partition")
    experiment = prepare(config_of(), Work({}, SILENT))
    images, key = experiment.inputs(experiment.searched), experiment.key("draws search")

    def accuracy(layers, device):
        faults = experiment.scenario("both")
        rates = {
            "weight_rate": faults.rates("weight")[device, 0],
            "activation_rate": faults.rates("activation")[device, 0],
        }
        faults = type(faults)(bits=faults.bits, layers=layers, **rates)
        right = [
            np.asarray(experiment.quantized(images, faults=faults, key=key, trial=trial)).argmax(1)
            == experiment.searched.labels
            for trial in range(3)
        ]
        return np.mean(right)

    for row in result["sensitivity"]:
        device = result["devices"].index(row["device"])
        assert row["alone"] == accuracy((row["layer"],), device)
        others = tuple(name for name in LAYERS if name != row["layer"])
        assert row["all_but"] == accuracy(others, device)


def test_the_conditions_are_told(result_of):
    result = result_of("partition")
    assert result["data"] == {"name": "npz", "search_images": 16, "held_out_images": 16}
    assert result["faults"] == {
        "strategy": "platform",
        "bits": [4, 5],
        "weight_rate": [0.02, 0.2, 0.0],
        "activation_rate": [0.02, 0.2, 0.0],
    }
    assert result_of("partition", **CHANGES["one rate"])["faults"]["weight_rate"] == [0.1] * 3


def test_the_same_experiment_has_the_same_result_wherever_it_goes_on(
    outcome_of, result_of, counted, tmp_path
):
    memory: dict[bytes, bytes] = {}
    first = result_text(plain(outcome_of("partition", memory, counted).result))
    assert first == result_text(result_of("partition"))
    assert_bars_end(counted)
    rows = list(memory.items())
    assert len(rows) > 100
    for half in (rows[: len(rows) // 2], rows[1::2]):
        with RowStore(tmp_path / f"{half[0][0].hex()[-8:]}.sqlite") as store:
            store.update(half)
            again = plain(outcome_of("partition", store, counted).result)
            assert result_text(again) == first and dict(store) == memory
            assert_bars_end(counted)


def test_results_do_not_depend_on_how_the_work_is_cut(outcome_of, result_of, monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 5)
    monkeypatch.setattr(evaluate, "ROWS", 3)
    found = plain(outcome_of("partition", **TWO).result)
    assert result_text(found) == result_text(result_of("partition", **TWO))


def test_the_search_by_generations_holds_the_contract(outcome_of, result_of, counted, monkeypatch):
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


def assert_bars_end(counted):
    """An enumeration's bar used to stop after its first step."""
    assert len(counted.tasks) >= 12
    for description, total, done in counted.tasks:
        assert done == total > 0, description


@pytest.mark.parametrize("name", ["two devices", "layerwise"])
def test_the_summary_says_what_was_found(result_of, name):
    result = result_of("partition", **CHANGES[name])
    console = Console(width=100, file=io.StringIO())
    with console.capture() as text:
        console.print(comparison(result))
    said = " ".join(text.get().split())
    for row in result["table"]:
        assert f"{row['tool']} {100 * row['accuracy']:.1f} % [" in said
    assert f"all 8 mappings were tried; {len(result['front'])} on the front" in said
    assert ("these do not add up" in said) == (name == "layerwise")


def test_an_unknown_layer_is_refused_before_any_search(outcome_of, monkeypatch):
    """It used to be noticed when the baselines had been searched."""

    def never(*args):
        raise AssertionError("the search began")

    monkeypatch.setattr(job, "_baselines", never)
    with pytest.raises(InputError, match="no layer 'haed'; layers: stem, hidden, head"):
        outcome_of("partition", faults__layers=["haed"])
    with pytest.raises(InputError, match="the first 4 of 3 layers do not exist"):
        outcome_of("partition", faults__layers=[4])


def test_memory_that_nothing_fits_in_is_told_with_layer_and_device(outcome_of, tmp_path):
    from afpjax.hardware import platform

    source = platform._HERE / "devices" / "eyeriss.toml"
    text = source.read_text().replace("memory_bytes = 536870912", "memory_bytes = 700")
    (tmp_path / "small.toml").write_text(text)
    devices = [str(tmp_path / "small.toml")] * 2
    with pytest.raises(InputError, match=r"layer `stem` fits on no device: .* device `eyeriss`"):
        outcome_of("partition", platform__devices=devices)
