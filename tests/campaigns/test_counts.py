"""The counts against plain loops over made-up answers, in any order of arrival."""

import itertools

import numpy as np
import pytest

from afpjax.campaigns.counts import KEPT, OutcomeCounts
from afpjax.evaluate import metric

STRATA, IMAGES, CLASSES = 3, 7, 5
TRIALS = (40, 25, 60)
FLAGS = {
    "sdc1": metric.SDC1,
    "sdc5": metric.SDC5,
    "sdc10": metric.SDC10,
    "sdc20": metric.SDC20,
    "non_finite": metric.NON_FINITE,
}


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    return np.random.default_rng(1).integers(0, CLASSES, IMAGES).astype(np.int32)


@pytest.fixture(scope="module")
def answers(said) -> list[np.ndarray]:
    """Answers as a metric could give them: flags that go together, and the class that was said."""
    rng, found = np.random.default_rng(0), []
    for stratum, count in enumerate(TRIALS):
        made = np.zeros((count, IMAGES), np.int32)
        for trial, image in itertools.product(range(count), range(IMAGES)):
            flags, after = 0, int(said[image])
            draw = rng.random()
            if draw < 0.15 * (stratum + 1):  # another class
                flags, after = metric.CHANGED | metric.SDC1, int(rng.integers(0, CLASSES))
                if after == said[image]:
                    after = (after + 1) % CLASSES
                flags |= metric.SDC5 * int(rng.integers(2)) | metric.SDC10 * int(rng.integers(2))
                flags |= metric.SDC20 if flags & metric.SDC10 and rng.random() < 0.5 else 0
            elif draw < 0.6:
                flags = metric.CHANGED
                flags |= metric.SDC10 if draw < 0.55 else 0
                flags |= metric.SDC20 if draw < 0.52 else 0
            elif draw < 0.65:
                flags, after = metric.CHANGED | metric.NON_FINITE, 0
            flags |= metric.RIGHT_BIT if rng.random() < 0.7 and not flags & metric.NON_FINITE else 0
            made[trial, image] = flags | after << metric.CLASS_SHIFT
        found.append(made)
    return found


def parts_of(answers, order):
    """(stratum, start, answers) in pieces of 1 to 9 trials, shuffled."""
    rng, parts = np.random.default_rng(order), []
    for stratum, rows in enumerate(answers):
        start = 0
        while start < len(rows):
            size = int(rng.integers(1, 10))
            parts.append((stratum, start, rows[start : start + size]))
            start += size
    return [parts[place] for place in rng.permutation(len(parts))]


@pytest.fixture(scope="module", params=[0, 1])
def counts(request, answers, said) -> OutcomeCounts:
    found = OutcomeCounts(STRATA, IMAGES, said, CLASSES)
    for part in parts_of(answers, request.param):
        found.add(*part)
    return found


def has(answer, name):
    if name == "right":
        return bool(answer & metric.RIGHT_BIT)
    if name == "masked":
        return not answer & metric.CHANGED
    if name == "tolerable":
        loud = metric.SDC1 | metric.SDC10 | metric.NON_FINITE
        return bool(answer & metric.CHANGED) and not answer & loud
    return bool(answer & FLAGS[name])


def share(rows, name):
    """Share of images with an outcome, by trial."""
    return [sum(has(answer, name) for answer in row.tolist()) / IMAGES for row in rows]


def test_sums_and_squares(counts, answers):
    np.testing.assert_array_equal(counts.trials, TRIALS)
    for name in (*FLAGS, "right", "masked"):
        expected = [sum(share(rows, name)) for rows in answers]
        np.testing.assert_allclose(counts.sums(name), expected, rtol=1e-12)
        assert min(expected) > 0
    for name in ("sdc1", "right"):
        expected = [sum(y * y for y in share(rows, name)) for rows in answers]
        np.testing.assert_allclose(counts.squares(name), expected, rtol=1e-12)


def test_critical_trials_bring_any_image_to_another_class(counts, answers):
    expected = [sum(y > 0 for y in share(rows, "sdc1")) for rows in answers]
    np.testing.assert_array_equal(counts.critical, expected)
    assert 0 < expected[0] < TRIALS[0]


def test_confusion_counts_pairs_of_classes_of_critical_answers(counts, answers, said):
    expected = np.zeros((CLASSES, CLASSES), int)
    for rows in answers:
        for row in rows.tolist():
            for image, answer in enumerate(row):
                if answer & metric.SDC1:
                    expected[said[image], answer >> 8] += 1
    np.testing.assert_array_equal(counts.confusion, expected)
    assert np.trace(expected) == 0 < expected.sum()


def test_the_worst_are_ranked_and_ties_are_settled(counts, answers):
    every = [
        (-y, stratum, trial)
        for stratum, rows in enumerate(answers)
        for trial, y in enumerate(share(rows, "sdc1"))
        if y
    ]
    expected = [(-y, stratum, trial) for y, stratum, trial in sorted(every)[:KEPT]]
    assert len(every) > KEPT and len({y for y, *_ in expected}) < KEPT  # there are ties
    got = [(each.sdc, each.stratum, each.trial) for each in counts.worst]
    assert [each[1:] for each in got] == [each[1:] for each in expected]
    np.testing.assert_allclose([y for y, *_ in got], [y for y, *_ in expected])


@pytest.mark.parametrize("members, weights", [([1], [1.0]), ([0, 2], [0.25, 0.75])])
def test_shares_are_weighted_means_over_strata(counts, answers, members, weights):
    got = counts.shares(members, np.asarray(weights))
    assert list(got) == ["masked", "tolerable", *FLAGS]
    for name, found in got.items():
        each = [np.mean(share(answers[stratum], name)) for stratum in members]
        np.testing.assert_allclose(found, np.dot(weights, each), rtol=1e-12)
        assert 0 < found < 1


def test_faults_without_effect_are_none_of_the_worst(said):
    counts = OutcomeCounts(1, IMAGES, said, CLASSES)
    quiet = np.broadcast_to(said << metric.CLASS_SHIFT, (4, IMAGES)).astype(np.int32)
    counts.add(0, 0, quiet)
    assert counts.worst == [] and counts.critical.tolist() == [0] and not counts.confusion.any()
    assert counts.shares([0], np.ones(1)) == {
        "masked": 1.0, "tolerable": 0.0, **dict.fromkeys(FLAGS, 0.0)
    }  # fmt: skip
