"""Searched thresholds beside constant ones and beside every choice there is."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from scipy import stats

from afpjax.evaluate.evaluator import Evaluator
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace
from afpjax.neurons.cluster_thresholds import Chosen, Trade, best_within, ladders, remeasured
from afpjax.neurons.distribute import distribute
from afpjax.neurons.failures import every
from afpjax.neurons.threshold_search import (
    combined,
    genomes_alone,
    levels_alone,
    penalties,
    search_thresholds,
    step_mutation,
)
from afpjax.neurons.weighted import weighted
from afpjax.search.pareto import hypervolume

CONSTANTS = (0.1, 0.2, 0.4, 0.8, 10.0)
DEVICES, NAMES = 4, ("l1", "taylor", "jsd")
FAILURES = every(range(DEVICES), 1)


def forward(params, images):
    """Two convolutions and a classifier."""
    x = images
    for kernel in params[:-1]:
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jnp.tanh(x)
    return x.mean(axis=(1, 2)) @ params[-1]


def made(channels):
    """A quantised network of random weights, and made-up scores of its neurons."""
    rng = np.random.default_rng(0)
    sizes = [(3, 3, a, b) for a, b in itertools.pairwise((2, *channels[:-1]))]
    sizes.append(channels[-2:])
    # Some neurons matter much more than others, as they do where networks are trained.
    params = [
        jnp.asarray(rng.normal(size=s) * rng.gamma(1, 1, s[-1]) / np.sqrt(s[-2]), jnp.float32)
        for s in sizes
    ]
    params[-1] = jnp.asarray(rng.normal(size=sizes[-1]), jnp.float32)
    network = quantize(trace(forward, params, jnp.ones((1, 4, 4, 2))), QFormat(kind="float32"))
    scores = {}
    for layer, kernel in zip(network.layers, params, strict=True):
        weight = np.abs(np.asarray(kernel)).reshape(-1, kernel.shape[-1]).sum(0)
        scores[layer.name] = {name: weight * rng.uniform(0.9, 1.1, weight.size) for name in NAMES}
    return network, scores


def evaluator_of(network, seed, count=80):
    """Labels are what the network says without failures."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, 4, 4, 2)) + rng.normal(size=(count, 1, 1, 2))
    images = images.astype(np.float32)
    labels = np.asarray(network(jnp.asarray(images))).argmax(1).astype(np.int32)
    return Evaluator(network, images, labels, 7)


@pytest.fixture(scope="module")
def deep():
    """Layers of 16, 16 and 6 neurons."""
    return made((16, 16, 6))


@pytest.fixture(scope="module")
def evaluator(deep):
    return evaluator_of(deep[0], 1)


@pytest.fixture(scope="module")
def trade(deep, evaluator):
    network, scores = deep
    found = ladders(network.graph, scores, DEVICES, most=8, constants=CONSTANTS)
    return Trade(found, evaluator, FAILURES)


@pytest.fixture(scope="module")
def complete(trade):
    """Objectives of every choice, by choice."""
    choices = np.array(list(itertools.product(*map(range, trade.ladders.cardinality))), np.int32)
    return choices, trade.of_choices(choices)


@pytest.fixture(scope="module")
def found(trade, complete):
    return search_thresholds(jax.random.key(0), trade, rows=4 * 150, population=16)


def test_objectives_are_those_of_distribute_and_its_failures(deep, evaluator, trade):
    choice = np.array([2, 4, 1])
    lost, memory = trade.of_choices(choice[None])[0]
    network, scores = deep
    placement = distribute(network, scores, DEVICES, trade.ladders.thresholds(choice))
    by = [placement.answering((device,)) for device in range(DEVICES)]
    assert evaluator.clean().all()
    assert lost == pytest.approx(1 - evaluator.evaluate_placements(by).mean())
    kept = placement.loads()[:, 0] / [16, 16, 6]
    sizes = np.array([9 * 2 * 16, 9 * 16 * 16, 16 * 6])
    assert memory == pytest.approx((kept * sizes).sum() / sizes.sum())
    np.testing.assert_allclose(
        trade.of_thresholds(np.array([trade.ladders.thresholds(choice)])), [[lost, memory]]
    )


def test_the_front_is_measured_undominated_and_nearly_the_complete_one(
    trade, complete, found, undominated
):
    choices, objectives = complete
    by_choice = dict(zip(map(bytes, choices), objectives, strict=True))
    for choice, measured in zip(found.choices, found.objectives, strict=True):
        np.testing.assert_array_equal(measured, by_choice[bytes(choice)])
    assert undominated(found.objectives) == list(range(len(found.objectives)))
    assert (np.diff(found.objectives[:, 1]) > 0).all()
    reference = np.array([1.0, 1.0001])
    whole = hypervolume(objectives, reference)
    np.testing.assert_array_equal(objectives[0], [0, 1])  # full replication: none lost, all memory
    assert len(found.of_constants) == 1 + len(CONSTANTS)
    for constant in found.of_constants:
        assert (found.objectives <= constant).all(axis=1).any()
    constants = whole - hypervolume(found.of_constants, reference)
    start = whole - hypervolume(found.start, reference)
    ours = whole - hypervolume(found.objectives, reference)
    assert len(choices) > 2 * found.evaluations / FAILURES.weights.size
    assert ours <= start < constants / 2
    assert ours < 0.2 * constants


@pytest.mark.parametrize("rows", [24, 43, 333])
def test_the_budget_is_kept_and_the_progress_is_of_every_row(trade, complete, rows):
    told = []
    found = search_thresholds(
        jax.random.key(1), trade, rows=rows, population=16, progress=told.append
    )
    assert found.evaluations <= rows and sum(told) == found.evaluations
    assert found.evaluations > rows - 2 * FAILURES.weights.size


def test_a_key_gives_one_front_whatever_is_remembered(deep, trade, found):
    afresh = Trade(trade.ladders, evaluator_of(deep[0], 1), FAILURES)
    again = search_thresholds(jax.random.key(0), afresh, rows=4 * 150, population=16)
    np.testing.assert_array_equal(again.choices, found.choices)
    np.testing.assert_array_equal(again.objectives, found.objectives)
    assert (again.evaluations, again.generations) == (found.evaluations, found.generations)


def test_energy_and_time_are_objectives_where_costs_are_given(deep, trade):
    def costs(placement):
        busy = float(placement.loads().sum())
        return busy / 10, 1000 / busy

    costly = Trade(trade.ladders, trade.evaluator, FAILURES, costs)
    found = search_thresholds(jax.random.key(0), costly, rows=24)
    assert found.objectives.shape[1] == 4
    for choice, cost in zip(found.choices, found.objectives, strict=True):
        busy = trade.ladders.placement(choice).loads().sum()
        np.testing.assert_allclose(cost[2:], [busy / 10, busy / 1000])
    point = costly.front(found.choices, found.objectives)[0]
    assert point.energy_j == found.objectives[0, 2]
    assert point.fps == pytest.approx(1 / found.objectives[0, 3])


@pytest.mark.parametrize("seed", range(3))
def test_combinations_are_the_front_of_sums_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 4)
    penalty = [np.concatenate([[0], rng.random(size - 1)]) for size in sizes]
    loads = [np.sort(rng.integers(1, 50, size))[::-1].astype(float) for size in sizes]

    def summed(parts, genomes):
        columns = [own[column] for own, column in zip(parts, genomes.T, strict=True)]
        return np.sum(columns, axis=0)

    def points(genomes):
        return np.stack([summed(loads, genomes), summed(penalty, genomes)], axis=1).round(9)

    every = np.array(list(itertools.product(*map(range, sizes))), np.int32)
    got = points(combined(penalty, lambda genomes: summed(loads, genomes)))
    np.testing.assert_array_equal(got, np.unique(moocore.filter_dominated(points(every)), axis=0))


def test_levels_not_measured_alone_lie_between_those_that_are():
    levels = levels_alone(np.array([5, 1, 4]), 4)
    assert [each.tolist() for each in levels] == [[2, 4], [], [1, 3]]
    genomes = genomes_alone(levels)
    assert genomes.tolist() == [[2, 0, 0], [4, 0, 0], [0, 0, 1], [0, 0, 3]]
    own = penalties(np.array([5, 1, 4]), levels, np.exp([-1.0, -3.0, 0.5, -2.0]))
    np.testing.assert_allclose(own[0], [0, 0.5, 1, 2, 3])
    np.testing.assert_allclose(own[1], [0])
    np.testing.assert_allclose(own[2], [0, 0, 1, 2])  # what seems to gain loses nothing


def test_mutation_steps_to_near_levels_within_the_ladder_mostly():
    sizes = jnp.array([10, 1, 3], jnp.int32)
    genome = jnp.array([5, 0, 2], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 2000)
    mutate = jax.jit(
        jax.vmap(
            lambda key, rate: step_mutation(key, genome, rate, cardinality=sizes), in_axes=(0, None)
        )
    )
    found = np.asarray(mutate(keys, jnp.float32(1)))
    assert found.dtype == np.int32 and (found >= 0).all() and (found < np.array(sizes)).all()
    assert set(found[:, 0].tolist()) == set(range(10)) - {5} and (found[:, 1] == 0).all()
    assert 0.8 < (np.abs(found[:, 0] - 5) <= 2).mean() < 0.97
    assert (np.asarray(mutate(keys, jnp.float32(0))) == np.asarray(genome)).all()


# CMA-ES


def test_one_objective_alone_gives_up_all_replicas_or_loses_nothing(trade):
    memory = weighted(jax.random.key(0), trade, (0, 1), rows=4 * 80)
    least = trade.ladders.memory(trade.ladders.cardinality[None] - 1)[0]
    assert memory.objectives[1] == memory.value == pytest.approx(least)
    accuracy = weighted(jax.random.key(0), trade, (1, 0), rows=4 * 80)
    assert accuracy.objectives[0] == 0


@pytest.mark.slow
def test_a_weighted_sum_beats_its_start_and_comes_near_the_best_of_all(trade, complete):
    start = (0.8, 0.8, 0.8)
    best = weighted(jax.random.key(3), trade, (1, 0.5), rows=4 * 150, start=start)
    assert best.evaluations <= 4 * 150
    np.testing.assert_allclose(
        best.start, trade.of_thresholds(np.array([start]))[0] @ np.array([1, 0.5])
    )
    assert best.value < best.start and (np.diff(best.history) <= 0).all()
    again = trade.of_thresholds(best.thresholds[None])[0]
    np.testing.assert_allclose(again, best.objectives)
    values = complete[1] @ np.array([1, 0.5])
    assert best.value < values.min() + 0.1 * (np.median(values) - values.min())
    same = weighted(jax.random.key(3), trade, (1, 0.5), rows=4 * 150, start=start)
    np.testing.assert_array_equal(same.thresholds, best.thresholds)


@pytest.mark.parametrize(
    ("search", "rows", "words"),
    [
        (search_thresholds, 23, "23 rows"),
        (partial(weighted, weights=(1, 1)), 20, "20 rows"),
        (partial(weighted, weights=(0, 0)), 400, "above 0"),
        (partial(weighted, weights=(1, -1)), 400, "from 0 up"),
        (partial(weighted, weights=(1, float("nan"))), 400, "from 0 up"),
        (partial(weighted, weights=(1,)), 400, "2 objectives"),
    ],
)
def test_searches_that_cannot_be_are_refused(trade, search, rows, words):
    with pytest.raises(InputError, match=words):
        search(jax.random.key(0), trade, rows=rows)


# Held-out images


def test_gains_are_paired_on_held_out_images_and_chosen_without_them(deep, trade, found):
    network, scores = deep
    held_out = evaluator_of(network, 9, 120)
    searched = trade.front(found.choices, found.objectives)
    constants = trade.front(found.constants, found.of_constants)
    ours = remeasured(trade.ladders, searched, constants, held_out, FAILURES)
    assert len(ours.searched) == len(searched) and len(ours.gains) == len(constants)
    for constant, told, gain in zip(constants, ours.constant, ours.gains, strict=True):
        fitting = [p for p in searched if p.memory <= constant.memory]
        point = searched[gain.point]
        assert point.accuracy == max(p.accuracy for p in fitting) >= constant.accuracy

        def per_image(thresholds):
            placement = distribute(network, scores, DEVICES, thresholds)
            rows = [placement.answering((device,)) for device in range(DEVICES)]
            return held_out.evaluate_placements(rows)[:, 0].mean(axis=0)

        one, other = per_image(point.thresholds), per_image(constant.thresholds)
        assert gain.searched == pytest.approx(one.mean())
        assert gain.constant == pytest.approx(other.mean()) == pytest.approx(told.accuracy)
        assert gain.difference == pytest.approx((one - other).mean())
        if (one != other).any():
            expected = stats.ttest_1samp(one - other, 0).confidence_interval(0.95)
            assert gain.interval == pytest.approx((expected.low, expected.high))
        else:
            assert gain.interval == (0, 0)
    assert max(gain.difference for gain in ours.gains) > 0


def test_the_best_within_a_memory_is_the_most_accurate_and_of_equals_the_smallest():
    points = [Chosen((0.0,), m, a, None, None) for m, a in [(0.3, 0.5), (0.5, 0.9), (0.6, 0.9)]]
    assert best_within(points, 0.2) is None
    assert best_within(points, 0.3) == 0
    assert best_within(points, 1.0) == 1
