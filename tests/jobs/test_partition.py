"""Job `partition` from an experiment to what stands in result.json."""

import itertools
import math

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import SCENARIOS, prepare
from afpjax.jobs.shared.outcome import result_text, tables

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
        **TWO,
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


def rows_of(result, key, tool, scenario):
    return [row for row in result[key] if (row["tool"], row["scenario"]) == (tool, scenario)]


def row_of(result, tool, scenario):
    (row,) = rows_of(result, "table", tool, scenario)
    return row


@pytest.mark.in_ci(
    "three devices",
    "two devices",
    "layerwise",
    "budget",
    "first two layers, eight bits, batch of four",
)
@pytest.mark.parametrize("name", CHANGES)
def test_results_hold_the_contract(result_of, holds_the_contract, holds_estimate, name):
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


def test_what_the_search_spent_is_told(result_of):
    """Eight mappings of three layers on two devices, three draws and 16 images."""
    free = result_of("partition", **TWO)["search"]["effort"]
    assert free == {"spent": 8 * 3 * 16, "draws": [{"draws": 3, "mappings": 8}]}
    result = result_of("partition", **TWO, search__effort=16 * 20)
    effort = result["search"]["effort"]
    assert effort["total"] == 16 * 20 >= effort["spent"]
    counts = [(row["draws"], row["mappings"]) for row in effort["draws"]]
    assert effort["spent"] == 16 * sum(draws * mappings for draws, mappings in counts)
    assert sum(mappings for _, mappings in counts) == 8 and counts[0][0] < 3
    assert tables(result)["search-effort-draws"].startswith("draws,mappings\n")
    assert "effort" not in result_of("partition", **CHANGES["layerwise"])["search"]


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


def test_faults_matter_in_these_tests(result_of):
    """The baselines lose images, and a choice that may cost anything keeps more of them right."""
    free = {"search__allow_latency": 9.0, "search__allow_energy": 9.0}
    for allowance in ({}, free):
        result = result_of("partition", **TWO, **allowance)
        assert len(result["front"]) > 2
        chosen = row_of(result, "afarepart", "both")["accuracy"]
        unaware = row_of(result, "fault-unaware", "both")["accuracy"]
        assert chosen > unaware if allowance else chosen >= unaware
        for tool in ("cnnparted", "fault-unaware"):
            assert row_of(result, tool, "both")["accuracy"] < result["clean"]["accuracy"]
            mappings = {str(row_of(result, tool, name)["mapping"]) for name in SCENARIOS}
            assert len(mappings) == 1  # whatever the scenario


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
    free = result_of("partition", **TWO)
    keys = {"search__latency_cap_ms": "latency_ms", "search__energy_cap_mj": "energy_mj"}
    caps = {}
    for cap, key in keys.items():
        costs = [row[key] for row in free["front"]]
        caps[cap] = (min(costs) + max(costs)) / 2
        assert max(costs) > caps[cap]
    capped = result_of("partition", **TWO, **caps)
    for cap, key in keys.items():
        assert max(row[key] for row in (*capped["front"], *capped["table"])) <= caps[cap]


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
    """At the devices' own rates, of which 0.02 is the highest, both measure the same.

    With as many trials, of which there are two at least.
    """
    result = result_of("partition", **TWO, search__final_trials=2)
    for tool, scenario in itertools.product(TOOLS, SCENARIOS):
        rows = rows_of(result, "sweep", tool, scenario)
        assert [row["rate"] for row in rows] == pytest.approx([0.005, 0.01, 0.02, 0.04])
        assert rows[2]["accuracy"] == row_of(result, tool, scenario)["accuracy"]
