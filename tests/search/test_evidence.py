"""What a search that learns has measured: counts, and what they say."""

import numpy as np
import pytest

from afpjax.search.evidence import Evidence

from .losses import Additive


@pytest.fixture
def objective():
    return Additive(seed=3)


def test_equal_rates_are_paid_once_and_later_draws_are_added(objective):
    evidence = Evidence(objective)
    told = []
    evidence.progress = told.append
    two = np.array([[0, 1, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    evidence.measure(two)
    assert evidence.passes == 2 * 4 * objective.images
    evidence.measure(two[:1], 4)
    assert evidence.passes == 2 * 4 * objective.images and told == [2, 1]
    evidence.measure(two[:1], 10)
    assert evidence.passes == (4 + 10) * objective.images
    assert objective.asked[-1] == (1, tuple(range(4, 10)), 1.0)
    evidence.measure(two[:1], 4, 0.5)
    assert evidence.passes == (4 + 10 + 4) * objective.images
    assert evidence.knows(np.array([[0, 1, 2, 0, 0, 0], [2] * 6], np.int32)) == [True, False]
    assert evidence.knows(two, 0.5) == [True, False]
    right, _ = objective.answers(two[:1], range(10), 1.0)
    assert evidence.accuracy(two[0], 1.0) == pytest.approx(right.mean() / objective.images)


def test_worth_is_right_answers_and_losses_standardised(objective):
    evidence = Evidence(objective)
    mappings = np.random.default_rng(0).integers(0, 3, (20, 6)).astype(np.int32)
    mappings = np.unique(mappings, axis=0)
    evidence.measure(mappings)
    table = evidence.table()
    right, loss = objective.answers(mappings, range(4), 1.0)
    count = 4 * objective.images
    share = (right.sum(axis=1) + 0.5) / (count + 1)
    logit, loss = np.log(share / (1 - share)), loss.mean(axis=1)
    both = (logit - logit.mean()) / logit.std() - (loss - loss.mean()) / loss.std()
    np.testing.assert_allclose(table.worth, both / both.std(), atol=1e-9)
    np.testing.assert_allclose(table.accuracy, right.mean(axis=1) / objective.images)


def test_hard_later_draws_count_against_nobody(objective):
    """Draws from the fifth on are far harder; whoever met them keeps its place."""
    objective.hard = 3.0
    evidence = Evidence(objective)
    mappings = np.unique(np.random.default_rng(1).integers(0, 3, (24, 6)), axis=0).astype(np.int32)
    evidence.measure(mappings)
    before = evidence.table().worth
    best = np.argsort(-before)[:6]
    evidence.measure(mappings[best], 10)
    after = evidence.table()
    assert after.draws[best].tolist() == [10] * 6
    assert evidence.accuracy(mappings[best[0]], 1.0) < after.accuracy[best[0]] - 0.05
    others = np.setdiff1d(np.arange(len(mappings)), best)
    assert after.worth[best].mean() > after.worth[others].max() - 0.6


def test_mappings_tell_apart_where_they_differ_by_more_than_the_draws():
    given = np.unique(np.random.default_rng(2).integers(0, 3, (24, 6)), axis=0).astype(np.int32)
    for strength, tells in ((1.0, True), (0.0, False)):
        objective = Additive(seed=5, strength=strength)
        evidence = Evidence(objective)
        assert not evidence.tells(1.0)  # nothing measured yet
        evidence.measure(given)
        assert evidence.tells(1.0) == tells
        assert not evidence.tells(0.5)
