"""Job `importance` from an experiment to what stands in result.json."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import spearmanr

from afpjax.command.store import RowStore
from afpjax.config.work import SILENT, Work
from afpjax.experiment.prepare import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.importance import run as job
from afpjax.jobs.shared import scoring
from afpjax.jobs.shared.outcome import result_text, tables
from afpjax.jobs.shared.result import plain
from afpjax.neurons import ablation
from afpjax.neurons import importance as scores
from afpjax.report.render import terminal
from afpjax.report.wording import number

NEURONS = {"stem": 6, "hidden": 6, "head": 4}
ESTIMATE = {"importance__exact_passes": 0, "importance__sample": 3, "importance__classes": 3}


@pytest.fixture
def rows_of(result_of):
    """Layers by name, of an experiment."""

    def rows(**changes):
        return {layer["name"]: layer for layer in result_of("importance", **changes)["layers"]}

    return rows


def _without(module, images, layer, neuron):
    apply_fn, params = module.tiny()
    if layer:
        params[layer] = params[layer].at[..., neuron].set(0)
    return np.asarray(apply_fn(params, images), np.float64)


@pytest.fixture(scope="module")
def seen(config_of):
    """Images and labels that the scores are of: there are no training images."""
    experiment = prepare(config_of(), Work({}, SILENT))
    return np.asarray(experiment.inputs(experiment.searched)), experiment.searched.labels


def test_scores_of_a_network_that_guesses_say_so(result_of, file, tmp_path):
    assert result_of("importance")["notes"] == []
    with np.load(file) as known:
        images, labels = known["images"], (known["labels"] + 1) % 4
    np.savez(tmp_path / "shifted.npz", images=images, labels=labels)
    notes = result_of("importance", data__path=str(tmp_path / "shifted.npz"))["notes"]
    assert [note["kind"] for note in notes] == ["chance"]
    assert notes[0]["images"] == 16 and notes[0]["accuracy"] <= notes[0]["guess"]


def test_every_neuron_of_every_layer_is_scored(result_of):
    result = result_of("importance")
    assert {layer["name"]: len(layer["l1"]) for layer in result["layers"]} == NEURONS
    for layer in result["layers"]:
        size = NEURONS[layer["name"]]
        assert all(len(layer[key]) == size for key in ("l1", "taylor", "jsd", "drop"))
        assert all(x >= 0 for key in ("l1", "taylor", "jsd") for x in layer[key])
        assert layer["jsd_method"] == "exact"
    assert result["images"] == {"count": 16, "from": "search"}
    assert result["target"] == "winner"
    assert result["divergence"]["method"] == "exact"
    assert "NaN" not in result_text(result)


def test_scores_are_those_of_the_library(config_of, rows_of, seen):
    network = prepare(config_of(), Work({}, SILENT)).network
    for target in ("winner", "loss"):
        found = scores.importance(network, seen[0], seen[1], target=target)
        for name, layer in rows_of(importance__target=target).items():
            for key, values in found[name].items():
                np.testing.assert_allclose(layer[key], values, rtol=1e-4, atol=1e-8)


def test_accuracy_lost_is_that_of_the_network_without_the_neuron(module, result_of, rows_of, seen):
    images, labels = seen
    clean = (_without(module, images, "", 0).argmax(axis=1) == labels).mean()
    assert result_of("importance")["clean"]["accuracy"] == pytest.approx(clean)
    for name, layer in rows_of().items():
        for neuron, drop in enumerate(layer["drop"]):
            right = (_without(module, images, name, neuron).argmax(axis=1) == labels).mean()
            assert drop == pytest.approx(clean - right, abs=1e-9)
    assert any(drop > 0 for layer in rows_of().values() for drop in layer["drop"])


def test_neurons_are_the_layers_row_by_row(result_of):
    result = result_of("importance")
    rows = iter(result["neurons"])
    for layer in result["layers"]:
        for neuron in range(NEURONS[layer["name"]]):
            keys = ("l1", "taylor", "jsd", "drop")
            expected = {key: layer[key][neuron] for key in keys}
            assert next(rows) == {"layer": layer["name"], "neuron": neuron, **expected}
    assert next(rows, None) is None
    header, *lines = tables(result)["neurons"].splitlines()
    assert header == "layer,neuron,l1,taylor,jsd,drop" and len(lines) == sum(NEURONS.values())


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


def test_estimates_come_with_their_error(result_of, seen, module):
    """Of neurons left out for real on the first images: rms error and rank correlation."""
    changes = ESTIMATE | {"importance__sample_images": 8}
    result = result_of("importance", **changes)
    assert result["divergence"]["method"] == "estimate"
    assert result["divergence"]["sample_images"] == 8
    assert result["divergence"]["exact_passes"] > 0
    whole, images = _without(module, seen[0][:8], "", 0), seen[0][:8]
    outputs = np.asarray(jax.nn.softmax(jnp.asarray(_without(module, seen[0], "", 0))))
    neglected = np.sort(outputs, axis=1)[:, :1].sum(axis=1).mean()
    assert result["divergence"]["neglected"] == pytest.approx(neglected, rel=1e-3)
    for layer in result["layers"]:
        name = layer["name"]
        assert layer["jsd_method"] == "estimate" and "drop" not in layer
        assert layer["jsd_sampled"] == 3
        rows = [row for row in result["neurons"] if row["layer"] == name and "drop" in row]
        assert len(rows) == 3
        for row in rows:
            others = _without(module, images, name, row["neuron"])
            assert row["jsd_left_out"] == pytest.approx(_divergence(whole, others), rel=1e-3)
        mean = np.mean([row["jsd_left_out"] for row in rows])
        assert layer["jsd_sample_mean"] == pytest.approx(mean)
        assert 0 < layer["jsd_error"] < 1


def test_the_error_is_that_of_the_sampled_neurons(result_of):
    """On the same images the estimates stand in the result, beside what was measured."""
    result = result_of("importance", **ESTIMATE)
    for layer in result["layers"]:
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


def _divergence(ours, theirs):
    p, q = (np.asarray(jax.nn.softmax(jnp.asarray(each)), np.float64) for each in (ours, theirs))
    m = (p + q) / 2
    return ((p * np.log(p / m) + q * np.log(q / m)).sum(axis=1) / 2).mean()


@pytest.mark.parametrize("changes", [{}, ESTIMATE], ids=["exact", "estimate"])
def test_the_same_result_from_wherever_it_goes_on(
    outcome_of, result_of, counted, tmp_path, changes
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


def test_what_is_known_does_not_run_again(outcome_of, monkeypatch):
    memory: dict[bytes, bytes] = {}
    first = outcome_of("importance", memory)

    def never(*args, **options):
        raise AssertionError("it is known already")

    monkeypatch.setattr("afpjax.neurons.importance.total_gradient", never)
    monkeypatch.setattr("afpjax.neurons.left_out._Programs", never)
    again = outcome_of("importance", memory)
    assert result_text(plain(again.result)) == result_text(plain(first.result))


@pytest.mark.slow
def test_batches_change_nothing_but_the_last_digits(outcome_of, rows_of, monkeypatch):
    monkeypatch.setattr(ablation, "BATCH", 5)
    monkeypatch.setattr(ablation, "NEURONS", 4)
    for changes in ({}, ESTIMATE):
        usual = rows_of(**changes)
        for layer in plain(outcome_of("importance", **changes).result)["layers"]:
            for key in ("taylor", "jsd", "drop"):
                if key in layer:
                    np.testing.assert_allclose(
                        layer[key], usual[layer["name"]][key], rtol=1e-4, atol=1e-8
                    )


def test_training_images_come_first_drawn_from_the_seed(file, config_of, result_of, tmp_path):
    with np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    path = tmp_path / "train.npz"
    np.savez(path, images=images[::-1][:20], labels=labels[::-1][:20])
    result = result_of("importance", data__train_path=str(path), importance__images=12)
    assert result["images"] == {"count": 12, "from": "training"}
    every = result_of("importance", data__train_path=str(path), importance__images=500)
    assert every["images"] == {"count": 20, "from": "training"}
    order = np.random.default_rng(0).permutation(20)[:12]
    config = config_of(data__train_path=str(path), importance__images=12)
    seen, _ = scoring.subject(prepare(config, Work({}, SILENT)))
    expected = ((images[::-1][:20][order] / 255 - 0.5) / 0.25).astype(np.float32)
    np.testing.assert_allclose(seen.images, expected, atol=1e-5)
    np.testing.assert_array_equal(seen.labels, labels[::-1][:20][order])


def test_another_seed_draws_another_sample(config_of):
    config = config_of(**ESTIMATE)
    drawn = job._sample(prepare(config, Work({}, SILENT)), 0, 50)
    assert len(set(drawn.tolist())) == 3 and (np.sort(drawn) == drawn).all()
    others = [
        job._sample(prepare(config_of(run__seed=seed, **ESTIMATE), Work({}, SILENT)), n, 50)
        for seed, n in ((0, 1), (1, 0))
    ]
    assert all((each != drawn).any() for each in others)


def test_the_summary_names_the_layers_and_says_how(outcome_of):
    console = Console(width=110, file=io.StringIO())
    for changes, words in (
        ({}, "16 search images"),
        (ESTIMATE, "importance.exact_passes allows 0"),
    ):
        outcome = outcome_of("importance", **changes)
        with console.capture() as captured:
            console.print(terminal(outcome.view))
        text = " ".join(captured.get().split())
        assert words in text and "Rank correlation over all neurons: l1 and Taylor" in text
        for layer in plain(outcome.result)["layers"]:
            heaviest = int(np.argmax(layer["jsd"]))
            assert layer["name"] in text
            assert f"{number(max(layer['jsd']))} {heaviest}" in text


def test_logits_that_are_not_finite_are_refused(config_of, monkeypatch):
    monkeypatch.setattr(ablation, "logits_of", lambda program, kept: kept[program.output] / 0)
    with pytest.raises(InputError, match="logits hold NaN or infinity"):
        job.run(config_of(), Work({}, SILENT))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"importance__target": "logit"}, "importance.target"),
        ({"importance__images": 0}, "importance.images"),
        ({"importance__sample": 2}, "importance.sample"),
        ({"importance__exact_passes": -1}, "importance.exact_passes"),
    ],
)
def test_settings_that_cannot_be_are_bad_input(config_of, changes, words):
    with pytest.raises(InputError, match=words):
        config_of(**changes)
