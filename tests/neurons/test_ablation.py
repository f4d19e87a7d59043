"""The Jensen-Shannon divergence, against textbooks' form in float64 and scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from afpjax.neurons.ablation import LARGEST, jensen_shannon

from .conftest import divergence


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_it_is_what_textbooks_and_scipy_say(spread):
    for seed in range(20):
        ours, theirs = spread * normal(seed, 2, 6)
        found = float(jensen_shannon(jnp.asarray(ours), jnp.asarray(theirs)))
        assert found == pytest.approx(float(divergence(ours, theirs)), rel=1e-4, abs=1e-12)
        p, q = (np.asarray(jax.nn.softmax(each), np.float64) for each in (ours, theirs))
        assert found == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-3, abs=1e-6)


def test_small_changes_are_not_noise():
    """Written with differences of logarithms, float32 gives multiples of 1e-8, some negative."""
    ours = normal(1, 10)
    for change in (1e-2, 1e-3, 1e-4):
        theirs = (ours + change * normal(2, 10)).astype(np.float32)
        expected = divergence(ours, theirs)
        assert float(jensen_shannon(jnp.asarray(ours), jnp.asarray(theirs))) == pytest.approx(
            expected, rel=5e-3
        )


def test_nothing_changed_is_zero_and_nothing_shared_is_the_largest():
    ours = jnp.asarray(normal(3, 5))
    assert float(jensen_shannon(ours, ours)) == 0.0
    one, other = jnp.array([200.0, 0.0]), jnp.array([0.0, 200.0])
    assert float(jensen_shannon(one, other)) == pytest.approx(np.log(2), rel=1e-6)
    assert pytest.approx(np.log(2)) == LARGEST
    assert float(jensen_shannon(one, other)) == float(jensen_shannon(other, one))


def test_classes_that_are_ruled_out_count_as_their_limit():
    ours = jnp.array([0.0, 1.0, -jnp.inf])
    both = jnp.array([1.0, 0.0, -jnp.inf])
    expected = float(jensen_shannon(ours[:2], both[:2]))
    assert float(jensen_shannon(ours, both)) == pytest.approx(expected, rel=1e-6)
    alone = float(jensen_shannon(ours, jnp.array([0.0, -jnp.inf, -jnp.inf])))
    assert alone == pytest.approx(
        float(divergence(np.array([0.0, 1.0]), np.array([0.0, -90.0]))), rel=1e-5
    )


@pytest.mark.parametrize("change", [0.0, 1e-3, 0.5, 5.0, 300.0])
def test_gradients_are_those_of_finite_differences(change):
    ours, step = normal(4, 4), 1e-4
    theirs = (ours + change * np.array([1, -1, 0.5, 0])).astype(np.float32)
    slope = jax.grad(jensen_shannon, argnums=1)(jnp.asarray(ours), jnp.asarray(theirs))
    for place in range(4):
        up, down = theirs.astype(np.float64), theirs.astype(np.float64)
        up[place] += step
        down[place] -= step
        expected = (divergence(ours, up) - divergence(ours, down)) / (2 * step)
        assert float(slope[place]) == pytest.approx(expected, rel=1e-3, abs=1e-6)
