"""Job `distribute` from an experiment to what stands in result.json."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.distribute import run as job
from afpjax.jobs.distribute.compared import of_devices
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain
from afpjax.jobs.shared.scoring import without_neurons
from afpjax.neurons.distribute import distribute
from afpjax.run import main

METHODS = {"robustdice", "lop", "cdc", "cdc-safe-spare", "replication"}
METHODS |= {"random", "topk", "randomk"}
SMALL = {"distribute__devices": [3, 2], "distribute__thresholds": [0.6], "distribute__curve": [0.3]}
#: Without what is told beside the methods, which has tests of its own.
ALONE = {**SMALL, "distribute__curve": [], "distribute__compare": False}


@pytest.fixture(scope="module")
def result(result_of):
    return result_of("distribute", **SMALL)


def rows(result, **wanted):
    return [r for r in result["methods"] if all(r[key] == value for key, value in wanted.items())]


def test_every_method_is_measured_with_every_loss(result):
    found = {(r["method"], r["devices"], r["failed"]) for r in result["methods"]}
    of_three = {(method, 3, failed) for method in METHODS for failed in (1, 2)}
    of_two = {(method, 2, 1) for method in METHODS if not method.startswith("cdc")}
    assert found == of_three | of_two
    assert "NaN" not in result_text(result)


def test_the_mean_lies_between_worst_and_best_and_in_its_interval(result):
    for row in result["methods"]:
        low, high = row["accuracy_interval"]
        assert row["accuracy_worst"] - 1e-9 <= row["accuracy"] <= row["accuracy_best"] + 1e-9
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert len(row["worst_failed"]) == row["failed"] and row["sets"] >= 1
        assert not row["sampled"]


def test_full_replication_loses_nothing_while_a_device_lives(result):
    for row in rows(result, method="replication"):
        assert row["accuracy"] == result["clean"]["accuracy"] and row["memory"] == 1.0


def test_coded_computing_recovers_one_device(result):
    clean = result["clean"]["accuracy"]
    for method in ("cdc", "cdc-safe-spare"):
        (one,) = rows(result, method=method, failed=1)
        assert one["accuracy"] == clean
    both, (safe,) = rows(result, method="cdc"), rows(result, method="cdc-safe-spare", failed=1)
    assert {row["sets"] for row in both} == {3} and safe["sets"] == 2


def test_rivals_of_a_choice_have_robustdices_memory(result):
    equal = ("robustdice", "random", "topk", "randomk")
    for devices in (3, 2):
        memory = {
            row["memory"]
            for row in result["methods"]
            if row["devices"] == devices and row["method"] in equal
        }
        assert len(memory) == 1


def test_accuracies_are_those_of_masked_networks(result, config_of):
    """LOP's, worked out from the evaluator and the definition."""
    experiment = prepare(config_of(run__job="distribute", **SMALL), Work({}, SILENT))
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


def test_ablation_and_scales_are_at_equal_memory(result):
    names = ["l1", "taylor", "jsd"]
    subsets = ["+".join(some) for count in (1, 2, 3) for some in combinations(names, count)]
    assert [row["scores"] for row in result["ablation"]] == subsets
    assert {row["normalise"] for row in result["normalisations"]} == {
        "minmax", "zscore", "rank", "raw",
    }  # fmt: skip
    assert {row["substitute"] for row in result["substitutes"]} == {"zero", "mean", "bias"}


def test_who_computes_what_is_the_placement(result, config_of):
    placed = result["placement"]
    assert [row["layer"] for row in placed] == [row["name"] for row in result["model"]["layers"]]
    for row in placed:
        bits = np.array([[mask >> d & 1 for mask in row["held"]] for d in range(3)])
        assert bits.any(axis=0).all() and len(set(bits.sum(axis=1).tolist())) == 1
        assert row["copies"] == pytest.approx(bits.sum() / row["neurons"])


def test_resources_are_there_for_every_placement(result):
    found = {(row["method"], row["devices"]) for row in result["resources"]}
    assert found == {(m, d) for m in METHODS - {"cdc-safe-spare"} for d in (3, 2)} - {("cdc", 2)}
    full = next(row for row in result["resources"] if row["method"] == "replication")
    assert all(row["memory_mb"] <= full["memory_mb"] for row in result["resources"])
    assert all(row["energy_j"] > 0 and row["fps"] > 0 for row in result["resources"])


def test_devices_that_fail_by_chance(result_of):
    found = result_of("distribute", **ALONE, distribute__failure=[0.2, 0.0, 0.1])
    by_method = {row["method"]: row for row in found["expected"]}
    assert by_method["replication"]["accuracy"] == pytest.approx(found["clean"]["accuracy"])
    for row in found["expected"]:
        assert row["sets"] == 4 and row["failure"] == [0.2, 0.0, 0.1]
        assert row["quantiles"]["5%"] <= row["accuracy"] + row["deviation_run"] + 1e-9


def test_bit_flips_and_lost_devices_in_one_experiment(result_of):
    found = result_of("distribute", **ALONE, distribute__flips=True)
    rates = found["flips"][0]
    assert len(rates["weight_rate"]) == 3 == len(rates["activation_rate"])
    clean = found["clean"]["accuracy"]
    assert {row["failed"] for row in found["flips"]} == {0, 1, 2}
    struck = [row["accuracy"] for row in found["flips"] if row["failed"] == 0]
    assert min(struck) < clean and all(row["trials"] == 3 for row in found["flips"])


@pytest.mark.slow
def test_both_by_chance_are_no_better_than_lost_devices_alone(result_of):
    found = result_of(
        "distribute", **ALONE, distribute__failure=[0.2], distribute__flips=True,
        distribute__methods=["lop", "replication"],
    )  # fmt: skip
    lost = {row["method"]: row for row in found["expected"] if "trials" not in row}
    both = {row["method"]: row for row in found["expected"] if row.get("trials") == 3}
    assert lost.keys() == both.keys() == {"lop", "replication"}
    for method, row in both.items():
        assert row["accuracy"] < lost[method]["accuracy"] and row["sets"] == 8


def test_platform_devices_lend_their_rates_in_turn(config_of):
    experiment = prepare(config_of(), Work({}, SILENT))
    own = np.ravel(experiment.faults.weight_rate)
    faults = of_devices(experiment.faults, 5)
    np.testing.assert_array_equal(np.ravel(faults.weight_rate), np.resize(own, 5))


@pytest.mark.in_ci("weighted")
@pytest.mark.parametrize("objective", ["weighted", "front", "all"])
def test_thresholds_are_searched_and_measured_on_other_images(result_of, objective):
    found = result_of(
        "distribute", **SMALL, distribute__compare=False, distribute__search=-1,
        distribute__objective=objective,
        distribute__weights=[1.0, 0.5, 0.1, 0.1] if objective == "weighted" else [1.0, 0.5, 0, 0],
        search__population=12, search__generations=6,
    )["search"]  # fmt: skip
    assert found["front"] and len(found["constant"]) == 3 == found["groups"]
    assert found["evaluations"] <= 12 * 6 * 3
    for row in found["front"]:
        assert len(row["thresholds"]) == 3 and 0 < row["memory"] <= 1
    for gain in found["gain"]:
        low, high = gain["difference_interval"]
        assert low <= gain["searched"] - gain["constant"] <= high


@pytest.mark.slow
def test_a_run_from_what_is_known_gives_the_same(outcome_of, result):
    memory = {}
    first = plain(outcome_of("distribute", memory, **SMALL).result)
    again = plain(outcome_of("distribute", memory, **SMALL).result)
    for found in (first, again):
        speed = found.pop("throughput")
        assert speed["clean_inferences_per_second"] > 0
    assert first == again == {key: v for key, v in result.items() if key != "throughput"}


def test_scores_are_taken_from_an_importance_run(tmp_path, config_of, result_of, outcome_of):
    scored = result_of("importance")
    (tmp_path / "result.json").write_text(json.dumps({"job": "importance", **scored}))
    found = result_of("distribute", **SMALL, distribute__importance=str(tmp_path))
    assert found["scores"]["from"] == "importance run"
    other = {**scored, "job": "importance", "model": {**scored["model"], "name": "other"}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="scores other, and the network here is"):
        result_of("distribute", **SMALL, distribute__importance=str(tmp_path / "other"))
    experiment = prepare(config_of(), Work({}, SILENT))
    scores = {
        row["name"]: {name: np.array(row[name]) for name in ("l1", "taylor", "jsd")}
        for row in scored["layers"]
    }
    own = distribute(experiment.network, scores, 3, 0.6)
    for held, row in zip(own.holds, found["placement"], strict=True):
        assert row["held"] == [int(each) for each in (held * [[1], [2], [4]]).sum(axis=0)]


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distribute.devices", "2"], "cdc needs 3 devices"),
        (["--distribute.thresholds", "0.1", "0.2"], "distribute.thresholds: 2 for"),
        (["--distribute.failure", "0.1", "0.2"], "2 probabilities for 4 devices"),
        (["--distribute.lost", "4"], "leave none"),
        (["--distribute.weights", "1", "1"], "give four"),
        (["--distribute.board", "abacus"], "abacus"),
        (["--distribute.link", "string"], "string"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, said, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data.name", "npz", "--data.path", str(file), "--model.image_size", "8"]
    model = ["--model.name", "afpjax_tiny_model:tiny", "--model.classes", "4"]
    assert main(["distribute", *data, *model, *words, "--out", "here"]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.strip()]
    assert line.startswith("afpjax: error: ") and said in line
    assert not list(Path(tmp_path).iterdir())


def test_more_devices_than_neurons_run(result_of):
    """Layers of 6 and 4 neurons on 8 devices."""
    found = result_of(
        "distribute", distribute__devices=[8], distribute__lost=[1], distribute__thresholds=[0.5],
        distribute__curve=[], distribute__compare=False,
    )  # fmt: skip
    kept = {row["method"]: row["accuracy"] for row in found["methods"]}
    assert kept["replication"] == found["clean"]["accuracy"]
    assert {row["devices"] for row in found["methods"]} == {8}
    assert "curve" not in found and "ablation" not in found
