"""Struck forward passes against NumPy integers, and what a fault may touch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults import bits
from afpjax.faults.inject import flips_of_trial, logits_of_trial
from afpjax.faults.model import FaultModel, thresholds
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat

SIZES = dict(a=(6, 8), b=(8, 8), c=(8, 4))  # kernels of the fixture's network


def masks_of(seed, trial, image, rates, positions, shapes, target):
    """Masks of all layers, straight from `bits`, for the oracle."""
    found = []
    for layer, (shape, rate) in enumerate(zip(shapes, rates, strict=True)):
        limits = jnp.asarray(bits.threshold(np.full(len(positions), rate)))
        numbers = [jnp.uint32(each) for each in (trial, layer, 0 if image is None else image)]
        found.append(np.asarray(mask(seed, *numbers, limits, shape, tuple(positions), target)))
    return found


@partial(jax.jit, static_argnums=(5, 6, 7))  # op by op, it takes most of the tests' time
def mask(seed, trial, layer, image, limits, shape, positions, target):
    words = bits.stream(seed, trial=trial, layer=layer, target=target, image=image)
    return bits.flip_mask(words, shape, positions, limits)


def numpy_forward(kernels, image, weight_masks, input_masks, frac=8, width=16):
    """Two's complement integers only, but for the skip connection's values."""

    def encode(values):
        top = 2 ** (width - 1)
        return np.clip(np.round(values * 2.0**frac), -top, top - 1).astype(np.int64)

    def strike(codes, mask):
        wrapped = (codes ^ mask) & (2**width - 1)
        return np.where(wrapped >= 2 ** (width - 1), wrapped - 2**width, wrapped)

    def layer(number, values):
        kernel = strike(encode(kernels[number]), weight_masks[number])
        read = strike(encode(values), input_masks[number].reshape(values.shape))
        return (read @ kernel) * 2.0 ** (-2 * frac)

    first = np.maximum(layer(0, image), 0)
    second = np.maximum(layer(1, first), 0) + first
    return layer(2, second)


@pytest.mark.parametrize("rates", [(0.3, 0.0, 0.1), (0.2, 0.2, 0.2)])
@pytest.mark.parametrize("positions", [(0, 1, 2, 3), (2, 7)])
def test_faulty_logits_equal_the_integer_oracle(quantized, images, rates, positions):
    faults = FaultModel(bits=positions, weight_rate=rates, activation_rate=rates[::-1])
    got = quantized(images, mapping=jnp.arange(3), faults=faults, key=11, trial=4)
    kernels = [np.asarray(quantized.parameters.layers[name].kernel) for name in SIZES]
    seed = bits.seed_words(11)
    shapes = list(SIZES.values())
    for number, image in enumerate(images):
        weights = masks_of(seed, 4, None, rates, positions, shapes, bits.WEIGHTS)
        reads = [(1, shape[0]) for shape in shapes]
        inputs = masks_of(seed, 4, number, rates[::-1], positions, reads, bits.ACTIVATIONS)
        expected = numpy_forward(kernels, image, weights, inputs)
        np.testing.assert_array_equal(np.asarray(got[number]), expected.astype(np.float32))


def test_no_faults_means_the_clean_network(quantized, images):
    faults = FaultModel(weight_rate=0.0, activation_rate=0.0)
    np.testing.assert_array_equal(quantized(images, faults=faults, key=1), quantized(images))


def test_a_fault_in_one_layer_leaves_the_skip_connection_and_others_whole(quantized, images):
    """MRFI corrupts in place: the fault of layer b would reach the sum and the caller's input."""
    before = np.array(images)
    faults = FaultModel(weight_rate=0.0, activation_rate=0.5, layers=["b"])
    got = quantized(images, faults=faults, key=2)
    kernels = [np.asarray(quantized.parameters.layers[name].kernel) for name in SIZES]
    none = [np.zeros(shape, np.int32) for shape in SIZES.values()]
    shapes = [(1, shape[0]) for shape in SIZES.values()]
    for number, image in enumerate(images[:5]):
        inputs = masks_of(bits.seed_words(2), 0, number, (0, 0.5, 0), range(4), shapes, 1)
        expected = numpy_forward(kernels, image, none, inputs)
        np.testing.assert_array_equal(np.asarray(got[number]), expected.astype(np.float32))
    np.testing.assert_array_equal(images, before)


def test_weights_are_redrawn_per_trial_and_shared_by_images(quantized, images):
    faults = FaultModel(weight_rate=0.3, activation_rate=0.0)
    same = jnp.broadcast_to(images[:1], (3, 6))
    first = quantized(same, faults=faults, key=0, trial=0)
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first, quantized(same, faults=faults, key=0, trial=1))


def test_activations_are_redrawn_per_image_and_trial(quantized, images):
    faults = FaultModel(weight_rate=0.0, activation_rate=0.3)
    same = jnp.broadcast_to(images[:1], (3, 6))
    first = quantized(same, faults=faults, key=0, trial=0)
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first, quantized(same, faults=faults, key=0, trial=1))


@pytest.mark.in_ci("hash")
@pytest.mark.parametrize("generator", ["hash", "threefry"])
def test_a_draw_does_not_depend_on_how_images_are_batched(quantized, images, generator):
    faults = FaultModel(generator=generator, weight_rate=0.1, activation_rate=0.2)
    draws, seed = faults.spec(), bits.seed_words(4)
    limits = thresholds(faults, quantized, np.zeros(3, np.int32))

    def logits(numbers):
        indices = jnp.asarray(numbers, jnp.uint32)
        batch = images[jnp.asarray(numbers)]
        return run(draws, quantized, batch, indices, limits, seed, jnp.uint32(0))

    run = jax.jit(logits_of_trial, static_argnums=0)
    whole = logits(range(10))
    np.testing.assert_array_equal(whole[7:], logits([7, 8, 9]))
    np.testing.assert_array_equal(whole[jnp.array([3, 1])], logits([3, 1]))


def test_it_jits_vmaps_over_mappings_and_trials_and_differentiates(quantized, images):
    faults = FaultModel(weight_rate=(0.1, 0.3), activation_rate=(0.0, 0.2))

    def logits(mapping, trial):
        return quantized(images, mapping=mapping, faults=faults, key=0, trial=trial)

    mappings = jnp.array([[0, 0, 1], [1, 0, 1]])
    trials = jnp.arange(3, dtype=jnp.uint32)
    both = jax.jit(jax.vmap(jax.vmap(logits, (None, 0)), (0, None)))(mappings, trials)
    for m in range(2):
        for t in range(3):
            np.testing.assert_array_equal(both[m, t], logits(mappings[m], trials[t]))

    def loss(network):
        return (network(images, faults=faults, key=0) ** 2).sum()

    gradient = jax.grad(loss)(quantized).parameters.layers["b"].kernel
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_float_formats_flip_their_own_bits(network_of, images, kind):
    network = network_of(QFormat(kind=kind))
    top = 31 if kind == "float32" else 15
    sign = FaultModel(bits=(top,), weight_rate=1.0, activation_rate=0.0, layers=["c"])
    np.testing.assert_array_equal(network(images, faults=sign), -network(images))


@pytest.mark.in_ci("hash")
@pytest.mark.parametrize("generator", ["hash", "threefry"])
def test_flips_are_counted_layer_by_layer(quantized, generator):
    faults = FaultModel(
        weight_rate=(0.0, 0.3, 1.0), activation_rate=(1.0, 0.0, 0.5), generator=generator
    )
    limits = thresholds(faults, quantized, np.arange(3, dtype=np.int32))
    indices = jnp.arange(4, dtype=jnp.uint32)
    seed = bits.seed_words(9)
    flips = flips_of_trial(faults.spec(), quantized, indices, limits, seed, jnp.uint32(2))
    assert flips.weights.shape == (3,) and flips.activations.shape == (4, 3)
    np.testing.assert_array_equal(flips.weights[jnp.array([0, 2])], [0, 4 * 8 * 4])
    np.testing.assert_array_equal(flips.activations[:, 0], 4 * 6)
    np.testing.assert_array_equal(flips.activations[:, 1], 0)
    if generator == "hash":
        shapes = list(SIZES.values())
        masks = masks_of(seed, 2, None, (0, 0.3, 1), range(4), shapes, bits.WEIGHTS)
        counted = sum(bin(word).count("1") for word in masks[1].ravel())
        assert int(flips.weights[1]) == counted


def test_unknown_bits_layers_and_devices_are_refused_in_one_line(quantized, images):
    with pytest.raises(InputError, match="bit 16 is faulty, but the format has 16 bits"):
        quantized(images, faults=FaultModel(bits=(16,)))
    with pytest.raises(InputError, match="no layer 'z'; layers: a, b, c"):
        quantized(images, faults=FaultModel(layers=["z"]))
    with pytest.raises(InputError, match="first 4 of 3 layers"):
        quantized(images, faults=FaultModel(layers=4))
    faults = FaultModel(weight_rate=(0.1, 0.2), activation_rate=0.1)
    with pytest.raises(InputError, match="mapping names device 2"):
        quantized(images, faults=faults, mapping=np.array([0, 1, 2]))
