"""Job `online` from an experiment to what stands in result.json, on a network of three layers."""

import itertools

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain
from afpjax.online.environment import nominal_state

POLICIES = ("never", "online", "safest", "surrogate", "oracle")
#: The device that does all the work is struck hard, and recovers; or it leaves, and comes back.
BURST = """
description = "a burst"
steps = 90
shift = 4

[[change]]
step = 15
device = "busiest"
weight_rate = 0.5
activation_rate = 0.5

[[change]]
step = 70
device = "busiest"
rate_factor = 1.0
"""
LOSS = "step,device,present\n10,busiest,false\n90,busiest,true\n"
#: Time that a search never takes here, however busy the machine is: its budget cuts nothing.
QUICK = {
    "online__seeds": 2,
    "online__policies": list(POLICIES),
    "online__population": 4,
    "online__generations": 2,
    "online__false_alarms": 0.01,
    "online__budget_ms": 1e6,
    "online__fps": 0.032,  # 1,000 s a step, so that the budget is one step
    "online__dwell": 3,
    "online__review": 20,
    "online__gain": 0.05,
    "online__theta": 0.2,
    "faults__weight_rate": [0.0, 0.2, 0.0],  # two devices to trust, so that one may be struck
    "faults__activation_rate": [0.0, 0.2, 0.0],
    "online__allow_latency": 9.0,
    "online__allow_energy": 9.0,
    "search__allow_latency": 9.0,
    "search__allow_energy": 9.0,
}


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Paths of a .toml and a .csv trace."""
    folder = tmp_path_factory.mktemp("traces")
    (folder / "burst.toml").write_text(BURST)
    (folder / "loss.csv").write_text(LOSS)
    return [str(folder / "burst.toml"), str(folder / "loss.csv")]


@pytest.fixture(scope="module")
def given(traces):
    return {**QUICK, "online__trace": traces}


@pytest.fixture(scope="module")
def result(result_of, given):
    return result_of("online", **given)


def row_of(result, trace, policy):
    (row,) = [r for r in result["policies"] if (r["trace"], r["policy"]) == (trace, policy)]
    return row


def test_a_mapping_changes_only_where_it_is_said_to(result):
    events = result["events"]
    for before, after in itertools.pairwise(events):
        assert after["repartitioned"] == (after["mapping"] != before["mapping"])
    assert not events[0]["repartitioned"] and events[0]["mapping"] == result["first"]["mapping"]
    assert any(event["repartitioned"] for event in events)
    # Something was decided before, and it took a step at least.
    first = next(event["step"] for event in events if event["repartitioned"])
    assert any("reason" in event for event in events[: first - 1])


def test_true_accuracies_are_those_of_forward_runs(config_of, result):
    experiment = prepare(config_of(), Work({}, SILENT))
    held, key = experiment.held, experiment.key("draws held out")
    images = experiment.inputs(held)
    seen = {}
    for event in result["events"]:
        seen[str((event["rates"], event["mapping"]))] = event
    assert len(seen) >= 3
    for event in seen.values():
        rates = event["rates"]
        faults = nominal_state(rates["weight"], rates["activation"]).faults(experiment.faults)
        right = [
            np.asarray(
                experiment.quantized(
                    images, mapping=np.array(event["mapping"]), faults=faults, key=key, trial=trial
                )
            ).argmax(axis=1)
            == held.labels
            for trial in range(3)
        ]
        assert event["accuracy"] == pytest.approx(np.mean(right))
        assert event["accuracy_drop"] == pytest.approx(result["clean"]["accuracy"] - np.mean(right))


def test_acting_loses_less_than_staying(result):
    for trace in ("burst", "loss"):
        never, online, oracle = (
            row_of(result, trace, policy) for policy in ("never", "online", "oracle")
        )
        assert never["above"] > 0.3 and never["switches"] == 0 == never["searches"]
        assert online["above"] <= never["above"] / 2
        assert online["accuracy"] > never["accuracy"]
        assert online["switches"] >= 1 <= oracle["switches"]


def test_false_alarms_are_measured_at_constant_rates(result):
    as_built, below = result["false_alarms"]
    limit, alarm = result["watch"]["limit"], result["watch"]["alarm"]
    assert (as_built["environment"], below["environment"]) == ("as built", "just below theta")
    assert as_built["failing"] == 0 == as_built["alarms"]
    assert 0 < below["failing"] <= limit
    for row in (as_built, below):
        assert row["batches"] == 10_000
        assert row["alarms"] <= 10_000 / alarm + 4 * (10_000 / alarm) ** 0.5
        low, high = row["alarms_per_hour_interval"]
        assert low <= row["alarms_per_hour"] <= high
        assert row["alarms_per_hour"] == pytest.approx(row["alarms"] * 3.6 / 10_000)


def test_all_is_the_mean_of_the_traces(result):
    for policy in POLICIES:
        parts = [row_of(result, trace, policy) for trace in ("burst", "loss")]
        whole = row_of(result, "all", policy)
        for key in ("accuracy", "above", "latency_ms", "energy_mj", "switches"):
            assert whole[key] == pytest.approx(np.mean([part[key] for part in parts]))
        assert whole["seeds"] == 4
    for row in result["policies"]:
        for key in ("accuracy", "above"):
            low, high = row[f"{key}_interval"]
            assert 0 <= low <= row[key] <= high <= 1


def test_policies_are_held_against_online_and_against_the_safest_in_pairs(result):
    rows = {(row["trace"], row["policy"], row["over"]): row for row in result["gains"]}
    pairs = [("online", over) for over in POLICIES if over != "online"]
    pairs += [(policy, "safest") for policy in ("never", "surrogate", "oracle")]
    assert list(rows) == [(name, *pair) for name in ("burst", "loss", "all") for pair in pairs]
    for (trace, policy, over), row in rows.items():
        for key in ("accuracy", "above", "latency_ms", "energy_mj"):
            one, other = (row_of(result, trace, name)[key] for name in (policy, over))
            assert row[key] == pytest.approx(one - other, abs=1e-9)


def text(result):
    """result.json but for times."""
    assert result["throughput"]["searches"] > 0
    return result_text({key: value for key, value in result.items() if key != "throughput"})


@pytest.mark.slow
def test_the_same_experiment_has_the_same_result_wherever_it_goes_on(outcome_of, result, given):
    memory: dict[bytes, bytes] = {}
    first = text(plain(outcome_of("online", memory, **given).result))
    assert first == text(result)
    half = dict(list(memory.items())[::2])
    assert text(plain(outcome_of("online", half, **given).result)) == first


@pytest.mark.slow
def test_without_labels_canaries_are_compared_with_a_clean_reference(outcome_of, given):
    """An eighth of the labels is wrong: with a reference, these images are canaries too."""
    result = plain(outcome_of("online", **given, online__labels=False).result)
    assert result["stream"]["pool"] == 16 and not result["stream"]["labels"]
    assert result["watch"]["limit"] == pytest.approx(0.2)
    online, never = (row_of(result, "burst", policy) for policy in ("online", "never"))
    assert online["above"] <= never["above"] / 2


def test_with_labels_theta_is_a_share_of_what_is_right_without_faults(result, config_of):
    experiment = prepare(config_of(), Work({}, SILENT))
    right = experiment.search_evaluator.clean(experiment.faults)
    assert 0 < right.sum() < 16
    assert result["stream"]["pool"] == right.sum()
    assert result["watch"]["limit"] == pytest.approx(0.2 / right.mean())


@pytest.fixture
def earlier(tmp_path, result_of):
    """A run folder of a partition of the tiny network, or of one that `changes` make of it."""

    def write(changes):
        found = {"job": "partition", **result_of("partition"), **changes}
        (tmp_path / "result.json").write_text(result_text(found))
        return str(tmp_path)

    return write


@pytest.mark.slow
def test_the_front_of_an_earlier_run_is_where_it_begins(outcome_of, result_of, given, earlier):
    front = [point["mapping"] for point in result_of("partition")["front"]]
    found = plain(outcome_of("online", **given, online__front=earlier({})).result)
    assert [point["mapping"] for point in found["front"]] == front
    assert found["first"]["mapping"] in front


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "m", "layers": []}}, "is a mapping of another network"),
        ({"devices": ["eyeriss", "simba", "simba"]}, "devices here are eyeriss, simba, simba-ecc"),
        ({"job": "campaign"}, "is no run of job partition"),
        (None, "has no result.json"),
    ],
)
def test_a_front_that_does_not_fit_is_refused(outcome_of, given, earlier, changes, message):
    folder = "nowhere" if changes is None else earlier(changes)
    with pytest.raises(InputError, match=message):
        outcome_of("online", **given, online__front=folder)


def test_a_bad_trace_is_refused_in_one_line(outcome_of, tmp_path):
    """Of the devices that the platform has: the file alone does not say that."""
    path = tmp_path / "bad.csv"
    path.write_text("step,device,weight_rate\n5,tpu,0.5\n")
    with pytest.raises(InputError, match="change 1: no device `tpu`") as caught:
        outcome_of("online", **QUICK, online__trace=[str(path)])
    assert str(caught.value).startswith(f"online.trace: {path}: ") and "\n" not in str(caught.value)
