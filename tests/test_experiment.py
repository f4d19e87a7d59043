"""From an experiment file to objects: what is built, how images are split, what is refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from afpjax.config import config as configuration
from afpjax.config.work import SILENT, Work
from afpjax.experiment import Experiment, prepare
from afpjax.inputs.errors import InputError

COUNT = 20
MODEL = """
import jax.numpy as jnp

def logits(params, images):
    return images.reshape(len(images), -1) @ params["first"] @ params["second"]

def tiny():
    return logits, {"first": jnp.ones((4 * 4 * 3, 5)), "second": jnp.ones((5, 3))}

def grey():
    return logits, {"first": jnp.ones((16, 5)), "second": jnp.ones((5, 3))}

def alone():
    return logits

def greedy(size):
    return tiny()

def broken():
    return {}.missing

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch) -> None:
    (tmp_path / "afpjax_experiment_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "afpjax_experiment_model", raising=False)


@pytest.fixture
def file(tmp_path) -> Path:
    """Images that all differ, labelled 0, 1, 2, 0, …"""
    images = np.arange(COUNT * 48).reshape(COUNT, 4, 4, 3) % 251
    path = tmp_path / "images.npz"
    np.savez(path, images=images.astype(np.uint8), labels=np.arange(COUNT) % 3)
    return path


@pytest.fixture
def experiment_of(file) -> Callable[..., Experiment]:
    small = {
        "model.name": "afpjax_experiment_model:tiny",
        "model.classes": 3,
        "model.image_size": 4,
        "data.name": "npz",
        "data.path": str(file),
    }

    def make(**changes: Any) -> Experiment:
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        return prepare(configuration.load(None, small | changed), Work({}, SILENT))

    return make


def numbers(images):
    """Which of the file's images these are."""
    every = np.arange(COUNT * 48).reshape(COUNT, -1) % 251
    return [int(np.flatnonzero((every == i.reshape(-1)).all(axis=1))[0]) for i in images.images]


@pytest.mark.parametrize(
    ("changes", "searched", "held"),
    [
        ({}, 10, 10),  # search.images asks for more than half
        ({"search__images": 4}, 4, 16),
        ({"search__images": 4, "search__held_out": 0}, 4, 16),
        ({"search__images": 4, "search__held_out": 7}, 4, 7),
        ({"data__images": 3}, 1, 2),
        ({"data__images": 2}, 1, 1),
    ],
)
def test_images_to_search_on_and_to_measure_on_have_nothing_in_common(
    experiment_of, changes, searched, held
):
    experiment = experiment_of(**changes)
    one, other = numbers(experiment.searched), numbers(experiment.held)
    assert (len(one), len(other)) == (searched, held)
    assert len({*one, *other}) == searched + held
    for images, places in ((experiment.searched, one), (experiment.held, other)):
        np.testing.assert_array_equal(images.labels, np.array(places) % 3)


def test_the_seed_decides_the_split_and_every_key(experiment_of):
    splits = [numbers(experiment_of(run__seed=seed).held) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    one, other = experiment_of(), experiment_of(run__seed=1)
    keys = [experiment.key(name) for experiment in (one, other) for name in ("a", "b")]
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == 4
    assert (one.search_evaluator.seed != one.held_out.seed).any()


def test_a_network_of_one_channel_reads_grey_images(experiment_of, tmp_path):
    """The readers once filled three channels whatever the network read."""
    images = (np.arange(COUNT * 16).reshape(COUNT, 4, 4, 1) % 251).astype(np.uint8)
    np.savez(tmp_path / "grey.npz", images=images, labels=np.arange(COUNT) % 3)
    grey = experiment_of(
        model__name="afpjax_experiment_model:grey",
        model__channels=1,
        data__path=str(tmp_path / "grey.npz"),
    )
    assert grey.quantized.program.image_shape == (4, 4, 1)
    assert grey.searched.images.shape[-1] == 1 and len(grey.mean) == 1


def test_networks_read_normalised_images(experiment_of):
    experiment = experiment_of(data__mean=[0.5, 0.4, 0.3], data__std=[0.2, 0.25, 0.5])
    got = experiment.inputs(experiment.held)
    expected = (experiment.held.images / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "weights", "activations"),
    [
        ({}, (0.02, 0.2, 0.0), (0.02, 0.2, 0.0)),  # the shipped devices' own
        ({"faults__weight_rate": [0.1]}, (0.1,) * 3, (0.02, 0.2, 0.0)),
        ({"faults__activation_rate": [0.1, 0.0, 0.3]}, (0.02, 0.2, 0.0), (0.1, 0.0, 0.3)),
    ],
)
def test_rates_are_the_experiments_or_the_devices_own(experiment_of, changes, weights, activations):
    faults = experiment_of(**changes).faults
    assert (faults.weight_rate, faults.activation_rate) == (weights, activations)


def test_scenarios_strike_weights_or_activations_or_both_at_scaled_rates(experiment_of):
    experiment = experiment_of(faults__bits=[1, 3], faults__bit_profile=[1.0, 0.5])
    none, half, full = (0.0,) * 3, (0.01, 0.1, 0.0), (0.1, 1.0, 0.0)
    for name, factor, weights, activations in [
        ("weights", 0.5, half, none),
        ("activations", 0.5, none, half),
        ("both", 0.5, half, half),
        ("both", 5.0, full, full),
    ]:
        faults = experiment.scenario(name, factor)
        np.testing.assert_allclose(faults.weight_rate, weights)
        np.testing.assert_allclose(faults.activation_rate, activations)
        assert (faults.bits, faults.bit_profile) == ((1, 3), (1.0, 0.5))


@pytest.mark.parametrize(
    ("given", "layers"),
    [(["all"], "all"), ([1], 1), (["second"], ("second",)), (["second", "first"],) * 2],
)
def test_struck_layers_are_all_a_count_or_names(experiment_of, given, layers):
    found = experiment_of(faults__layers=given).faults.layers
    assert found == (tuple(layers) if isinstance(layers, list) else layers)


def test_costs_are_for_the_batch_and_the_formats_width(experiment_of):
    for changes, width in (({}, 2), ({"format__bits": 12}, 1.5), ({"format__kind": "float32"}, 4)):
        tables = experiment_of(platform__batch=3, **changes).tables
        np.testing.assert_allclose(tables.weight_bytes, [width * 48 * 5, np.ceil(width * 15)])
        sizes = np.ceil(width * 3 * np.array([48 + 5, 5 + 3]))
        np.testing.assert_allclose(tables.activation_bytes, sizes)


OWN = "afpjax_experiment_model"
REFUSED = [
    ({"model__name": "nowhere_at_all:f"}, "`nowhere_at_all:f` cannot be imported: No module"),
    ({"model__name": f"{OWN}:g"}, "cannot be imported: .* no attribute 'g'"),
    ({"model__name": f"{OWN}:"}, "model.name: .* cannot be imported"),
    ({"model__name": f"{OWN}:alone"}, r"must return \(apply_fn, params\)"),
    # A defect inside the user's function used to read as a missing import.
    ({"model__name": f"{OWN}:broken"}, r"broken\(\)` raised AttributeError: "),
    ({"model__name": f"{OWN}:greedy"}, r"greedy\(\)` raised TypeError: "),
    ({"model__name": "sys:exit"}, r"`sys:exit\(\)` raised SystemExit"),
    ({"model__name": "os:getcwd"}, r"`os:getcwd\(\)` must return \(apply_fn, params\)"),
    ({"model__weights": "some.npz"}, "brings its own parameters; leave it empty"),
    ({"model__classes": 4}, "model.classes: 4, but the network tells 3 classes apart"),
    ({"model__classes": 2}, "label 2 is not in 0..1; .*set model.classes"),
    ({"model__image_size": 5}, "model.image_size: .* does not take images of 5 x 5 x 3: "),
    ({"faults__layers": ["thrid"]}, "no layer 'thrid'; layers: first, second"),
    ({"faults__layers": [3]}, "the first 3 of 2 layers do not exist"),
    (
        {"platform__devices": ["eyeris"], "run__job": "profile"},
        "unknown device `eyeris`; did you mean `eyeriss`",
    ),
    ({"platform__link": "uci"}, "unknown link `uci`"),
    ({"data__images": 1}, "data: 1 test images; a search and its measurement need"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_does_not_fit_together_is_refused(experiment_of, changes, message):
    with pytest.raises(InputError, match=message):
        experiment_of(**changes)
