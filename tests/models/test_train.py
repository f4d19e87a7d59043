"""Training: it learns, a seed decides it, and it is done once."""

# pyright: reportMissingImports=false
from dataclasses import replace

import jax
import numpy as np
import pytest

from afpjax import data, sections
from afpjax.errors import InputError
from afpjax.models import train as training
from afpjax.models import zoo
from afpjax.models.train import train, trained

MODEL = sections.Model(classes=2, image_size=8, width=0.05)
SETTINGS = sections.Train(epochs=16, batch=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def dataset():
    """Bright against dark images, with noise: learnt in a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 2
    images = rng.integers(0, 160, (40, 8, 8, 3)) + 95 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    return data.Dataset(
        data.Images(images, labels), data.Images(images[:4], labels[:4]), (0.5,) * 3, (0.25,) * 3
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def accuracy(network, dataset):
    apply_fn, params = network
    images = data.normalise(dataset.train.images, dataset.mean, dataset.std)
    answers = np.argmax(jax.jit(apply_fn)(params, images), axis=1)
    return (answers == dataset.train.labels).mean()


def equal(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(a) == b).all()), one, other))


def test_it_learns_once_and_the_cache_gives_the_same_weights(dataset, cache):
    told = []
    first = trained(MODEL, SETTINGS, dataset, seed=1, progress=lambda *args: told.append(args))
    assert told == [(epoch, 16) for epoch in range(1, 17)]
    assert accuracy(first, dataset) >= 0.95
    (file,) = cache.iterdir()
    again = trained(MODEL, SETTINGS, dataset, seed=1, progress=lambda *args: told.append(args))
    assert len(told) == 16, "it was trained twice"
    assert equal(first[1], again[1])
    # A broken file is made again, and training is deterministic: the same weights come out.
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    anew = trained(MODEL, SETTINGS, dataset, seed=1)
    assert equal(first[1], anew[1]) and list(cache.iterdir()) == [file]


def test_the_models_own_weights_and_mode_are_left_alone(dataset):
    model = zoo.create("resnet18", classes=2, width=0.05, seed=0)
    before = jax.tree.map(np.array, zoo.params_of(model))
    after = train(
        model,
        *dataset.train,
        settings=SETTINGS,
        mean=dataset.mean,
        std=dataset.std,
        seed=0,
    )
    assert equal(before, zoo.params_of(model))
    moved = zoo.params_of(after)
    assert not equal(before["fc"], moved["fc"]) and not equal(before["bn1"], moved["bn1"])
    assert (np.asarray(moved["bn1"]["mean"]) != 0).all(), "batch statistics were not kept"


def test_whatever_the_weights_depend_on_names_the_cache_file(dataset):
    def name(model=MODEL, settings=SETTINGS, dataset=dataset, seed=0):
        return training._fingerprint(model, settings, dataset, seed)

    images, labels = dataset.train
    names = [
        name(),
        name(model=replace(MODEL, width=0.1)),
        name(model=replace(MODEL, classes=3)),
        name(settings=replace(SETTINGS, weight_decay=0.5)),
        name(dataset=dataset._replace(mean=(0.1,) * 3)),
        name(dataset=dataset._replace(train=data.Images(images[::-1], labels))),
        name(dataset=dataset._replace(train=data.Images(images, labels[::-1]))),
        name(seed=1),
    ]
    assert len(set(names)) == len(names)
    assert name(dataset=dataset._replace(test=dataset.train)) == name()


def test_images_move_by_up_to_an_eighth_and_black_comes_in():
    image = np.arange(1, 17 * 16 * 3 + 1 - 48, dtype=np.int64).reshape(16, 16, 3) % 255 + 1
    batch = np.repeat(image[None].astype(np.uint8), 200, axis=0)
    wide = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {
        wide[r : r + 16, c : c + 16].astype(np.uint8).tobytes(): (r, c)
        for r in range(5)
        for c in range(5)
    }
    moved = np.asarray(training._shifted(jax.random.key(0), jax.numpy.asarray(batch)))
    assert {windows[each.tobytes()] for each in moved} == set(windows.values())


def test_a_step_size_that_destroys_the_network_is_an_error_and_nothing_is_kept(dataset, cache):
    wild = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(InputError, match=r"train.learning_rate: the loss is no number after"):
        trained(MODEL, wild, dataset, seed=0)
    assert not list(cache.iterdir())


def test_no_training_images_wrong_size_and_no_cache_folder_are_errors(dataset, cache):
    with pytest.raises(InputError, match="no training images; name trained weights"):
        trained(MODEL, SETTINGS, dataset._replace(train=None), seed=0)
    with pytest.raises(InputError, match="reads images of 9 x 9 x 3, these are 8 x 8 x 3"):
        trained(replace(MODEL, image_size=9), SETTINGS, dataset, seed=0)
    cache.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written .*; set AFPJAX_CACHE"):
        trained(MODEL, SETTINGS, dataset, seed=0)


@pytest.mark.slow
def test_the_default_network_reads_97_of_100_digits(cache):
    dataset = data.load(sections.Data(), image_size=32, classes=10)
    apply_fn, params = trained(sections.Model(), sections.Train(), dataset, seed=0)
    images = data.normalise(dataset.test.images, dataset.mean, dataset.std)
    answers = np.argmax(jax.jit(apply_fn)(params, images), axis=1)
    assert (answers == dataset.test.labels).mean() >= 0.97
