"""What moves are worth, against ridge regression written out and normal distributions by hand."""

import numpy as np
import pytest

from afpjax.search import ridge
from afpjax.search.maximal import compared

RATES = np.array([[0.02], [0.2], [0.0]])


def moves(layers=4, reference=(1, 1, 1, 1)):
    rates = np.tile(RATES, (layers, 1, 1))
    rates[2, 0] = rates[2, 1]  # layer 2: the first two devices are alike
    return ridge.moves_of(compared(rates), np.array(reference, np.int32))


def test_columns_are_moves_to_another_choice():
    """Layer 2 has one move, to the last device: its first two are the reference's choice."""
    found = moves()
    assert found.count == 7
    assert found.column.tolist() == [[0, -1, 1], [2, -1, 3], [-1, -1, 4], [5, -1, 6]]
    made = found.features(np.array([[1, 1, 0, 1], [0, 2, 2, 1]], np.int32))
    assert made.tolist() == [[0] * 7, [1, 0, 0, 1, 1, 0, 0]]
    singles = found.single(np.array([1, 1, 1, 1], np.int32))
    np.testing.assert_array_equal(found.features(singles), np.eye(7))


def test_devices_that_are_alike_share_a_column():
    rates = np.tile(RATES, (1, 1, 1))
    rates[0, 2] = rates[0, 0]
    found = ridge.moves_of(compared(rates), np.array([1], np.int32))
    assert found.column.tolist() == [[0, -1, 0]] and found.count == 1


def test_the_posterior_is_that_of_the_joint_normal():
    """Levels and worths are normal, measurements too: condition the joint distribution."""
    rng = np.random.default_rng(0)
    x = (rng.random((30, 7)) < 0.4).astype(float)
    groups, draws = rng.integers(0, 2, 30), rng.integers(2, 12, 30)
    worth = rng.normal(size=30) + 3.0 * groups
    found = ridge.posterior(x, worth, draws, groups)
    full = np.concatenate([x, np.eye(2)[groups]], axis=1)
    prior = np.diag([1.0] * 7 + [100.0] * 2)
    seen = full @ prior @ full.T + np.diag(0.1 * 4 / draws)
    gain = prior @ full.T @ np.linalg.inv(seen)
    np.testing.assert_allclose(found.mean, (gain @ worth)[:7], atol=1e-8)
    np.testing.assert_allclose(found.covariance, (prior - gain @ full @ prior)[:7, :7], atol=1e-8)


def test_draws_have_the_posteriors_mean_and_covariance():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    given = ridge.Posterior(rng.normal(size=5), root @ root.T)
    drawn = np.stack([given.draw(rng) for _ in range(20_000)])
    np.testing.assert_allclose(drawn.mean(axis=0), given.mean, atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), given.covariance, atol=0.35)


def test_a_safer_device_is_worth_no_less():
    found = moves()
    gain = ridge.gains(found, np.array([0.3, 0.1, -0.5, 0.2, -0.1, 0.0, 0.4]))
    assert gain[0] == pytest.approx([0.301, 0.0, 0.302])  # as much as the one that errs more
    assert gain[1] == pytest.approx([0.001, 0.0, 0.202])  # no less than the reference's
    assert gain[2] == pytest.approx([0.0, 0.0, 0.002])  # safer than both of those before
    worth = ridge.total(gain, np.array([[2, 1, 1, 1], [0, 2, 2, 1]], np.int32))
    assert worth == pytest.approx([0.302, 0.301 + 0.202 + 0.002])
