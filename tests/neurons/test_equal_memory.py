"""Thresholds that lead to a wanted memory."""

import numpy as np
import pytest

from afpjax.neurons.distribute import distribute
from afpjax.neurons.placement import largest_share
from afpjax.neurons.thresholds import threshold_for


@pytest.fixture(scope="module")
def place(case):
    rng = np.random.default_rng(8)
    scores = {layer.name: {"l1": rng.random(layer.neurons)} for layer in case.network.layers}
    return lambda threshold: distribute(
        case.network, scores, 2, threshold, names=("l1",), normalise="raw"
    )


def test_no_other_threshold_comes_nearer(case, place):
    layers = case.network.layers
    ladder = {t: largest_share(place(t), layers) for t in np.linspace(0, 1.1, 400)}
    for memory in (0.5, 0.6, 0.75, 0.9, 1.0):
        _, placement = threshold_for(memory, place, layers)
        off = abs(largest_share(placement, layers) - memory)
        assert off <= min(abs(share - memory) for share in ladder.values()) + 0.03


def test_the_threshold_is_that_of_the_placement(case, place):
    threshold, placement = threshold_for(0.7, place, case.network.layers)
    for one, other in zip(placement.holds, place(threshold).holds, strict=True):
        np.testing.assert_array_equal(one, other)


def test_scales_of_any_size_are_found(case):
    scores = {layer.name: {"l1": 1e4 * np.arange(layer.neurons)} for layer in case.network.layers}

    def place(threshold):
        return distribute(case.network, scores, 2, threshold, names=("l1",), normalise="raw")

    _, placement = threshold_for(0.5, place, case.network.layers)
    assert largest_share(placement, case.network.layers) < 0.6
