"""A budget of flips: never exceeded, drawn without replacement, spread as the rates say."""

import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults import bits
from afpjax.faults.budget import scale
from afpjax.faults.inject import flips_of_trial
from afpjax.faults.model import FaultModel, thresholds

SITES = 4 * (48 + 64 + 32)  # faulty bits in the weights


def flips(quantized, faults, trial):
    limits = thresholds(faults, quantized, np.arange(3, dtype=np.int32))
    images = jnp.arange(3, dtype=jnp.uint32)
    return flips_of_trial(
        faults.spec(), quantized, images, limits, bits.seed_words(1), jnp.uint32(trial)
    )


def test_scaling_thresholds_is_exact_integer_arithmetic():
    rng = np.random.default_rng(0)
    limits = np.concatenate([rng.integers(0, 2**31 + 1, 1000), [0, 1, 2**31, 2**31]])
    factors = np.concatenate([rng.integers(0, 2**31 + 1, 1000), [5, 2**31, 2**31, 2**31 - 1]])
    got = scale(jnp.asarray(limits, jnp.uint32), jnp.asarray(factors, jnp.uint32))
    expected = [int(a) * int(b) // 2**31 for a, b in zip(limits, factors, strict=True)]
    np.testing.assert_array_equal(np.asarray(got, np.int64), expected)


@pytest.mark.in_ci("7")
@pytest.mark.parametrize("budget", [0, 7])
def test_as_many_flips_as_the_budget_allows_and_no_more(quantized, budget):
    faults = FaultModel(weight_rate=0.3, activation_rate=0.0, budget=budget)
    for trial in range(4):
        counted = flips(quantized, faults, trial)
        assert int(counted.weights.sum()) == budget
        assert not counted.activations.any()


def test_a_budget_that_is_not_reached_changes_nothing(quantized):
    free = FaultModel(weight_rate=0.05, activation_rate=0.05)
    bounded = FaultModel(weight_rate=0.05, activation_rate=0.05, budget=10_000)
    for one, other in zip(flips(quantized, free, 0), flips(quantized, bounded, 0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_and_every_image_share_the_budget_by_their_expected_flips(quantized):
    faults = FaultModel(weight_rate=0.3, activation_rate=0.3, budget=100)
    weights, reads = 48 + 64 + 32, 6 + 8 + 8
    counted = flips(quantized, faults, 0)
    assert int(counted.weights.sum()) <= round(100 * weights / (weights + reads))
    for image in range(3):
        total = int(counted.weights.sum() + counted.activations[image].sum())
        assert 95 <= total <= 100


def test_flips_under_a_budget_fall_where_the_rates_say(quantized):
    """Uniformly over sites of equal rate; three times as often where the rate is three times."""
    faults = FaultModel(weight_rate=(0.3, 0.1, 0.3), activation_rate=0.0, budget=12)
    total = np.zeros(3)
    for trial in range(150):
        total += np.asarray(flips(quantized, faults, trial).weights)
    weighted = np.array([48, 64 / 3, 32])
    expected = total.sum() * weighted / weighted.sum()
    assert np.abs(total - expected).max() < 5 * np.sqrt(expected).max()


def test_the_budgeted_flips_are_a_subset_of_the_free_ones(quantized, images):
    """No replacement: a bit is flipped once or not at all."""
    limits = thresholds(FaultModel(weight_rate=0.3), quantized, np.zeros(3, np.int32))
    smaller = scale(jnp.asarray(limits.weights), jnp.uint32(2**29))
    words = bits.streams(bits.seed_words(0), jnp.uint32(0), 3, bits.WEIGHTS)
    for layer, shape in enumerate([(6, 8), (8, 8), (8, 4)]):
        few = np.asarray(bits.flip_mask(words[layer], shape, range(4), smaller[layer]))
        many = np.asarray(bits.flip_mask(words[layer], shape, range(4), limits.weights[layer]))
        assert few.any() and not (few & ~many).any()
