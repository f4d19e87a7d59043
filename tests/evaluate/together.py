"""Mappings under the same draws, by themselves and together in an evaluator; a convolution."""

import jax
import numpy as np

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel, thresholds

KEY, TRIALS = 11, (0, 3, 4)
FAULTS = FaultModel(weight_rate=(0.0, 0.1, 0.3), activation_rate=(0.0, 0.05, 0.3))


def conv(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def one_by_one(network, images, labels, mappings, faults=FAULTS, trials=TRIALS):
    """Every mapping by itself in every trial, through the network's own call."""

    def right(mapping, trial):
        logits = network(images, mapping=mapping, faults=faults, key=KEY, trial=trial)
        return np.asarray(logits).argmax(1) == labels

    return np.stack([[right(mapping, trial) for trial in trials] for mapping in mappings])


def together(network, images, labels, mappings, faults=FAULTS, trials=TRIALS, **options):
    evaluator = Evaluator(network, images, labels, KEY, **options)
    return evaluator.evaluate(faults, thresholds(faults, network, mappings), trials)
