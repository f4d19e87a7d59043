"""Scores on one scale: what is promised of each scale, and scores that do not vary."""

from fractions import Fraction

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.neurons.distribute import NORMALISATIONS, points

NAMES = ("l1", "taylor", "jsd")
every_scale = pytest.mark.parametrize("normalise", NORMALISATIONS)


def scores(neurons, seed=0):
    """Of three units, the last one with ties."""
    rng = np.random.default_rng(seed)
    return {
        "l1": rng.uniform(5, 900, neurons).astype(np.float32),
        "taylor": rng.exponential(0.3, neurons).astype(np.float32),
        "jsd": 1e-9 * rng.integers(0, 4, neurons).astype(np.float32),
    }


def test_min_max_is_a_share_of_the_range():
    own = scores(40)
    found = points(own, NAMES, "minmax")
    assert found.shape == (40, 3) and found.dtype == np.float64
    for axis, name in enumerate(NAMES):
        exact = [Fraction(float(each)) for each in own[name]]
        low, high = min(exact), max(exact)
        shares = [float((each - low) / (high - low)) for each in exact]
        np.testing.assert_allclose(found[:, axis], shares, rtol=1e-12)
        assert found[:, axis].min() == 0 and found[:, axis].max() == 1


def test_z_scores_have_mean_zero_and_deviation_one_and_keep_proportions():
    own = scores(40)
    found = points(own, NAMES, "zscore")
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-12)
    for axis, name in enumerate(NAMES):
        assert np.corrcoef(found[:, axis], own[name].astype(np.float64))[0, 1] > 1 - 1e-12


@pytest.mark.parametrize("neurons", [2, 3, 40])
def test_a_rank_is_the_share_of_others_below_and_half_of_the_equal_ones(neurons):
    own = scores(neurons)
    own["jsd"][0] = 1  # never constant
    found = points(own, NAMES, "rank")
    for axis, name in enumerate(NAMES):
        below = (own[name][:, None] > own[name]).sum(axis=1)
        equal = (own[name][:, None] == own[name]).sum(axis=1) - 1
        np.testing.assert_allclose(found[:, axis], (below + equal / 2) / (neurons - 1), rtol=1e-12)


def test_raw_scores_stay_as_they_are():
    own = scores(9)
    expected = np.stack([own[name] for name in NAMES], axis=1).astype(np.float64)
    np.testing.assert_array_equal(points(own, NAMES, "raw"), expected)


@pytest.mark.parametrize("normalise", [each for each in NORMALISATIONS if each != "raw"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-40, 3e30])
@pytest.mark.parametrize("neurons", [1, 7, 1000])
def test_a_constant_score_is_zero_everywhere(normalise, value, neurons):
    """The mean of equal numbers is not always that number: 0.1 a thousand times, for one."""
    own = {"l1": np.full(neurons, value), "jsd": np.arange(neurons, dtype=np.float64)}
    found = points(own, ("l1", "jsd"), normalise)
    assert (found[:, 0] == 0).all() and np.isfinite(found).all()
    assert neurons == 1 or np.ptp(found[:, 1]) > 0


@every_scale
@pytest.mark.parametrize("size", [1e-200, 1e-40, 1.0, 1e35])
def test_scores_of_any_size_make_numbers(normalise, size):
    """Squares of the smallest of them are zero in float64."""
    found = points({"jsd": size * np.array([1.0, 2.0, 5.0])}, ("jsd",), normalise)
    assert np.isfinite(found).all() and len(np.unique(found)) == 3


@every_scale
def test_axes_are_the_named_scores_in_their_order(normalise):
    own = scores(12)
    whole = points(own, NAMES, normalise)
    np.testing.assert_array_equal(points(own, ("jsd", "l1"), normalise), whole[:, [2, 0]])
    np.testing.assert_array_equal(points(own, ("taylor",), normalise), whole[:, [1]])


@every_scale
def test_scales_keep_the_order_of_neurons(normalise):
    own = scores(40)
    found = points(own, NAMES, normalise)
    for axis, name in enumerate(NAMES):
        order = np.sign(own[name][:, None].astype(np.float64) - own[name].astype(np.float64))
        np.testing.assert_array_equal(np.sign(found[:, axis][:, None] - found[:, axis]), order)


def test_an_unknown_scale_is_refused_in_one_line():
    with pytest.raises(InputError, match="normalise: 'max' is none of minmax, zscore, rank, raw"):
        points(scores(3), NAMES, "max")
