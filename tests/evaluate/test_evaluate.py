"""Accuracy of many mappings under many draws: the same numbers as one by one, and shared work."""

import numpy as np
import pytest

from afpjax.evaluate import engine
from afpjax.evaluate.evaluator import Evaluator, accuracy
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.spec import Thresholds
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat

FAULTS = FaultModel(weight_rate=(0.0, 0.2, 0.4), activation_rate=(0.0, 0.1, 0.4))
MAPPINGS = np.array([[0, 1, 2], [2, 2, 2], [0, 0, 0], [0, 1, 2]], np.int32)


def one_by_one(quantized, images, labels, mapping, trial, key=3):
    logits = quantized(images, mapping=mapping, faults=FAULTS, key=key, trial=trial)
    return np.asarray(logits).argmax(1) == labels


def test_outcomes_equal_those_of_every_mapping_by_itself(quantized, images, labels):
    evaluator = Evaluator(quantized, images, labels, 3)
    got = evaluator.evaluate(FAULTS, thresholds(FAULTS, quantized, MAPPINGS), [0, 5])
    assert got.shape == (4, 2, 40)
    for place, mapping in enumerate(MAPPINGS):
        for column, trial in enumerate([0, 5]):
            expected = one_by_one(quantized, images, labels, mapping, trial)
            np.testing.assert_array_equal(got[place, column], expected)


@pytest.mark.parametrize("batch", [1, 7, 16, 64])
def test_outcomes_do_not_depend_on_the_batch_size(quantized, images, labels, batch, monkeypatch):
    limits = thresholds(FAULTS, quantized, MAPPINGS[:2])
    whole = Evaluator(quantized, images, labels, 3).evaluate(FAULTS, limits, range(3))
    monkeypatch.setattr(engine, "BATCH", batch)
    parts = Evaluator(quantized, images, labels, 3).evaluate(FAULTS, limits, range(3))
    np.testing.assert_array_equal(parts, whole)


def test_equal_rows_run_once_and_memory_is_kept_by_the_caller(quantized, images, labels):
    memory: dict[bytes, bytes] = {}
    limits = thresholds(FAULTS, quantized, MAPPINGS)
    first = Evaluator(quantized, images, labels, 3, memory=memory)
    seen = first.evaluate(FAULTS, limits, range(2))
    # Two distinct struck mappings by two trials, and the fault-free one, the same in each trial.
    assert first.evaluations == 5 == len(memory)
    again = Evaluator(quantized, images, labels, 3, memory=memory)
    np.testing.assert_array_equal(again.evaluate(FAULTS, limits, range(2)), seen)
    assert again.evaluations == 0
    other = Evaluator(quantized, images, labels, 3, memory=memory, name="other images")
    other.evaluate(FAULTS, limits, range(2))
    assert other.evaluations == 5


def test_progress_counts_every_row_once(quantized, images, labels):
    counted = []
    evaluator = Evaluator(quantized, images, labels, 3)
    evaluator.evaluate(FAULTS, thresholds(FAULTS, quantized, MAPPINGS), range(9), counted.append)
    assert sum(counted) == 4 * 9


def test_clean_outcomes_are_the_quantised_networks(quantized, images, labels):
    clean = Evaluator(quantized, images, labels, 0).clean()
    np.testing.assert_array_equal(clean, np.asarray(quantized(images)).argmax(1) == labels)
    assert clean.mean() == 0.8  # a fifth of the labels are wrong on purpose


def test_accuracy_is_the_share_of_right_images(quantized, images, labels):
    got = accuracy(quantized, images, labels, MAPPINGS, FAULTS, 3, trials=4)
    assert got.shape == (4, 4)
    expected = one_by_one(quantized, images, labels, MAPPINGS[1], 2).mean()
    assert got[1, 2] == expected
    np.testing.assert_array_equal(got[0], got[3])


def test_faults_cost_accuracy_and_more_faults_cost_more(quantized, images, labels):
    worst = np.full((1, 3), 2, np.int32)
    rates = [0.0, 0.002, 0.1]
    means = [
        accuracy(
            quantized, images, labels, worst,
            FaultModel(bits=range(12), weight_rate=(0.0, 0.0, r), activation_rate=(0.0, 0.0, r)), 0,
        ).mean()
        for r in rates
    ]  # fmt: skip
    assert means[0] == 0.8 and means[0] > means[1] > means[2]


def test_logits_that_are_not_finite_are_never_right(network_of, images, labels):
    network = network_of(QFormat(kind="float32"))
    exponent = FaultModel(bits=(30,), weight_rate=1.0, activation_rate=1.0)
    logits = np.asarray(network(images, faults=exponent))
    assert not np.isfinite(logits).all()
    limits = thresholds(exponent, network, np.zeros((1, 3), np.int32))
    outcome = Evaluator(network, images, labels, 0).evaluate(exponent, limits, [0])[0, 0]
    assert not outcome[~np.isfinite(logits).all(axis=1)].any()


def test_images_and_labels_that_do_not_match_are_refused(quantized, images, labels):
    for bad_images, bad_labels, message in [
        (images, labels[:-1], "40 images but 39 labels"),
        (images[:, :5], labels, r"shape \(5,\), but the network takes \(6,\)"),
        (images[:0], labels[:0], "none given"),
    ]:
        with pytest.raises(InputError, match=message):
            Evaluator(quantized, bad_images, bad_labels, 0)


def test_rates_are_data_and_compile_nothing_anew(quantized, images, labels):
    evaluator = Evaluator(quantized, images, labels, 3)
    evaluator.evaluate(FAULTS, thresholds(FAULTS, quantized, MAPPINGS), [0])
    before = compiler._compile.cache_info().misses
    other = FaultModel(weight_rate=0.01, activation_rate=0.3, layers=2)
    for trials in ([7], range(40)):
        limits: Thresholds = thresholds(other, quantized, MAPPINGS[:1])
        evaluator.evaluate(other, limits, trials)
    assert compiler._compile.cache_info().misses == before
