"""Exact fronts and volumes, held against moocore and pencil-and-paper figures."""

import moocore
import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.search.pareto import hypervolume, non_dominated


def points(seed, size, objectives, steps):
    rng = np.random.default_rng(seed)
    if steps is None:
        return rng.random((size, objectives))
    return rng.integers(0, steps + 1, (size, objectives)) / steps


@pytest.mark.parametrize("steps", [None, 16, 3])
@pytest.mark.parametrize(("size", "objectives"), [(1, 2), (50, 1), (300, 2), (300, 3), (200, 4)])
def test_the_front_is_moocores_with_every_copy(size, objectives, steps):
    for seed in range(10):
        values = points(seed, size, objectives, steps)
        expected = moocore.is_nondominated(values, keep_weakly=True)
        np.testing.assert_array_equal(non_dominated(values), expected)


def test_every_copy_of_a_best_point_is_on_the_front():
    """moocore's default keeps only the first of them."""
    values = np.array([[1, 0], [0, 1], [1, 0], [1, 1], [0, 1]])
    assert non_dominated(values).tolist() == [True, True, True, False, True]


def test_the_front_of_integers_narrow_floats_and_infinite_numbers():
    assert non_dominated(np.array([[3, 3], [2, 4], [3, 4]])).tolist() == [True, True, False]
    values = np.array([[0, np.inf], [0, 1], [np.inf, 0], [-np.inf, 5]], np.float32)
    assert non_dominated(values).tolist() == [False, True, True, True]
    assert non_dominated(np.zeros((0, 3))).tolist() == []


def test_the_front_of_a_large_enumeration():
    values = points(0, 100_000, 3, 100)
    expected = moocore.is_nondominated(values, keep_weakly=True)
    np.testing.assert_array_equal(non_dominated(values), expected)


@pytest.mark.parametrize("steps", [None, 16, 3])
@pytest.mark.parametrize(
    ("size", "objectives"), [(1, 2), (40, 1), (200, 2), (100, 3), (200, 3), (40, 4)]
)
def test_the_volume_is_moocores(size, objectives, steps):
    """The reference cuts through the points: some lie beyond it, with ties some lie on it."""
    for seed in range(5):
        values = points(seed, size, objectives, steps)
        for reference in (np.full(objectives, 1.1), np.linspace(2 / 3, 1, objectives)):
            expected = moocore.hypervolume(values, ref=reference)
            assert hypervolume(values, reference) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_volumes_known_by_hand():
    assert hypervolume(np.array([[1.0, 2], [2, 1]]), np.array([3.0, 3])) == 3
    assert hypervolume(np.array([[1.0, 2], [2, 1], [1, 2]]), np.array([3.0, 3])) == 3
    assert hypervolume(np.array([[0, 0, 0, 0]]), np.array([1, 2, 3, 4])) == 24
    assert hypervolume(np.array([[-1.0], [0]]), np.array([2.0])) == 3


def test_points_beyond_or_on_the_reference_add_nothing():
    assert hypervolume(np.array([[1.0, 3], [4, 0], [np.inf, 0]]), np.array([3.0, 3])) == 0
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0
    inside = np.array([[1.0, 1]])
    beyond = np.array([[-5.0, 3], [3, -5], [0, 3.5]])
    reference = np.array([3.0, 3])
    assert hypervolume(np.vstack([inside, beyond]), reference) == 4


def test_neither_order_nor_copies_nor_dominated_points_change_the_volume():
    values = points(0, 60, 3, None)
    reference = np.ones(3)
    volume = hypervolume(values, reference)
    assert hypervolume(values[::-1], reference) == pytest.approx(volume, rel=1e-13)
    padded = np.vstack([values, values, (values + 1) / 2])
    assert hypervolume(padded, reference) == pytest.approx(volume, rel=1e-13)


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        ([[0, np.nan]], [1, 1], "NaN"),
        ([[0, 0]], [1, np.nan], "NaN"),
        ([[0, 0]], [1, np.inf], "infinite"),
        ([[0, -np.inf]], [1, 1], "infinite"),
        ([[0, 0]], [1, 1, 1], "2 objectives"),
    ],
)
def test_a_volume_that_does_not_exist_is_refused(values, reference, message):
    with pytest.raises(InputError, match=message):
        hypervolume(np.array(values, float), np.array(reference, float))


def test_a_front_with_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        non_dominated(np.array([[0, np.nan], [1, 1]]))
