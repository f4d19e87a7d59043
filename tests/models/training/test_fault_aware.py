"""Fault-aware training: what it sees, what it changes, and that it helps."""

# pyright: reportMissingImports=false
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import afpjax
from afpjax.data.dataset import normalise
from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.models import zoo
from afpjax.models.training.batches import Batches
from afpjax.models.training.fault_aware import Conditions, train_under_faults
from afpjax.network.fixed_point import QFormat

from .. import tiny

SIZE = {"classes": 2, "image_size": 8}
SETTINGS = replace(tiny.SETTINGS, augmentation="none", weight_decay=0.1)
NONE = FaultModel(weight_rate=0.0, activation_rate=0.0)


@pytest.fixture
def model(cache):
    return zoo.create("tiny", classes=2, seed=0)


def learnt(model, dataset, conditions, *, settings=SETTINGS, batch=16, seed=0):
    return train_under_faults(
        zoo.apply_fn_of("tiny", **SIZE),
        model,
        Batches(dataset.train, batch),
        conditions,
        settings=settings,
        mean=dataset.mean,
        std=dataset.std,
        seed=seed,
    )


def test_without_faults_in_floats_it_is_plain_training_of_the_network_in_inference_mode(
    model, dataset
):
    """Held against the Flax network's own gradient, with optax and NumPy around it."""
    apply_fn = zoo.apply_fn_of("tiny", **SIZE)
    params: Any = zoo.params_of(model)
    images, labels = dataset.train.take(range(40))
    seen = normalise(images, dataset.mean, dataset.std)
    statistics = {"mean": params["bn1"]["mean"], "var": params["bn1"]["var"]}
    # One batch holds all images, in whatever order: the gradient is that of the whole set.
    rate = optax.cosine_decay_schedule(SETTINGS.fault_learning_rate, 3)
    decays = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    rule = optax.adamw(rate, weight_decay=0.1, mask=decays)

    def loss(params):
        logits = apply_fn(params, seen)
        wanted = 0.9 * jnp.eye(2)[labels] + 0.05
        return -(wanted * jax.nn.log_softmax(logits)).sum(axis=1).mean()

    @jax.jit
    def step(params, memory):
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = rule.update(jax.grad(loss)(params), memory, params)
        return optax.apply_updates(params, updates), memory

    memory = rule.init(params)
    for _ in range(3):
        params, memory = step(params, memory)
        params["bn1"].update(statistics)  # batch norm is frozen
    got = learnt(model, dataset, Conditions(NONE, QFormat(kind="float32")), batch=40)
    start = zoo.params_of(model)
    for (path, one), other, before in zip(
        jax.tree_util.tree_flatten_with_path(params)[0],
        jax.tree.leaves(got),
        jax.tree.leaves(start),
        strict=True,
    ):
        np.testing.assert_allclose(other, one, rtol=0.01, atol=2e-4, err_msg=str(path))
        if path[-1].key not in ("mean", "var"):
            assert np.abs(one - before).max() > 0.005, f"{path} did not move"


@dataclass(frozen=True)
class Watched(FaultModel):
    """Faults that note down under what a network was struck."""

    seen: list = field(default_factory=list, compare=False)

    def inject(self, quantized, images, *, mapping, key, trial):
        words, steps = jax.random.key_data(key), quantized.steps["conv1"].weights
        jax.debug.callback(
            lambda *a: self.seen.append([*map(np.array, a)]), mapping, trial, words, steps
        )
        return super().inject(quantized, images, mapping=mapping, key=key, trial=trial)


def test_every_step_has_its_own_mapping_and_draw_and_every_epoch_its_scales(model, dataset):
    faults = Watched(bits=range(3), weight_rate=(0.1, 0.2, 0.0), activation_rate=0.1)
    settings = replace(SETTINGS, fault_epochs=10, fault_learning_rate=0.05)
    learnt(model, dataset, Conditions(faults, QFormat(8, scale="channel")), settings=settings)
    jax.effects_barrier()
    mappings, trials, keys, steps = map(np.stack, zip(*faults.seen, strict=True))
    assert sorted(trials) == list(range(20)), "a fault draw was used twice"
    assert (keys == keys[0]).all()
    # 100 devices, one in three each.
    shares = np.bincount(mappings.ravel(), minlength=3) / mappings.size
    assert mappings.shape == (20, 5) and len(shares) == 3
    assert np.abs(shares - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 100)
    assert len({mapping.tobytes() for mapping in mappings}) > 15
    scales = steps[np.argsort(trials)].reshape(10, 2, -1)
    assert (scales[:, 0] == scales[:, 1]).all(), "scales moved within an epoch"
    assert (scales[0] != scales[-1]).any(), "scales did not follow the weights"


# So few bits saturate a little, and the library says so: that is not what is asked here.
@pytest.mark.filterwarnings("ignore:The number format decides")
def test_it_learns_to_live_with_faults(model, dataset):
    """Beside the same training without faults, on the same 200 fault draws."""
    faults = FaultModel(bits=range(4), weight_rate=0.2, activation_rate=0.2)
    fmt = QFormat(8, frac=4)
    longer = replace(tiny.SETTINGS, fault_epochs=60, fault_learning_rate=0.02, augmentation="none")
    apply_fn = zoo.apply_fn_of("tiny", **SIZE)
    images, labels = dataset.test.take(range(40))
    seen = normalise(images, dataset.mean, dataset.std)

    def struck(met):
        params = learnt(model, dataset, Conditions(met, fmt), settings=longer)
        quantized = afpjax.quantize(afpjax.trace(apply_fn, params, seen), fmt)
        assert (np.argmax(quantized(seen), axis=1) == labels).mean() >= 0.9
        mapping, key = np.zeros((1, 5), np.int32), jax.random.key(9)
        return afpjax.accuracy(quantized, seen, labels, mapping, faults, key, trials=200)[0]

    gained = struck(faults) - struck(NONE)
    assert gained.mean() > 0.02 + 3 * gained.std(ddof=1) / np.sqrt(200)


def test_faults_that_there_are_not_are_errors(model, dataset):
    with pytest.raises(InputError, match=r"faults.layers: no layer 'conv9'"):
        learnt(model, dataset, Conditions(FaultModel(layers=["conv9"]), QFormat()))
    with pytest.raises(InputError, match=r"faults.bits: bit 9 is faulty, but the format has 8"):
        learnt(model, dataset, Conditions(FaultModel(bits=[9]), QFormat(8, frac=4)))
