"""Struck forward passes against NumPy integers, and what a fault may touch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults import bits
from afpjax.faults.inject import flips_of_trial, logits_of_trial
from afpjax.faults.model import FaultModel, thresholds
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import Quantized

from .words import forward, kernels_of, mask_of


def run(quantized, images, **settings):
    return jax.jit(partial(Quantized.__call__, **settings))(quantized, images)


def by_hand(quantized, images, place, weight_rates, input_rates, positions):
    """Logits in NumPy's integers at place (key, trial)."""
    kernels = {
        name: words ^ mask_of((*place, layer, 0), bits.WEIGHTS, rate, positions, words.shape)
        for layer, ((name, words), rate) in enumerate(
            zip(kernels_of(quantized).items(), weight_rates, strict=True)
        )
    }
    found = []
    for number, image in enumerate(np.asarray(images)):

        def reads(name, words, number=number):
            layer = "abc".index(name)
            at, rate = (*place, layer, number), input_rates[layer]
            return words ^ mask_of(at, bits.ACTIVATIONS, rate, positions, words.shape)

        found.append(forward(quantized.format, kernels, image[None], reads)[0])
    return np.stack(found).astype(np.float32)


@pytest.mark.parametrize(
    ("rates", "positions"), [((0.3, 0.0, 0.1), (0, 1, 2, 3)), ((0.2, 0.2, 0.2), (2, 7))]
)
def test_faulty_logits_equal_the_integer_oracle(quantized, images, rates, positions):
    faults = FaultModel(bits=positions, weight_rate=rates, activation_rate=rates[::-1])
    images = images[:12]
    got = run(quantized, images, mapping=np.arange(3), faults=faults, key=11, trial=4)
    expected = by_hand(quantized, images, (11, 4), rates, rates[::-1], positions)
    np.testing.assert_array_equal(got, expected)


def test_a_fault_in_one_layer_leaves_the_skip_connection_and_others_whole(quantized, images):
    """MRFI corrupts in place: the fault of layer b would reach the sum and the caller's input."""
    before, images = np.array(images[:5]), images[:5]
    faults = FaultModel(weight_rate=0.0, activation_rate=0.5, layers=["b"])
    got = run(quantized, images, faults=faults, key=2)
    expected = by_hand(quantized, images, (2, 0), (0, 0, 0), (0, 0.5, 0), range(4))
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(images, before)
    none = FaultModel(weight_rate=0.0, activation_rate=0.0)
    np.testing.assert_array_equal(run(quantized, images, faults=none), quantized(images))


def test_a_draw_does_not_depend_on_how_images_are_batched(quantized, images):
    faults = FaultModel(weight_rate=0.1, activation_rate=0.2)
    draws, seed = faults.spec(), bits.seed_words(4)
    limits = thresholds(faults, quantized, np.zeros(3, np.int32))
    run = jax.jit(logits_of_trial, static_argnums=0)

    def logits(numbers):
        batch, indices = images[jnp.asarray(numbers)], jnp.asarray(numbers, jnp.uint32)
        return run(draws, quantized, batch, indices, limits, seed, jnp.uint32(0))

    whole = logits(range(10))
    np.testing.assert_array_equal(whole[7:], logits([7, 8, 9]))
    np.testing.assert_array_equal(whole[jnp.array([3, 1, 0])], logits([3, 1, 0]))


def test_it_jits_vmaps_over_mappings_and_trials_and_differentiates(quantized, images):
    faults = FaultModel(weight_rate=(0.1, 0.3), activation_rate=(0.0, 0.2))

    def logits(mapping, trial):
        return quantized(images, mapping=mapping, faults=faults, key=0, trial=trial)

    mappings = jnp.array([[0, 0, 1], [1, 0, 1]])
    trials = jnp.arange(2, dtype=jnp.uint32)
    both = jax.jit(jax.vmap(jax.vmap(logits, (None, 0)), (0, None)))(mappings, trials)
    for m in range(2):
        for t in range(2):
            np.testing.assert_array_equal(both[m, t], logits(mappings[m], trials[t]))

    def loss(network):
        return (network(images, faults=faults, key=0) ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(quantized).parameters.layers["b"].kernel
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_sign_of_a_float_can_flip(network_of, images):
    network = network_of(QFormat(kind="float32"))
    sign = FaultModel(bits=(31,), weight_rate=1.0, activation_rate=0.0, layers=["c"])
    np.testing.assert_array_equal(run(network, images, faults=sign), -network(images))


def test_flips_are_counted_layer_by_layer(quantized):
    faults = FaultModel(weight_rate=(0.0, 0.3, 1.0), activation_rate=(1.0, 0.0, 0.5))
    limits = thresholds(faults, quantized, np.arange(3, dtype=np.int32))
    place = jnp.arange(4, dtype=jnp.uint32), limits, bits.seed_words(9), jnp.uint32(2)
    flips = jax.jit(flips_of_trial, static_argnums=0)(faults.spec(), quantized, *place)
    second = mask_of((9, 2, 1, 0), bits.WEIGHTS, 0.3, range(4), (8, 8))
    assert flips.weights.tolist() == [0, np.bitwise_count(second).sum(), 4 * 8 * 4]
    np.testing.assert_array_equal(flips.activations[:, :2], [[4 * 6, 0]] * 4)
    third = [mask_of((9, 2, 2, i), bits.ACTIVATIONS, 0.5, range(4), (8,)) for i in range(4)]
    assert flips.activations[:, 2].tolist() == [np.bitwise_count(each).sum() for each in third]
