"""Rank correlations: scipy's where there is one, and nothing where there is none."""

import numpy as np
import pytest
from scipy.stats import rankdata

from afpjax.neurons.stability import agreement, spearman


def _by_hand(one, other):
    """Pearson's correlation of mean ranks."""
    return np.corrcoef(rankdata(one), rankdata(other))[0, 1]


def test_it_is_pearsons_of_the_ranks_ties_and_all():
    rng = np.random.default_rng(0)
    for size in (3, 10, 200):
        one, other = rng.integers(0, 6, (2, size)).astype(np.float64)
        one[0], other[0] = 9, 9  # never constant
        assert spearman(one, other) == pytest.approx(_by_hand(one, other))


def test_only_order_matters():
    values = np.array([0.3, -2.0, 5.0, 1.0])
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)


def test_what_does_not_exist_is_left_out():
    rising, same = np.arange(4.0), np.ones(4)
    assert spearman(rising, same) is None and spearman(same, rising) is None
    assert spearman(rising[:2], rising[:2]) is None
    assert agreement({"a": rising, "b": same, "c": -rising}) == {"a_c": pytest.approx(-1)}
