"""Intervals against scipy, a direct analysis of variance, and their own promise: coverage."""

import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.statistics.intervals import (
    accuracy_interval,
    difference_interval,
    images_interval,
    mean_variance,
    subset_scores,
    wilson,
)


@pytest.mark.parametrize("hits, count", [(0, 10), (3, 10), (10, 10), (997, 1000), (1, 100_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(hits, count, confidence):
    expected = stats.binomtest(hits, count).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson(hits, count, confidence), expected, atol=1e-9)


def test_no_proportion_is_refused():
    for hits, count in [(3, 2), (-1, 2), (0, 0), (float("nan"), 3)]:
        with pytest.raises(InputError, match="is no proportion"):
            wilson(hits, count)


def test_the_variance_is_that_of_a_two_way_analysis_written_out():
    values = np.random.default_rng(0).normal(size=(5, 7))
    grand = values.mean()
    rows = sum(7 * (values[k].mean() - grand) ** 2 for k in range(5)) / 4
    columns = sum(5 * (values[:, b].mean() - grand) ** 2 for b in range(7)) / 6
    rest = sum(
        (values[k, b] - values[k].mean() - values[:, b].mean() + grand) ** 2
        for k in range(5)
        for b in range(7)
    ) / (4 * 6)
    expected = max(rows + columns - rest, rows, columns) / 35
    np.testing.assert_allclose(mean_variance(values)[0], expected)


def crossed(rng, trials, images, mean, trial_sd, image_sd):
    latent = mean + rng.normal(size=(trials, images))
    latent += trial_sd * rng.normal(size=(trials, 1)) + image_sd * rng.normal(size=(1, images))
    return np.asarray(latent > 0)


@pytest.mark.parametrize(
    "trials, images, mean, trial_sd, image_sd",
    [
        (4, 128, 3.0, 0.2, 1.5),
        (8, 200, -1.3, 0.5, 1.0),
        (2, 400, 1.0, 0.0, 1.5),
    ],
)
def test_accuracy_intervals_cover_the_truth(trials, images, mean, trial_sd, image_sd):
    """95 % intervals hold at least 92 % of the time, where trials and images are both random."""
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(mean / np.sqrt(1 + trial_sd**2 + image_sd**2))
    runs, inside = 400, 0
    for _ in range(runs):
        low, high = accuracy_interval(crossed(rng, trials, images, mean, trial_sd, image_sd))
        inside += low <= truth <= high
    assert inside / runs > 0.92
    naive = [
        wilson(int(hits.sum()), hits.size)
        for hits in (crossed(rng, trials, images, mean, 1.0, image_sd) for _ in range(100))
    ]
    truth = stats.norm.cdf(mean / np.sqrt(2 + image_sd**2))
    assert np.mean([low <= truth <= high for low, high in naive]) < 0.8, "clusters do matter"


def test_outcomes_all_alike_still_have_an_interval():
    low, high = accuracy_interval(np.ones((4, 100), bool))
    assert 0.95 < low < 1 and high == 1
    low, high = accuracy_interval(np.zeros((4, 100), bool))
    assert low == 0 and 0 < high < 0.05
    low, high = accuracy_interval(np.ones((1, 1), bool))
    assert 0 <= low < high == 1


def test_an_interval_holds_its_own_estimate_and_stays_inside_0_and_1():
    rng = np.random.default_rng(2)
    for _ in range(300):
        shape = rng.integers(1, 6), rng.integers(1, 30)
        correct = rng.random(shape) < rng.random()
        low, high = accuracy_interval(correct)
        assert 0 <= low <= correct.mean() <= high <= 1


def test_paired_differences_cover_and_are_narrower_than_two_intervals():
    rng = np.random.default_rng(3)
    runs, inside, widths = 300, 0, []
    truth = stats.norm.cdf(1.0 / np.sqrt(2.3)) - stats.norm.cdf(0.6 / np.sqrt(2.3))
    for _ in range(runs):
        shared = rng.normal(size=(6, 150)) + 0.3**0.5 * rng.normal(size=(6, 1))
        shared = shared + rng.normal(size=(1, 150))
        low, high = difference_interval(shared + 1.0 > 0, shared + 0.6 > 0)
        inside += low <= truth <= high
        widths.append(high - low)
    assert inside / runs > 0.92
    low, high = accuracy_interval(np.asarray(shared + 1.0 > 0))
    assert np.mean(widths) < high - low
    with pytest.raises(InputError, match="not paired"):
        difference_interval(np.ones((2, 3), bool), np.ones((2, 4), bool))


@pytest.mark.parametrize("known, total, count", [(120, 400, 90), (3, 50, 20), (39, 40, 11)])
def test_scores_of_a_subset_are_the_hypergeometrics(known, total, count):
    drawn = stats.hypergeom(total, known, count)
    hits = np.arange(min(count, known) + 1)
    expected = (hits - drawn.mean()) / drawn.std()
    size, of, whole = (np.full_like(hits, each) for each in (count, known, total))
    np.testing.assert_allclose(subset_scores(hits, size, of, whole), expected, atol=1e-12)
    # The other way about: theirs is drawn from ours.
    swapped = subset_scores(of, whole, hits, size)
    np.testing.assert_allclose(swapped, -expected, atol=1e-12)


def test_scores_where_nothing_is_left_to_chance():
    """All images are the same ones, or all of them are hit, or none."""
    hits, count = np.array([4, 5, 0, 10]), np.array([10, 10, 10, 10])
    known, total = np.array([4, 4, 0, 20]), np.array([10, 10, 20, 20])
    scores = subset_scores(hits, count, known, total)
    assert np.isnan(scores[[0, 2, 3]]).all() and scores[1] == np.inf


def test_an_interval_over_images_is_that_of_clusters_written_out():
    hits = np.array([3, 0, 5, 1, 2, 0])
    shares, mean = hits / 8, hits.mean() / 8
    variance = shares.var(ddof=1) / 6 * (1 - 6 / 60)
    effective = mean * (1 - mean) / variance
    spread = stats.t.ppf(0.975, 5) ** 2 / effective
    centre = (mean + spread / 2) / (1 + spread)
    half = np.sqrt(mean * (1 - mean) * spread + spread**2 / 4) / (1 + spread)
    low, high = images_interval(hits, 8, images=60)
    assert low <= centre - half + 1e-12 and high >= centre + half - 1e-12
    assert images_interval(hits, 8, images=6) == (mean, mean)
    assert images_interval(hits, 8)[0] < low < mean < high < images_interval(hits, 8)[1]
    low, high = images_interval(np.zeros(50, int), 8)
    assert low == 0 < high < 0.1


@pytest.mark.parametrize("rate, alike", [(0.4, 30.0), (0.02, 2.0), (0.002, 0.3)])
def test_intervals_over_images_cover(rate, alike):
    """Images that are unlike (beta-distributed shares), 100 of 500; 40 faults are the same."""
    rng, faults, inside, runs = np.random.default_rng(7), 40, 0, 400
    for _ in range(runs):
        shares = rng.beta(alike * rate, alike * (1 - rate), 500)
        hits = rng.binomial(faults, shares)
        low, high = images_interval(hits[:100], faults, images=500)
        inside += low <= hits.mean() / faults <= high
    assert inside / runs > 0.9
