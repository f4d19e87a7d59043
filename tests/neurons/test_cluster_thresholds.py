"""Ladders of thresholds: ordered by load, evenly spread, each constant threshold among them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network.layers import LayerGraph
from afpjax.neurons.cluster_thresholds import ladders, threshold_for
from afpjax.neurons.distribute import distribute
from afpjax.neurons.placement import largest_share, memory_share

CONSTANTS = (0.05, 0.3, 0.8)
NAMES: tuple[str, ...] = ("l1", "taylor", "jsd")


def same(one, other):
    return all((a == b).all() for a, b in zip(one.holds, other.holds, strict=True))


@pytest.mark.parametrize(("groups", "devices"), [(-1, 2), (1, 3), (3, 3)])
def test_loads_fall_from_full_replication_to_the_least_there_is(case, scores, groups, devices):
    found = ladders(case.network.graph, scores, devices, groups=groups, constants=CONSTANTS)
    layers = case.network.graph.layers
    assert sum((ladder.layers for ladder in found.ladders), ()) == tuple(range(len(layers)))
    for ladder in found.ladders:
        own = [layers[place] for place in ladder.layers]
        loads = [
            sum(
                (layer.weights + layer.biases) / layer.neurons * held.sum(axis=1).max()
                for layer, held in zip(own, level.holds, strict=True)
            )
            for level in ladder.levels
        ]
        assert loads == [level.parameters for level in ladder.levels]
        assert (np.diff(loads) <= 0).all()
        assert all(held.all() for held in ladder.levels[0].holds)
        placed = [b"".join(held.tobytes() for held in level.holds) for level in ladder.levels]
        assert len(set(placed)) == len(placed), "two levels are one placement"
        constant = ladder.constants.values()
        free = [each for place, each in enumerate(loads) if place not in constant]
        assert len(set(free)) == len(free), "only constants may have a load that another has"
        least = [-(-layer.neurons // devices) for layer in own]
        assert [int(held[0].sum()) for held in ladder.levels[-1].holds] == least


def test_every_constant_threshold_is_a_choice_and_every_level_is_distributes(case, scores):
    found = ladders(case.network.graph, scores, 3, groups=3, constants=CONSTANTS)
    assert found.constants == (0.0, *CONSTANTS)
    for threshold in found.constants:
        ours = found.placement(found.constant(threshold))
        assert same(ours, distribute(case.network, scores, 3, threshold))
    rng = np.random.default_rng(0)
    for _ in range(20):
        choice = rng.integers(found.cardinality)
        thresholds = found.of_layers(found.thresholds(choice))
        theirs = distribute(case.network, scores, 3, thresholds)
        assert same(found.placement(choice), theirs)
        assert same(found.placed(np.array(found.thresholds(choice))), theirs)


def test_memory_is_that_of_the_placement(case, scores):
    found = ladders(case.network.graph, scores, 2, constants=CONSTANTS, whole_classifier=True)
    assert found.cardinality[-1] == 1  # nothing to choose of a classifier that is kept whole
    rng = np.random.default_rng(1)
    choices = np.array([rng.integers(found.cardinality) for _ in range(20)])
    layers = case.network.graph.layers
    expected = [memory_share(found.placement(each), layers).max() for each in choices]
    np.testing.assert_allclose(found.memory(choices), expected, rtol=1e-12)
    assert found.memory(np.zeros((1, len(layers)), int)) == 1


def wide(case, neurons):
    """A graph of one layer with many neurons."""
    layer = replace(case.network.layers[0], neurons=neurons, weights=9 * neurons, biases=neurons)
    return LayerGraph((layer,), ())


@pytest.mark.parametrize("skewed", [False, True])
def test_loads_are_evenly_spread_whatever_the_scores_look_like(case, skewed):
    graph = wide(case, 200)
    values = np.random.default_rng(2).random((3, 200))
    values = np.exp(6 * values) if skewed else values
    scores = {graph.names[0]: dict(zip(NAMES, values, strict=True))}
    found = ladders(graph, scores, 4, most=12)
    loads = [level.parameters / 10 for level in found.ladders[0].levels]
    assert len(loads) == 12 and loads[0] == 200 and loads[-1] == 50
    assert max(a - b for a, b in itertools.pairwise(loads)) <= 3 * 150 / 11


def test_identical_neurons_have_two_levels_all_or_one_cluster(case):
    graph = wide(case, 8)
    scores = {graph.names[0]: {name: np.ones(8) for name in NAMES}}
    (ladder,) = ladders(graph, scores, 4).ladders
    assert [level.holds[0][0].sum() for level in ladder.levels] == [8, 2]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"groups": 0}, "0 groups of 7 layers"),
        ({"groups": 8}, "8 groups of 7 layers"),
        ({"most": 1}, "give 2 or more"),
        ({"constants": (-0.1,)}, "-0.1"),
        ({"devices": 1}, "devices: 1"),
    ],
)
def test_what_makes_no_ladder_is_refused_in_one_line(case, scores, options, words):
    with pytest.raises(InputError, match=words):
        ladders(case.network.graph, scores, **options)


# Thresholds that lead to a wanted memory


@pytest.mark.parametrize("size", [1, 1e4])
def test_no_other_threshold_comes_nearer(case, size):
    layers, rng = case.network.layers, np.random.default_rng(8)
    scores = {layer.name: {"l1": size * rng.random(layer.neurons)} for layer in layers}

    def place(threshold):
        return distribute(case.network, scores, 2, threshold, names=("l1",), normalise="raw")

    shares = [largest_share(place(size * t), layers) for t in np.linspace(0, 1.1, 150)]
    for memory in (0.5, 0.6, 0.75, 0.9, 1.0):
        threshold, placement = threshold_for(memory, place, layers)
        assert same(placement, place(threshold))
        off = abs(largest_share(placement, layers) - memory)
        assert off <= min(abs(share - memory) for share in shares) + 0.03
