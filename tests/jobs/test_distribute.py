"""Job `distribute` from an experiment to what stands in result.json."""

import json

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.distribute import run as job
from afpjax.jobs.distribute.compared import of_devices
from afpjax.jobs.shared.result import plain
from afpjax.jobs.shared.scoring import without_neurons
from afpjax.neurons.distribute import distribute

#: Without what is told beside the methods, which has tests of its own.
ALONE = {
    "distribute__devices": [3],
    "distribute__thresholds": [0.6],
    "distribute__curve": [],
    "distribute__compare": False,
}


@pytest.fixture(scope="module")
def result(result_of):
    return result_of("distribute", **ALONE)


def rows(result, **wanted):
    return [r for r in result["methods"] if all(r[key] == value for key, value in wanted.items())]


def test_replication_loses_nothing_and_coded_computing_recovers_one_device(result):
    clean = result["clean"]["accuracy"]
    for row in rows(result, method="replication"):
        assert row["accuracy"] == clean and row["memory"] == 1.0
    for method in ("cdc", "cdc-safe-spare"):
        (one,) = rows(result, method=method, failed=1)
        assert one["accuracy"] == clean
    both, (safe,) = rows(result, method="cdc"), rows(result, method="cdc-safe-spare", failed=1)
    assert {row["sets"] for row in both} == {3} and safe["sets"] == 2


def test_accuracies_are_those_of_masked_networks(result, config_of):
    """LOP's, worked out from the evaluator and the definition."""
    experiment = prepare(config_of(run__job="distribute", **ALONE), Work({}, SILENT))
    evaluator = without_neurons(experiment, "zero")
    by = []
    for gone in range(3):
        parts = [np.array_split(np.arange(layer.neurons), 3) for layer in experiment.network.layers]
        each = [np.zeros(sum(map(len, part)), int) for part in parts]
        for layer, part in zip(each, parts, strict=True):
            layer[part[gone]] = -1
        by.append(tuple(each))
    right = evaluator.evaluate_placements(by)[:, 0]
    (row,) = rows(result, method="lop", devices=3, failed=1)
    assert row["accuracy"] == pytest.approx(right.mean())
    assert row["accuracy_worst"] == pytest.approx(right.mean(axis=1).min())
    assert row["optimistic"] in [pytest.approx(each) for each in right.mean(axis=1)]


@pytest.fixture(scope="module")
def chance(result_of):
    """Devices that fail by chance, and bit flips beside lost devices."""
    methods = ["robustdice", "lop", "replication"]
    return result_of(
        "distribute", **ALONE, distribute__failure=[0.2, 0.0, 0.1], distribute__flips=True,
        distribute__methods=methods,
    )  # fmt: skip


def test_devices_that_fail_by_chance(chance):
    lost = {row["method"]: row for row in chance["expected"] if "trials" not in row}
    assert lost["replication"]["accuracy"] == pytest.approx(chance["clean"]["accuracy"])
    for row in lost.values():
        assert row["sets"] == 4 and row["failure"] == [0.2, 0.0, 0.1]
        assert row["quantiles"]["5%"] <= row["accuracy"] + row["deviation_run"] + 1e-9
    both = {row["method"]: row for row in chance["expected"] if row.get("trials") == 3}
    assert lost.keys() == both.keys() == {"robustdice", "lop", "replication"}
    for method, row in both.items():  # no better than lost devices alone
        assert row["accuracy"] < lost[method]["accuracy"] and row["sets"] == 4


def test_bit_flips_and_lost_devices_in_one_experiment(chance):
    rates = chance["flips"][0]
    assert len(rates["weight_rate"]) == 3 == len(rates["activation_rate"])
    assert {row["failed"] for row in chance["flips"]} == {0, 1, 2}
    struck = [row["accuracy"] for row in chance["flips"] if row["failed"] == 0]
    clean = chance["clean"]["accuracy"]
    assert min(struck) < clean and all(row["trials"] == 3 for row in chance["flips"])


def test_platform_devices_lend_their_rates_in_turn(config_of):
    experiment = prepare(config_of(), Work({}, SILENT))
    own = np.ravel(experiment.faults.weight_rate)
    faults = of_devices(experiment.faults, 5)
    np.testing.assert_array_equal(np.ravel(faults.weight_rate), np.resize(own, 5))


@pytest.mark.in_ci("weighted")
@pytest.mark.parametrize("objective", ["weighted", "front", "all"])
def test_thresholds_are_searched_and_measured_on_other_images(result_of, objective):
    found = result_of(
        "distribute", **ALONE, distribute__search=-1, distribute__methods=["robustdice", "lop"],
        distribute__objective=objective,
        distribute__weights=[1.0, 0.5, 0.1, 0.1] if objective == "weighted" else [1.0, 0.5, 0, 0],
        search__population=8, search__generations=4,
    )["search"]  # fmt: skip
    assert found["front"] and found["groups"] == 3
    assert [row["threshold"] for row in found["constant"]] == [0.0, 0.6]
    assert found["evaluations"] <= 8 * 4 * 3
    for row in found["front"]:
        assert len(row["thresholds"]) == 3 and 0 < row["memory"] <= 1
    for gain in found["gain"]:
        low, high = gain["difference_interval"]
        assert low <= gain["searched"] - gain["constant"] <= high


@pytest.mark.slow
def test_a_run_from_what_is_known_gives_the_same(outcome_of, result):
    memory = {}
    first = plain(outcome_of("distribute", memory, **ALONE).result)
    again = plain(outcome_of("distribute", memory, **ALONE).result)
    for found in (first, again):
        speed = found.pop("throughput")
        assert speed["clean_inferences_per_second"] > 0
    assert first == again == {key: v for key, v in result.items() if key != "throughput"}


def test_scores_are_taken_from_an_importance_run(tmp_path, config_of, result_of, outcome_of):
    scored = result_of("importance")
    (tmp_path / "result.json").write_text(json.dumps({"job": "importance", **scored}))
    found = result_of("distribute", **ALONE, distribute__importance=str(tmp_path))
    assert found["scores"]["from"] == "importance run"
    other = {**scored, "job": "importance", "model": {**scored["model"], "name": "other"}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="scores other, and the network here is"):
        result_of("distribute", **ALONE, distribute__importance=str(tmp_path / "other"))
    experiment = prepare(config_of(), Work({}, SILENT))
    scores = {
        row["name"]: {name: np.array(row[name]) for name in ("l1", "taylor", "jsd")}
        for row in scored["layers"]
    }
    own = distribute(experiment.network, scores, 3, 0.6)
    for held, row in zip(own.holds, found["placement"], strict=True):
        assert row["held"] == [int(each) for each in (held * [[1], [2], [4]]).sum(axis=0)]


def test_more_devices_than_neurons_run_and_two_leave_none_for_coded_sums(result_of):
    """Layers of 6 and 4 neurons on 8 devices."""
    methods = ["robustdice", "cdc", "topk", "replication"]
    found = result_of(
        "distribute", **ALONE | {"distribute__devices": [8, 2]}, distribute__lost=[1],
        distribute__methods=methods,
    )  # fmt: skip
    for row in rows(found, method="replication"):
        assert row["accuracy"] == found["clean"]["accuracy"]
    measured = {(row["devices"], row["method"]) for row in found["methods"]}
    others = {(2, name) for name in methods if name != "cdc"}
    assert measured == {(8, name) for name in (*methods, "cdc-safe-spare")} | others
    assert "curve" not in found and "ablation" not in found


REFUSED = [
    ({"distribute__devices": [2], "distribute__methods": ["cdc"]}, "cdc needs 3 devices"),
    ({"distribute__thresholds": [0.1, 0.2]}, "distribute.thresholds: 2 for"),
    ({"distribute__failure": [0.1, 0.2]}, "2 probabilities for 4 devices"),
    ({"distribute__lost": [4]}, "leave none"),
    ({"distribute__weights": [1.0, 1.0]}, "give four"),
    ({"distribute__board": "abacus"}, "abacus"),
    ({"distribute__link": "string"}, "string"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_does_not_fit_is_refused(config_of, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        job.run(config_of(run__job="distribute", **changes), Work({}, SILENT))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no result.json"),
        ({"job": "profile"}, "no run of job importance"),
        ({"job": "importance", "model": {"name": "other"}}, "no readable result of a whole run"),
    ],
)
def test_scores_of_something_else_are_refused(tmp_path, config_of, content, said):
    if content is not None:
        (tmp_path / "result.json").write_text(json.dumps(content))
    config = config_of(run__job="distribute", distribute__importance=str(tmp_path))
    with pytest.raises(InputError, match=said):
        job.run(config, Work({}, SILENT))
