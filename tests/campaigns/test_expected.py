"""Expected numbers of faults: those that are counted, on average, and sums by hand."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.campaigns.expected import in_cell, under_mapping
from afpjax.campaigns.masks import Cell
from afpjax.faults import bits
from afpjax.faults.inject import flips_of_trial
from afpjax.faults.model import FaultModel, thresholds

WEIGHTS, READS = (48, 64, 32), (6, 8, 8)  # of the layers
MAPPING = np.array([0, 1, 1])
FAULTS = FaultModel(
    bits=(0, 3), weight_rate=(0.1, 0.3), activation_rate=0.2, bit_profile=(1.0, 0.5)
)


@pytest.mark.parametrize("faults", [FAULTS, replace(FAULTS, layers=2)])
def test_as_many_are_expected_as_are_counted(quantized, faults):
    trials, images = 40, 5
    limits = thresholds(faults, quantized, MAPPING)
    place = jnp.arange(images, dtype=jnp.uint32), limits, bits.seed_words(1)
    of_trial = partial(flips_of_trial, faults.spec(), quantized, *place)
    numbers = jnp.arange(trials, dtype=jnp.uint32)
    found = jax.jit(lambda numbers: jax.lax.map(of_trial, numbers))(numbers)
    counted = int(found.weights.sum()) + int(found.activations.sum())
    expected = under_mapping(faults, quantized, MAPPING, trials=trials, images=images)
    assert abs(counted - expected) < 5 * np.sqrt(expected)


def of(quantized, mapping=MAPPING, trials=10, images=4, **changes):
    faults = replace(FAULTS, bit_profile=(), **changes)
    return under_mapping(faults, quantized, mapping, trials=trials, images=images)


def test_scopes_kinds_budgets_and_links_by_hand(quantized):
    weights = 2 * (48 * 0.1 + 96 * 0.3)
    reads = 2 * 22 * 0.2
    none: dict[str, Any] = {"activation_rate": 0.0}
    assert of(quantized, **none) == pytest.approx(10 * weights)
    assert of(quantized, weight_rate=0.0) == pytest.approx(40 * reads)
    for scope, of_weights, of_reads in (("run", 1, 1), ("trial", 10, 10), ("image", 40, 40)):
        assert of(quantized, scope=scope) == pytest.approx(of_weights * weights + of_reads * reads)
    assert of(quantized, kind="zero", **none) == pytest.approx(5 * weights)
    packets = 5 * 0.1 + (7 + 4) * 0.3
    assert of(quantized, kind="lost", packet=10, **none) == pytest.approx(10 * packets)
    assert of(quantized, budget=2) == 80
    struck: dict[str, Any] = {"weight_rate": 0.0, "activation_rate": 0.0, "link_rate": 1e-6}
    assert of(quantized, **struck) == pytest.approx(40 * 8 * 16 * 1e-6)  # of the first layer alone
    lost = struck | {"link_kind": "zero", "packet": 5}
    assert of(quantized, **lost) == pytest.approx(40 * 2 * 1e-6)
    assert of(quantized, np.zeros(3, int), **lost) == 0


def test_cells_expect_what_their_layers_and_bits_do(quantized):
    for cell, expected in (
        (Cell("weights", (0, 2), (1,), 1e-12), 8 * 80 * 0.5e-12),
        (Cell("activations", (1,), (0, 1), 1e-9), 40 * 8 * 1.5e-9),
    ):
        found = in_cell(FAULTS, cell, quantized.layers, trials=8, images=5)
        assert found == pytest.approx(expected)
