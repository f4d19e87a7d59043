"""Training: it learns, a seed decides it, and it is done once."""

# pyright: reportMissingImports=false
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from afpjax.config import sections
from afpjax.data import dataset as data
from afpjax.faults import bits
from afpjax.inputs.errors import InputError
from afpjax.models import train, zoo
from afpjax.models.training import batches, from_scratch
from afpjax.models.training.batches import Batches
from afpjax.models.training.recipe import climbing
from afpjax.network.fixed_point import QFormat

from . import tiny
from .tiny import CONDITIONS, MODEL, SETTINGS, STEPS, equal


def kept(cache):
    """What training left; that the backend was checked is remembered beside it."""
    return [path for path in cache.iterdir() if path.name != "checked"]


def accuracy(network, dataset):
    apply_fn, params = network
    images, labels = dataset.test.take(range(len(dataset.test)))
    logits = jax.jit(apply_fn)(params, data.normalise(images, dataset.mean, dataset.std))
    return (np.argmax(logits, axis=1) == labels).mean()


def test_it_learns_once_and_the_cache_gives_the_same_weights(dataset, cache):
    told = []
    first = train.trained(MODEL, SETTINGS, dataset, seed=1, progress=lambda *a: told.append(a))
    assert told == [(step, STEPS) for step in range(STEPS + 1)]
    assert accuracy(first, dataset) >= 0.95
    (file,) = cache.iterdir()
    again = train.trained(MODEL, SETTINGS, dataset, seed=1, progress=lambda *a: told.append(a))
    assert len(told) == STEPS + 1, "it was trained twice"
    assert equal(first[1], again[1])
    assert set(first[1]) == {"conv1", "bn1", "conv2", "conv3", "hidden", "fc"}, "no random state"
    # A broken file is made again, and training is deterministic: the same weights come out.
    file.write_bytes(file.read_bytes()[:99])
    with pytest.warns(UserWarning, match="the cached weights are made anew: .* is no readable"):
        anew = train.trained(MODEL, SETTINGS, dataset, seed=1)
    assert equal(first[1], anew[1]) and list(cache.iterdir()) == [file]


def test_learning_under_faults_starts_from_the_weights_without_and_both_are_kept(
    dataset, cache, tmp_path, monkeypatch
):
    told, both = [], replace(SETTINGS, faults=True)

    def trained(settings, model=MODEL, **more):
        return train.trained(model, settings, dataset, seed=1, **more)[1]

    learnt = trained(both, conditions=CONDITIONS, progress=lambda *a: told.append(a))
    total = STEPS + 3 * 2
    assert told == [(n, total) for n in [*range(STEPS + 1), *range(STEPS, total + 1)]]
    assert len(kept(cache)) == 2
    plain = trained(SETTINGS, progress=lambda *a: pytest.fail("the first weights were lost"))
    assert not equal(plain["fc"], learnt["fc"])
    assert equal(plain["bn1"]["mean"], learnt["bn1"]["mean"])
    again = trained(both, conditions=CONDITIONS, progress=lambda *a: pytest.fail("trained twice"))
    assert equal(learnt, again)
    # The same weights from a file: only the epochs with faults are left, and end the same.
    told.clear()
    zoo.save(tmp_path / "own.npz", plain)
    named = replace(MODEL, weights=str(tmp_path / "own.npz"))
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "another"))
    again = trained(both, model=named, conditions=CONDITIONS, progress=lambda *a: told.append(a))
    assert equal(learnt, again) and told == [(step, 6) for step in range(7)]


def test_the_models_own_weights_and_mode_are_left_alone(dataset, cache):
    model = zoo.create("tiny", classes=2, seed=0)
    before = jax.tree.map(np.array, zoo.params_of(model))
    after = from_scratch.train(
        model,
        Batches(dataset.train, 16),
        settings=replace(SETTINGS, epochs=1),
        mean=dataset.mean,
        std=dataset.std,
        seed=0,
    )
    assert equal(before, zoo.params_of(model))
    moved = zoo.params_of(after)
    assert not equal(before["fc"], moved["fc"]) and not equal(before["bn1"], moved["bn1"])
    assert (np.asarray(moved["bn1"]["mean"]) != 0).all(), "batch statistics were not kept"


def test_dropout_is_drawn_anew_in_every_step():
    model = tiny.Tiny(classes=2, width=1.0, rngs=nnx.Rngs(0))
    draws = nnx.state(model, nnx.RngState)

    def mask(step):
        fresh = from_scratch._drawn(draws, jax.random.key(step))
        assert jax.tree.structure(fresh) == jax.tree.structure(draws)
        nnx.update(model, fresh)
        return np.asarray(model.dropout(np.ones((64, 64), np.float32))) != 0

    masks = [mask(step) for step in range(3)]
    assert all((mask(step) == masks[step]).all() for step in range(3)), "it depends on the past"
    share = np.mean(masks)
    assert abs(share - 0.75) < 5 * np.sqrt(0.25 * 0.75 / (3 * 4096))
    together = np.mean(masks[0] & masks[1])
    assert abs(together - 0.75**2) < 5 * np.sqrt(0.5625 * 0.4375 / 4096)


def test_whatever_the_weights_depend_on_names_the_cache_file(dataset, monkeypatch):
    def name(model=MODEL, settings=SETTINGS, dataset=dataset, seed=0, under=None, start=None):
        job = train._Job(model, settings, dataset, seed, Batches(dataset.train, 16))
        return job.fingerprint(start, under)

    images, labels = tiny.arrays()
    faults = CONDITIONS.faults
    start = {"fc": np.ones(3, np.float32)}
    names = [
        name(),
        name(model=replace(MODEL, width=0.1)),
        name(model=replace(MODEL, classes=3)),
        name(settings=replace(SETTINGS, weight_decay=0.5)),
        name(settings=replace(SETTINGS, augmentation="none")),
        name(dataset=dataset._replace(mean=(0.1,) * 3)),
        name(dataset=dataset._replace(train=tiny.split_of(images[::-1], labels))),
        name(dataset=dataset._replace(train=tiny.split_of(images, labels[::-1]))),
        name(seed=1),
        name(under=CONDITIONS, start=start),
        name(under=CONDITIONS, start={"fc": np.zeros(3, np.float32)}),
        name(under=replace(CONDITIONS, calibration=9), start=start),
        name(under=replace(CONDITIONS, format=QFormat(9, scale="tensor")), start=start),
        name(under=replace(CONDITIONS, faults=replace(faults, weight_rate=0.1)), start=start),
        name(under=CONDITIONS, settings=replace(SETTINGS, fault_epochs=9), start=start),
        name(under=CONDITIONS, settings=replace(SETTINGS, fault_learning_rate=0.9), start=start),
        name(under=CONDITIONS, settings=replace(SETTINGS, batch=9), start=start),
    ]
    assert len(set(names)) == len(names)
    assert name(dataset=dataset._replace(test=tiny.split_of(images[::-1], labels))) == name()
    later = replace(SETTINGS, checkpoint_minutes=7.0)
    without = replace(later, faults=True, fault_epochs=7, fault_learning_rate=7.0)
    assert name(settings=without) == name()
    assert name(under=CONDITIONS, settings=later, start=start) == names[9]
    # What a link might do without a rate changes nothing, nor does how a rate of it is resent.
    for link in ({"link_kind": "zero"}, {"link_kind": "resent", "link_rate": 0.1}):
        under = replace(CONDITIONS, faults=replace(faults, **link))
        assert name(under=under, start=start) == names[9]
    struck = [{"link_rate": 0.1}, {"link_rate": 0.2}, {"link_rate": 0.1, "link_kind": "zero"}]
    under = [replace(CONDITIONS, faults=replace(faults, **link)) for link in struck]
    assert len({names[9], *(name(under=each, start=start) for each in under)}) == 4
    monkeypatch.setattr(bits, "DRAWS", bits.DRAWS + 1)
    assert name() == names[0] and name(under=CONDITIONS, start=start) not in names


def test_a_set_too_large_for_memory_is_streamed_to_the_same_weights(dataset, cache, monkeypatch):
    short = replace(SETTINGS, epochs=2)
    kept = train.trained(MODEL, short, dataset, seed=1)[1]
    for file in cache.iterdir():
        file.unlink()
    monkeypatch.setattr(batches, "IN_MEMORY", 0)
    whole = lambda *a: pytest.fail("it was read as a whole")  # noqa: E731
    assert equal(kept, train.trained(MODEL, short, dataset, seed=1, reading=whole)[1])


@pytest.mark.in_ci("False")
@pytest.mark.parametrize("faults", [False, True])
def test_a_step_size_that_destroys_the_network_is_an_error_and_nothing_is_kept(
    dataset, cache, faults
):
    name = "fault_learning_rate" if faults else "learning_rate"
    wild = replace(SETTINGS, faults=faults, checkpoint_minutes=0.0)
    object.__setattr__(wild, name, 1e30)  # more than a setting may be, to overflow at once
    with pytest.raises(InputError, match=f"train.{name}: the loss is no number in epoch"):
        train.trained(MODEL, wild, dataset, seed=0, conditions=CONDITIONS)
    assert len(kept(cache)) == faults


def test_what_cannot_be_trained_is_an_error_of_one_line(dataset, cache):
    with pytest.raises(InputError, match="no training images; name trained weights"):
        train.trained(MODEL, SETTINGS, dataset._replace(train=None), seed=0)
    with pytest.raises(InputError, match="reads images of 9 x 9 x 3, these are 8 x 8 x 3"):
        train.trained(replace(MODEL, image_size=9), SETTINGS, dataset, seed=0)
    with pytest.raises(InputError, match=r"train.faults: there are no faults to train with"):
        train.trained(MODEL, replace(SETTINGS, faults=True), dataset, seed=0)
    cache.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written .*; set AFPJAX_CACHE"):
        train.trained(MODEL, SETTINGS, dataset, seed=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_the_step_size_climbs_to_its_peak_and_falls_whatever_the_number_of_steps(steps):
    """A training of a single step used to end in optax's ValueError."""
    sizes = np.array([float(np.asarray(climbing(0.3, steps)(step))) for step in range(steps)])
    climb = min(max(1, round(steps / 10)), steps - 1)
    fall = 0.5 * (1 + np.cos(np.pi * np.arange(steps - climb) / (steps - climb)))
    expected = 0.3 * np.concatenate([np.arange(climb) / max(climb, 1), fall])
    np.testing.assert_allclose(sizes, expected, atol=1e-6)


@pytest.mark.slow
def test_the_default_network_reads_97_of_100_digits(cache):
    dataset = data.load(sections.Data(), image_size=32, classes=10)
    network = train.trained(sections.Model(), sections.Train(), dataset, seed=0)
    assert accuracy(network, dataset) >= 0.97
