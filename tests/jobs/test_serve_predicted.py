"""Intervals in which job `serve` foretells accuracies."""

import numpy as np
import pytest

from afpjax.jobs.serve.predicted import _interval
from afpjax.statistics.intervals import wilson


@pytest.mark.parametrize("share", [0.2, 0.7, 0.95, 0.996, 1.0])
@pytest.mark.parametrize("images", [1, 5, 23, 150])
def test_what_is_drawn_lies_inside_at_least_so_often(share, images):
    """Images drawn from 500 of which a share is right, as a run draws them from those held out."""
    right = np.arange(500) < round(500 * share)
    rng = np.random.default_rng(images)
    drawn = np.array([rng.permutation(right)[:images].mean() for _ in range(2000)])
    low, high = _interval(share, images)
    assert low <= share <= high
    assert np.mean((low <= drawn) & (drawn <= high)) > 0.945


def test_intervals_are_no_wider_than_need_be():
    low, high = _interval(0.9, 400)
    assert [low, high] == pytest.approx(wilson(360, 400), abs=0.006)
    assert _interval(1.0, 100)[0] == pytest.approx(wilson(100, 100)[0])
    assert _interval(0.996, 23)[1] == 1.0
