"""The networks that everything is measured on, and the populations and sites of measures."""

import jax.numpy as jnp
import numpy as np
import pytest

import afpjax
from afpjax.faults.spec import Thresholds
from benchmarks import job_child, networks, nsga2, population, sweep


@pytest.mark.parametrize(
    ("name", "parameters", "layers"), [("resnet18", 11_169_162, 21), ("alexnet", 23_272_266, 8)]
)
def test_sizes(name, parameters, layers):
    network = networks.NETWORKS[name]()
    assert network.parameters == parameters
    traced = afpjax.trace(network.apply, network.params, networks.images(1))
    assert len(traced.layers) == layers
    # Every array but the biases is the kernel of a layer, and none is left over.
    kernels = [array.size for name, array in network.params.items() if name.endswith("kernel")]
    assert sorted(layer.weights for layer in traced.layers) == sorted(kernels)


def test_a_random_population_is_fair_coins():
    found = population.mappings("random", 4000, 21)
    assert set(np.unique(found)) == {0, 1}
    np.testing.assert_allclose(found.mean(axis=0), 0.5, atol=5 * 0.5 / 4000**0.5)


def test_a_converged_population_is_one_mappings_mutants():
    found = population.mappings("converged", 4000, 21)
    parent = (found.mean(axis=0) > 0.5).astype(int)
    moved = (found != parent).sum(axis=1)
    assert moved.mean() == pytest.approx(1, abs=5 * (20 / 21) ** 0.5 / 4000**0.5)
    same = (1 - 1 / 21) ** 21
    assert (moved == 0).mean() == pytest.approx(same, abs=5 * (same * (1 - same) / 4000) ** 0.5)


def test_a_sweep_strikes_each_layer_alone():
    tables = np.random.default_rng(0).integers(1, 2**31, (2, 1, 5, 4)).astype(np.uint32)
    alone = sweep.alone(Thresholds(*tables))
    for table, rows in zip(tables, alone[:2], strict=True):
        for run in range(5):
            for layer in range(5):
                expected = table[0, layer] if layer == run else 0 * table[0, layer]
                np.testing.assert_array_equal(np.asarray(rows)[run, layer], expected)


def test_dtlz2_is_what_its_definition_says():
    points = np.random.default_rng(0).random((50, nsga2.GENES)).astype(np.float32)
    for x, found in zip(
        points.astype(float), np.asarray(nsga2.dtlz2(jnp.asarray(points))), strict=True
    ):
        radius = 1 + sum((each - 0.5) ** 2 for each in x[2:])
        a, b = x[0] * np.pi / 2, x[1] * np.pi / 2
        directions = (np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a))
        np.testing.assert_allclose(found, [radius * each for each in directions], rtol=1e-5)


def test_the_union_of_intervals_against_marked_seconds():
    random = np.random.default_rng(0)
    for _ in range(20):
        starts = random.integers(0, 40, 6)
        lengths = random.integers(0, 12, 6)
        marked = {t for s, n in zip(starts, lengths, strict=True) for t in range(s, s + n)}
        ends = [(float(s + n), float(n)) for s, n in zip(starts, lengths, strict=True)]
        assert job_child.covered(ends) == pytest.approx(len(marked))
