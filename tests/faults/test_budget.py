"""A budget of flips: never exceeded, drawn without replacement, spread as the rates say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults import bits
from afpjax.faults.budget import scale, scale_both
from afpjax.faults.inject import flips_of_trial
from afpjax.faults.model import FaultModel, thresholds

from .words import mask_of

TRIALS, BUDGET = 150, 12  # of every test, so that they share a program


@partial(jax.jit, static_argnums=0)  # op by op, it takes most of the tests' time
def counted(spec, quantized, limits):
    seed, images = bits.seed_words(1), jnp.arange(3, dtype=jnp.uint32)
    of_trial = partial(flips_of_trial, spec, quantized, images, limits, seed)
    return jax.lax.map(of_trial, jnp.arange(TRIALS, dtype=jnp.uint32))


def flips(quantized, budget=BUDGET, **rates):
    """Counts of all trials, on a device for each layer: weights [T, L], activations [T, 3, L]."""
    model = FaultModel(budget=budget, **rates)
    limits = thresholds(model, quantized, np.arange(3, dtype=np.int32))
    found = counted(model.spec(), quantized, limits)
    return np.asarray(found.weights), np.asarray(found.activations)


def test_scaling_thresholds_is_exact_integer_arithmetic():
    """Of one word, and of two: 63 bits."""
    rng = np.random.default_rng(0)
    ends = np.array([0, 1, 2**32 - 1, 2**32, 2**63], np.uint64)
    both = np.concatenate([rng.integers(0, 2**63, 1000, dtype=np.uint64), ends])
    pair = np.stack([both >> np.uint64(32), both % np.uint64(2**32)]).astype(np.uint32)
    ones = np.concatenate([rng.integers(0, 2**31 + 1, 1000), [0, 1, 2**31]]).astype(np.uint32)
    for factor in (0, 1, 5, 2**30 + 12345, 2**31 - 1, 2**31):
        got = np.asarray(scale(jnp.asarray(ones), jnp.uint32(factor)))
        assert got.tolist() == [int(each) * factor // 2**31 for each in ones]
        found = np.asarray(scale_both(jnp.asarray(pair.T), jnp.uint32(factor)), np.uint64)
        words = [(int(a) << 32) + int(b) for a, b in found]
        assert words == [int(each) * factor // 2**31 for each in both]


def test_weights_and_every_image_share_the_budget_by_their_expected_flips(quantized):
    weights, reads = 48 + 64 + 32, 6 + 8 + 8
    of_weights, of_reads = flips(quantized, weight_rate=0.3, activation_rate=0.3)
    assert (of_weights.sum(axis=1) <= round(BUDGET * weights / (weights + reads))).all()
    total = of_weights.sum(axis=1)[:, None] + of_reads.sum(axis=2)
    assert (total <= BUDGET).all() and (total == BUDGET).mean() > 0.95
    # What is not reached changes nothing: the flips are those of the draws themselves.
    of_weights, of_reads = flips(quantized, weight_rate=0.01, activation_rate=0.005)
    shapes = list(enumerate([(6, 8), (8, 8), (8, 4)]))

    def drawn(target, rate, layer, image, shape):
        made = mask_of((1, 0, layer, image), target, rate, range(4), shape)
        return int(np.bitwise_count(made).sum())

    free = [drawn(bits.WEIGHTS, 0.01, layer, 0, shape) for layer, shape in shapes]
    assert of_weights[0].tolist() == free and sum(free) > 2
    for image in range(3):
        reads = [drawn(bits.ACTIVATIONS, 0.005, layer, image, n[:1]) for layer, n in shapes]
        assert of_reads[0, image].tolist() == reads


@pytest.mark.parametrize("budget", [BUDGET, pytest.param(0, marks=pytest.mark.slow)])
def test_flips_under_a_budget_fall_where_the_rates_say(quantized, budget):
    """Uniformly over sites of equal rate; three times as often where the rate is three times."""
    of_weights, of_reads = flips(
        quantized, budget, weight_rate=(0.3, 0.1, 0.3), activation_rate=0.0
    )
    assert (of_weights.sum(axis=1) == budget).all() and not of_reads.any()
    weighted = np.array([48, 64 / 3, 32])
    expected = TRIALS * budget * weighted / weighted.sum()
    assert np.abs(of_weights.sum(axis=0) - expected).max() <= 5 * np.sqrt(expected).max()
