"""The clusters of Algorithm 1, against the pseudo-code taken at its word."""

import math
import time

import numpy as np
import pytest

from afpjax.neurons.methods.robustdice import clusters


def distance(one, other):
    apart = [float(a) - float(b) for a, b in zip(one, other, strict=True)]
    return math.sqrt(sum(each * each for each in apart))


def by_the_letter(points, threshold):
    """Lines 3-5 and 10-20: sets of groups as lists, and nothing left out for speed."""
    G = [[j] for j in range(len(points))]
    for G_z in list(G):
        if not any(G_z is each for each in G):
            continue  # removed by now
        for G_q in [each for each in G if each is not G_z]:
            d_max = 0.0
            for n_j in G_z:
                for n_o in G_q:
                    d = distance(points[n_j], points[n_o])
                    if d > d_max:
                        d_max = d
            if d_max < threshold:
                G_z.extend(G_q)
                G = [each for each in G if each is not G_q]
    return G


def listed(groups):
    return [group.tolist() for group in groups]


def layers(rng, axes):
    """Layers of every kind: spread out, on a grid (copies, equal distances), in bunches, alike."""
    neurons = int(rng.integers(1, 25))
    yield rng.uniform(size=(neurons, axes))
    yield rng.integers(0, 4, (neurons, axes)).astype(np.float64)
    yield rng.integers(0, 3, (neurons, axes)) + 0.01 * rng.normal(size=(neurons, axes))
    yield rng.exponential(size=(neurons, axes)).astype(np.float32).astype(np.float64) ** 4
    yield np.full((neurons, axes), 0.1)
    yield rng.uniform(size=(neurons, axes))[rng.integers(0, neurons, neurons)]


def thresholds(rng, points):
    """Tiny and huge ones, ones in between, and distances that occur: they do not merge."""
    one, other = rng.integers(0, len(points), (2, 3))
    met = [distance(points[a], points[b]) for a, b in zip(one, other, strict=True)]
    return [0.0, 5e-324, 1e-9, 0.05, 0.3, 1.0, 2.5, 1e9, math.inf, *met]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_clusters_are_those_of_the_pseudo_code(axes):
    for seed in range(5):
        rng = np.random.default_rng((seed, axes))
        for points in layers(rng, axes):
            for threshold in thresholds(rng, points):
                assert listed(clusters(points, threshold)) == by_the_letter(points, threshold)


def test_the_result_depends_on_the_order_of_neurons():
    """Worked by hand: 1 apart merges, 2 apart does not."""
    three = np.array([[0.0], [1.0], [2.0]])
    assert listed(clusters(three, 1.5)) == [[0, 1], [2]]
    assert listed(clusters(three[::-1], 1.5)) == [[0, 1], [2]]  # now the upper two
    assert listed(clusters(three[[0, 2, 1]], 1.5)) == [[0, 2], [1]]


def test_a_group_that_grew_keeps_off_what_was_near_its_first_neuron():
    """Worked by hand: 0.9 is near 0, but far from -0.9, which came before it."""
    points = np.array([[0.0], [-0.9], [0.9], [-0.5]])
    assert listed(clusters(points, 1.0)) == [[0, 1, 3], [2]]


@pytest.mark.parametrize("threshold", [0.0, 0.1])
@pytest.mark.parametrize(("neurons", "seconds"), [(512, 0.05), (4096, 5.0)])
def test_large_layers_are_clustered_in_no_time(neurons, seconds, threshold):
    """Five times what is promised, of one core: other work may share the machine."""
    points = np.random.default_rng(2).uniform(size=(neurons, 3))
    start = time.process_time()
    found = clusters(points, threshold)
    assert time.process_time() - start < 5 * seconds
    assert sorted(np.concatenate(found).tolist()) == list(range(neurons))
