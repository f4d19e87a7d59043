"""Job `importance` from an experiment to what stands in result.json."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from afpjax.command.store import RowStore
from afpjax.config.work import SILENT, Work
from afpjax.evaluate import sizes
from afpjax.evaluate.engine import Engine
from afpjax.evaluate.evaluator import Evaluator
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.importance import run as job
from afpjax.jobs.shared import scoring
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain
from afpjax.neurons import left_out
from afpjax.report.wording import number

from .kept import printed

ESTIMATE = {"importance__exact_passes": 0, "importance__sample": 3, "importance__classes": 3}


@pytest.fixture
def rows_of(result_of):
    """Layers by name, of an experiment."""

    def rows(**changes):
        return {layer["name"]: layer for layer in result_of("importance", **changes)["layers"]}

    return rows


def test_scores_of_a_network_that_guesses_say_so(result_of, file, tmp_path):
    assert result_of("importance")["notes"] == []
    with np.load(file) as known:
        images, labels = known["images"], (known["labels"] + 1) % 4
    np.savez(tmp_path / "shifted.npz", images=images, labels=labels)
    notes = result_of("importance", data__path=str(tmp_path / "shifted.npz"))["notes"]
    assert [note["kind"] for note in notes] == ["chance"]
    assert notes[0]["images"] == 16 and notes[0]["accuracy"] <= notes[0]["guess"]


def test_correlations_are_scipys_and_absent_where_there_are_none(result_of):
    result = result_of("importance")
    found = result["correlations"]
    column = {
        key: np.array([row[key] for row in result["neurons"]])
        for key in ("l1", "taylor", "jsd", "drop")
    }
    for name, value in found["all"].items():
        one, other = name.split("_")
        assert value == pytest.approx(spearmanr(column[one], column[other])[0], abs=1e-6)
    assert set(found["all"]) == {
        "l1_taylor", "l1_jsd", "taylor_jsd", "l1_drop", "taylor_drop", "jsd_drop"
    }  # fmt: skip
    for layer, row in zip(result["layers"], found["layers"], strict=True):
        assert row["layer"] == layer["name"]
        constant = len(set(layer["drop"])) == 1
        assert ("jsd_drop" in row) is not constant
        expected = spearmanr(layer["l1"], layer["jsd"])[0]
        assert row["l1_jsd"] == pytest.approx(expected, abs=1e-6)


def test_the_error_is_that_of_the_sampled_neurons(result_of):
    """On the same images the estimates stand in the result, beside what was measured."""
    result = result_of("importance", **ESTIMATE)
    assert result["divergence"]["method"] == "estimate"
    for layer in result["layers"]:
        assert layer["jsd_method"] == "estimate" and "drop" not in layer
        assert layer["jsd_sampled"] == 3
        rows = [row for row in result["neurons"] if row["layer"] == layer["name"]]
        pairs = np.array([(r["jsd"], r["jsd_left_out"]) for r in rows if "jsd_left_out" in r])
        error = np.sqrt(np.mean((pairs[:, 0] - pairs[:, 1]) ** 2))
        assert layer["jsd_error"] == pytest.approx(error, rel=1e-3, abs=1e-8)
        order = spearmanr(*pairs.T)[0]
        assert layer["jsd_rank_correlation"] == pytest.approx(order, abs=1e-6)


def test_a_sample_of_all_neurons_has_their_divergences(rows_of, result_of):
    """And so the same accuracy lost as where all are left out."""
    exact = rows_of()
    result = result_of("importance", **ESTIMATE | {"importance__sample": 9})
    for row in result["neurons"]:
        own = exact[row["layer"]]
        assert row["drop"] == pytest.approx(own["drop"][row["neuron"]])
        assert row["jsd_left_out"] == pytest.approx(own["jsd"][row["neuron"]], rel=1e-4)


def test_where_the_first_order_is_exact_so_is_the_estimate(rows_of):
    """Of the last layer with all classes followed, nothing is left to estimate."""
    layer = rows_of(**ESTIMATE | {"importance__classes": 4})["head"]
    assert layer["jsd_error"] < 1e-5
    assert layer["jsd_rank_correlation"] == pytest.approx(1)
    np.testing.assert_allclose(layer["jsd"], rows_of()["head"]["jsd"], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("changes", [{}, ESTIMATE], ids=["exact", "estimate"])
def test_the_same_result_from_wherever_it_goes_on(
    outcome_of, result_of, counted, tmp_path, monkeypatch, changes
):
    memory: dict[bytes, bytes] = {}
    first = result_text(plain(outcome_of("importance", memory, counted, **changes).result))
    assert first == result_text(result_of("importance", **changes))
    assert all(done == total for _, total, done in counted.tasks) and len(counted.tasks) >= 2
    rows = list(memory.items())
    assert len(rows) == (4 if not changes else 5)  # all images check the estimate: one row for both
    with RowStore(tmp_path / "rows.sqlite") as store:
        store.update(rows[::2])
        again = plain(outcome_of("importance", store, counted, **changes).result)
        assert dict(store) == memory
    assert result_text(again) == first
    assert all(done == total for _, total, done in counted.tasks)
    with monkeypatch.context() as patch:  # what is known does not run again
        patch.setattr("afpjax.neurons.importance.total_gradient", None)
        patch.setattr(Evaluator, "evaluate_placements", None)
        assert result_text(plain(outcome_of("importance", memory, **changes).result)) == first


@pytest.mark.slow
def test_batches_change_nothing_but_the_last_digits(outcome_of, rows_of, monkeypatch):
    small = sizes.CPU._replace(scoring_images=5, most_images=5, least_images=1)
    monkeypatch.setattr(sizes, "CPU", small)
    monkeypatch.setattr(left_out, "AT_ONCE", 4)
    for changes in ({}, ESTIMATE):
        usual = rows_of(**changes)
        for layer in plain(outcome_of("importance", **changes).result)["layers"]:
            for key in ("taylor", "jsd", "drop"):
                if key in layer:
                    np.testing.assert_allclose(
                        layer[key], usual[layer["name"]][key], rtol=1e-4, atol=1e-8
                    )


def test_training_images_come_first_drawn_from_the_seed(file, config_of, tmp_path):
    with np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    path = tmp_path / "train.npz"
    np.savez(path, images=images[::-1][:20], labels=labels[::-1][:20])
    every = config_of(data__train_path=str(path), importance__images=500)
    assert len(scoring.subject(prepare(every, Work({}, SILENT)))[0].labels) == 20
    order = np.random.default_rng(0).permutation(20)[:12]
    config = config_of(data__train_path=str(path), importance__images=12)
    seen, _ = scoring.subject(prepare(config, Work({}, SILENT)))
    expected = ((images[::-1][:20][order] / 255 - 0.5) / 0.25).astype(np.float32)
    np.testing.assert_allclose(seen.images, expected, atol=1e-5)
    np.testing.assert_array_equal(seen.labels, labels[::-1][:20][order])


def test_another_seed_draws_another_sample(config_of):
    drawn, *others = [
        job._sample(prepare(config_of(run__seed=seed, **ESTIMATE), Work({}, SILENT)), layer, 50)
        for seed, layer in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(drawn.tolist())) == 3 and (np.sort(drawn) == drawn).all()
    assert all((each != drawn).any() for each in others)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "16 search images"), (ESTIMATE, "importance.exact_passes allows 0")],
)
def test_the_summary_names_the_layers_and_says_how(found_by, changes, words):
    outcome = found_by("importance", **changes)
    text = " ".join(printed(outcome.view, 110).split())
    assert words in text and "Rank correlation over all neurons: l1 and Taylor" in text
    for layer in plain(outcome.result)["layers"]:
        heaviest = int(np.argmax(layer["jsd"]))
        assert layer["name"] in text
        assert f"{number(max(layer['jsd']))} {heaviest}" in text


def test_logits_that_are_not_finite_are_refused(config_of, monkeypatch):
    monkeypatch.setattr(Engine, "clean_logits", lambda own: np.full((16, 4), np.inf, np.float32))
    with pytest.raises(InputError, match="logits hold NaN or infinity"):
        job.run(config_of(), Work({}, SILENT))
