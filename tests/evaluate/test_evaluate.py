"""Accuracy of many mappings under many draws: the same numbers as one by one, and shared work."""

import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator, accuracy
from afpjax.evaluate.sensitivity import drops_alone, sensitivity
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.spec import Thresholds
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat

FAULTS = FaultModel(weight_rate=(0.0, 0.2, 0.4), activation_rate=(0.0, 0.1, 0.4))
MAPPINGS = np.array([[0, 1, 2], [2, 2, 2], [0, 0, 0], [0, 1, 2]], np.int32)


def test_equal_rows_run_once_and_memory_is_kept_by_the_caller(quantized, images, labels):
    memory: dict[bytes, bytes] = {}
    counted = []
    limits = thresholds(FAULTS, quantized, MAPPINGS)
    first = Evaluator(quantized, images, labels, 3, memory=memory)
    seen = first.evaluate(FAULTS, limits, range(2), counted.append)
    assert sum(counted) == 4 * 2
    # Two distinct struck mappings by two trials, and the fault-free one, the same in each trial.
    assert first.evaluations == 5 == len(memory)
    again = Evaluator(quantized, images, labels, 3, memory=memory)
    np.testing.assert_array_equal(again.evaluate(FAULTS, limits, range(2)), seen)
    assert again.evaluations == 0
    other = Evaluator(quantized, images, labels, 3, memory=memory, name="other images")
    other.evaluate(FAULTS, limits, range(2))
    assert other.evaluations == 5


def test_accuracy_is_the_share_of_right_images(quantized, images, labels):
    got = accuracy(quantized, images, labels, MAPPINGS, FAULTS, 3, trials=4)
    assert got.shape == (4, 4)
    given = dict(mapping=MAPPINGS[0], faults=FAULTS, key=3, trial=2)
    said = np.asarray(quantized(images, **given)).argmax(1)
    assert got[0, 2] == (said == labels).mean() < 0.8
    np.testing.assert_array_equal(got[0], got[3])
    assert (got[2] == 0.8).all()  # where nothing fails; a fifth of the labels are wrong on purpose


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


def test_both_views_of_a_sweep_equal_runs_with_named_layers(quantized, images, labels):
    def struck(layers, trial):
        faults = FaultModel(weight_rate=0.4, activation_rate=0.4, bits=range(8), layers=layers)
        return np.asarray(quantized(images, faults=faults, key=1, trial=trial)).argmax(1) == labels

    rates = FaultModel(weight_rate=(0.0, 0.4), activation_rate=(0.0, 0.4), bits=range(8))
    evaluator = Evaluator(quantized, images, labels, 1)
    table = sensitivity(evaluator, rates, 2, 3)
    assert table.alone.shape == table.all_but.shape == (3, 2, 3, 40)
    for layer, name in enumerate("abc"):
        for trial in range(3):
            np.testing.assert_array_equal(table.alone[layer, 1, trial], struck([name], trial))
            rest = struck([other for other in "abc" if other != name], trial)
            np.testing.assert_array_equal(table.all_but[layer, 1, trial], rest)
    clean = np.asarray(quantized(images)).argmax(1) == labels
    np.testing.assert_array_equal(evaluator.clean(), clean)
    assert (table.alone[:, 0] == clean).all() and (table.all_but[:, 0] == clean).all()
    drops = drops_alone(evaluator, rates, 2, range(1, 3))
    expected = clean.mean() - table.alone[:, :, 1:].mean(axis=(2, 3))
    np.testing.assert_allclose(drops, expected, atol=1e-12)
