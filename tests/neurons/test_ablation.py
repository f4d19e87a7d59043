"""The Jensen-Shannon divergence, against textbooks' form in float64 and scipy's."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from afpjax.evaluate.metric import LARGEST, jensen_shannon

from .conftest import divergence

between = jax.jit(jensen_shannon)
CLASSES = 6


def normal(seed):
    return np.random.default_rng(seed).normal(size=CLASSES).astype(np.float32)


def padded(*logits):
    """Classes that are ruled out are added."""
    return np.array([*logits, *[-np.inf] * (CLASSES - len(logits))], np.float32)


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_it_is_what_textbooks_and_scipy_say(spread):
    for seed in range(20):
        ours, theirs = spread * normal(seed), spread * normal(seed + 50)
        found = float(between(ours, theirs))
        assert found == pytest.approx(float(divergence(ours, theirs)), rel=1e-4, abs=1e-12)
        p, q = (softmax(each.astype(np.float64)) for each in (ours, theirs))
        assert found == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-3, abs=1e-6)


def test_small_changes_are_not_noise():
    """Written with differences of logarithms, float32 gives multiples of 1e-8, some negative."""
    ours = normal(1)
    for change in (1e-2, 1e-3, 1e-4):
        theirs = (ours + change * normal(2)).astype(np.float32)
        assert float(between(ours, theirs)) == pytest.approx(divergence(ours, theirs), rel=5e-3)


def test_nothing_changed_is_zero_and_nothing_shared_is_the_largest():
    ours = normal(3)
    assert float(between(ours, ours)) == 0.0
    one, other = padded(200, 0), padded(0, 200)
    assert float(between(one, other)) == pytest.approx(np.log(2), rel=1e-6)
    assert pytest.approx(np.log(2)) == LARGEST
    assert float(between(one, other)) == float(between(other, one))


def test_classes_that_are_ruled_out_count_as_their_limit():
    one, other = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    expected = float(divergence(one, other))
    assert float(between(padded(*one), padded(*other))) == pytest.approx(expected, rel=1e-6)
    expected = float(divergence(one, np.array([0.0, -90.0])))
    assert float(between(padded(*one), padded(0))) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_those_of_finite_differences():
    ours, step, slope_of = normal(4), 1e-4, jax.jit(jax.grad(jensen_shannon, argnums=1))
    for change in (0.0, 1e-3, 0.5, 5.0, 300.0):
        theirs = (ours + change * np.array([1, -1, 0.5, 0, 0, 0])).astype(np.float32)
        slope = slope_of(ours, theirs)
        for place in range(CLASSES):
            up, down = theirs.astype(np.float64), theirs.astype(np.float64)
            up[place] += step
            down[place] -= step
            expected = (divergence(ours, up) - divergence(ours, down)) / (2 * step)
            assert float(slope[place]) == pytest.approx(expected, rel=1e-3, abs=1e-6)
