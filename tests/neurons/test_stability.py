"""What depends on the images, told from balanced halvings of them; against scores made directly."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import rankdata

from afpjax.neurons import scoring
from afpjax.neurons import stability as halvings
from afpjax.neurons.distribute import distribute
from afpjax.neurons.importance import jsd, taylor
from afpjax.neurons.methods.robustdice import clusters, deal
from afpjax.neurons.placement import Placement
from afpjax.neurons.scoring import taylor_halves
from afpjax.neurons.scoring_data import ScoringData
from afpjax.neurons.stability import agreement, overlap, spearman, stability

COUNT = 37  # blocks of three images and of two


@pytest.fixture(scope="module")
def subject(case):
    rng = np.random.default_rng(5)
    images = rng.normal(size=(COUNT, *case.images.shape[1:])).astype(np.float32)
    return ScoringData(case.network, images, rng.integers(0, 4, COUNT), {})


@pytest.fixture(scope="module")
def exact(subject):
    def task(description, steps):
        return nullcontext(SimpleNamespace(advance=lambda steps: None))

    return scoring.neuron_scores(subject, target="label", exact_passes=10**9, classes=3, task=task)


def test_halves_are_balanced():
    """Each has half of the blocks; any two blocks are in one half in 7 of 15 halvings."""
    assert (halvings.FIRST.sum(axis=1) == halvings.BLOCKS // 2).all()
    together = (halvings.FIRST[:, :, None] == halvings.FIRST[:, None, :]).sum(axis=0)
    assert (together[~np.eye(halvings.BLOCKS, dtype=bool)] == 7).all()
    assert sorted(np.concatenate(halvings.blocks(COUNT))) == list(range(COUNT))
    assert halvings.blocks(15) == []


def test_a_mean_has_the_error_that_its_blocks_have():
    """Exactly: s² of 16 block means, over 16; and t with 15 degrees of freedom."""
    values = np.random.default_rng(1).normal(3, 2, (1, 160))
    means = halvings.block_means(values)
    pairs = halvings.halves(means, 160)
    mean = float(values.mean())
    found = halvings.spread(mean, pairs, lambda half: float(half[0]), (-9.0, 9.0))
    error = 2.13145 * means.std(ddof=1) / 4
    assert found.interval == pytest.approx((mean - error, mean + error), rel=1e-5)


def test_scores_of_halves_are_those_of_the_images_alone(subject, exact, case):
    parts = halvings.blocks(COUNT)
    names = case.network.graph.names
    found = scoring.half_scores(subject, exact, "label", 3)
    own = np.concatenate(
        [p for p, first in zip(parts, halvings.FIRST[11], strict=True) if not first]
    )
    images, labels = subject.images[own], subject.labels[own]
    slope = taylor(case.network, images, labels, target="label")
    moved = jsd(case.network, images)
    for name in names:
        half = found[11][1][name]
        np.testing.assert_allclose(half["taylor"], slope[name], rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(half["jsd"], moved[name], rtol=2e-4, atol=1e-9)


def test_large_networks_take_several_passes_and_the_same_scores_come_out(subject, monkeypatch):
    fresh = [replace(subject, memory={}) for _ in range(2)]
    whole = taylor_halves(fresh[0], "winner")
    monkeypatch.setattr(scoring, "_ROOM", 1)
    passed = taylor_halves(fresh[1], "winner")
    for one, other in zip(whole, passed, strict=True):
        for first, second in zip(one, other, strict=True):
            for name in first:
                np.testing.assert_array_equal(first[name], second[name])


def test_estimates_by_block_have_the_estimate_as_their_mean(subject):
    scores, _ = scoring.estimate(subject, 3)
    sizes = [len(part) for part in halvings.blocks(COUNT)]
    for name, each in scoring.estimate_by_block(subject, 3).items():
        np.testing.assert_allclose(np.average(each, axis=0, weights=sizes), scores[name], rtol=1e-9)


def test_fewer_images_than_blocks_tell_nothing(subject):
    assert taylor_halves(replace(subject.first(15), memory={}), "winner") == []


def _noisy(rng, images, neurons=40):
    """Scores of one layer for every image: what a neuron is worth, and noise."""
    worth = np.linspace(0, 1, neurons) ** 2
    return worth[:, None] + rng.normal(0, 0.5, (neurons, images))


def share(values):
    """Share of one layer's neurons on the fullest of 3 devices."""
    groups = clusters(values[:, None], 0.1)
    return deal(groups, 3, len(values)).sum(axis=1).max() / len(values)


def test_the_memory_s_interval_covers_what_other_images_give():
    """Clusters of noisy scores: memory from 64 images, against the mean over other such sets."""
    rng = np.random.default_rng(4)
    expected = np.mean([share(_noisy(rng, 64).mean(axis=1)) for _ in range(60)])
    covered = 0
    for _ in range(60):
        values = _noisy(rng, 64)
        pairs = halvings.halves(halvings.block_means(values), 64)
        low, high = halvings.spread(share(values.mean(axis=1)), pairs, share, (0.0, 1.0)).interval
        covered += low <= expected <= high
    assert covered / 60 > 0.9 - 4 * np.sqrt(0.1 * 0.9 / 60)


def test_overlap_is_counted_by_weights(case):
    layers = case.network.layers
    ones = tuple(np.ones((2, layer.neurons), bool) for layer in layers)
    halved = tuple(each.copy() for each in ones)
    halved[0][1] = False
    one, other = (Placement("robustdice", case.network.graph.names, h) for h in (ones, halved))
    total = 2 * sum(layer.weights + layer.biases for layer in layers)
    first = layers[0].weights + layers[0].biases
    assert overlap(one, other, layers) == pytest.approx((total - first) / total)
    assert overlap(one, one, layers) == 1


def test_halves_that_agree_leave_no_doubt(exact, case):
    placement = distribute(case.network, exact.scores, 2, 0.4)
    still = stability(placement, [(placement, placement)] * halvings.HALVINGS, case.network.layers)
    assert still.memory.interval == (still.memory.value, still.memory.value)
    assert still.overlap == still.overlap_lowest == 1


# Rank correlations: scipy's where there is one, and nothing where there is none


def test_it_is_pearsons_of_the_ranks_ties_and_all():
    rng = np.random.default_rng(0)
    for size in (3, 10, 200):
        one, other = rng.integers(0, 6, (2, size)).astype(np.float64)
        one[0], other[0] = 9, 9  # never constant
        expected = np.corrcoef(rankdata(one), rankdata(other))[0, 1]
        assert spearman(one, other) == pytest.approx(expected)


def test_what_does_not_exist_is_left_out():
    rising, same = np.arange(4.0), np.ones(4)
    assert spearman(rising, same) is None and spearman(same, rising) is None
    assert spearman(rising[:2], rising[:2]) is None
    assert agreement({"a": rising, "b": same, "c": -rising}) == {"a_c": pytest.approx(-1)}
