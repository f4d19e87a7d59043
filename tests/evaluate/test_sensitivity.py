"""Layer-wise sweeps: each view strikes what it says."""

import numpy as np

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.sensitivity import drops_alone, sensitivity
from afpjax.faults.model import FaultModel

FAULTS = FaultModel(weight_rate=(0.0, 0.4), activation_rate=(0.0, 0.4), bits=range(8))


def struck(quantized, images, labels, layers, trial):
    faults = FaultModel(weight_rate=0.4, activation_rate=0.4, bits=range(8), layers=layers)
    return np.asarray(quantized(images, faults=faults, key=1, trial=trial)).argmax(1) == labels


def test_both_views_equal_runs_with_named_layers(quantized, images, labels):
    evaluator = Evaluator(quantized, images, labels, 1)
    table = sensitivity(evaluator, FAULTS, 2, 3)
    assert table.alone.shape == table.all_but.shape == (3, 2, 3, 40)
    names = ["a", "b", "c"]
    for layer, name in enumerate(names):
        others = [other for other in names if other != name]
        for trial in range(3):
            alone = struck(quantized, images, labels, [name], trial)
            np.testing.assert_array_equal(table.alone[layer, 1, trial], alone)
            rest = struck(quantized, images, labels, others, trial)
            np.testing.assert_array_equal(table.all_but[layer, 1, trial], rest)
    clean = evaluator.clean()
    assert (table.alone[:, 0] == clean).all() and (table.all_but[:, 0] == clean).all()


def test_single_layer_drops_are_those_of_the_sweep(quantized, images, labels):
    evaluator = Evaluator(quantized, images, labels, 1)
    alone = sensitivity(evaluator, FAULTS, 2, 6).alone
    drops = drops_alone(evaluator, FAULTS, 2, range(3, 6))
    expected = evaluator.clean().mean() - alone[:, :, 3:].mean(axis=(2, 3))
    np.testing.assert_allclose(drops, expected, atol=1e-12)
    assert (drops[:, 0] == 0).all() and drops[:, 1].max() > 0
