"""The counts against plain loops over made-up answers, in any order of arrival."""

import numpy as np
import pytest

from afpjax.campaigns.counts import OutcomeCounts
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
    """Flags by chance, those of a change only where there is one, and the class that was said."""
    rng, found = np.random.default_rng(0), []
    for stratum, count in enumerate(TRIALS):
        shape = (count, IMAGES)
        hit = rng.random(shape) < 0.15 * (stratum + 1)
        after = np.where(hit, rng.integers(0, CLASSES, shape), said)
        other = after != said
        changed = other | (rng.random(shape) < 0.4)
        flags = np.where(changed, metric.CHANGED, 0) | np.where(other, metric.SDC1, 0)
        for flag in FLAGS.values():
            if flag != metric.SDC1:
                flags |= np.where(changed & (rng.random(shape) < 0.2), flag, 0)
        flags |= np.where(rng.random(shape) < 0.7, metric.RIGHT_BIT, 0)
        found.append((flags | after << metric.CLASS_SHIFT).astype(np.int32))
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


def test_sums_of_shares_by_outcome(counts, answers):
    np.testing.assert_array_equal(counts.trials, TRIALS)
    for name in (*FLAGS, "right", "masked"):
        expected = [sum(share(rows, name)) for rows in answers]
        np.testing.assert_allclose(counts.sums(name), expected, rtol=1e-12)
        assert min(expected) > 0
    squares = [sum(y * y for y in share(rows, "sdc1")) for rows in answers]
    np.testing.assert_allclose(counts.squares("sdc1"), squares, rtol=1e-12)
    critical = [sum(y > 0 for y in share(rows, "sdc1")) for rows in answers]
    np.testing.assert_array_equal(counts.critical, critical)


def test_confusion_counts_pairs_of_classes_of_critical_answers(counts, answers, said):
    expected = np.zeros((CLASSES, CLASSES), int)
    for rows in answers:
        for row in rows.tolist():
            for image, answer in enumerate(row):
                if answer & metric.SDC1:
                    expected[said[image], answer >> 8] += 1
    np.testing.assert_array_equal(counts.confusion, expected)
    assert np.trace(expected) == 0 < expected.sum()


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
