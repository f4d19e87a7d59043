"""Intervals in which job `serve` predicts accuracies."""

import numpy as np
import pytest

from afpjax.jobs.serve.predicted import _estimate
from afpjax.statistics.intervals import wilson


@pytest.mark.parametrize("share", [0.2, 0.7, 0.95, 0.996, 1.0])
@pytest.mark.parametrize("images", [1, 5, 23, 150])
def test_what_is_drawn_lies_inside_at_least_so_often(share, images):
    """Images drawn from 500 of which a share is right, as a run draws them from those held out."""
    right = np.arange(500) < round(500 * share)
    rng = np.random.default_rng(images)
    drawn = np.array([rng.permutation(right)[:images].mean() for _ in range(2000)])
    low, high = _estimate(share, images).bounds
    assert low <= share <= high
    assert np.mean((low <= drawn) & (drawn <= high)) > 0.945


def test_intervals_are_no_wider_than_need_be():
    low, high = _estimate(0.9, 400).bounds
    assert [low, high] == pytest.approx(wilson(360, 400), abs=0.006)
    assert _estimate(1.0, 100).low == pytest.approx(wilson(100, 100)[0])
    assert _estimate(0.996, 23).high == 1.0
