"""Padding and dealing against the pseudo-code, and who answers when devices are gone."""

from itertools import combinations, permutations

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer
from afpjax.neurons.methods.robustdice import deal
from afpjax.neurons.placement import Placement, filters, memory_share


def dealt_by_the_letter(groups, devices):
    """Lines 21-28, counted from 1 as there: the parts p^1 … p^ND, as lists of neurons."""
    p = {r: [] for r in range(1, devices + 1)}
    for group in groups:
        n = dict(enumerate(group, start=1))
        if len(group) % devices != 0:
            for j in range(1, devices - len(group) % devices + 1):
                n[len(group) + j] = n[j]  # a replica of a replica where the group is that small
        for j in n:
            r = (j % devices) + 1
            p[r].append(n[j])
    return list(p.values())


def random_groups(rng, neurons):
    order = rng.permutation(neurons)
    cuts = np.sort(rng.integers(0, neurons + 1, rng.integers(0, neurons)))
    return [group for group in np.split(order, np.unique(cuts)) if len(group)]


def a_layer(name, neurons, *, weights, biased=True, groups=1):
    """A dense one, but for its groups; `weights` of each neuron."""
    return Layer(
        name=name,
        kind="dense",
        input_shape=(1, weights),
        kernel_shape=(weights, neurons),
        output_shape=(1, neurons),
        neurons=neurons,
        fan_in=weights,
        macs=weights * neurons,
        weights=weights * neurons,
        biases=neurons if biased else 0,
        groups=groups,
    )


def coded_placement(*sizes, workers=3):
    """Slices of each layer on the workers, and a spare after them."""
    holds = []
    for neurons in sizes:
        held = np.zeros((workers + 1, neurons), bool)
        for worker, part in enumerate(np.array_split(np.arange(neurons), workers)):
            held[worker, part] = True
        holds.append(held)
    names = tuple(f"layer{n}" for n in range(len(sizes)))
    return Placement("cdc", names, tuple(holds), spare=workers)


@pytest.mark.parametrize("devices", [2, 3, 4, 7])
def test_groups_are_padded_and_dealt_as_in_the_pseudo_code(devices):
    for seed in range(20):
        rng = np.random.default_rng((seed, devices))
        neurons = int(rng.integers(1, 40))
        groups = random_groups(rng, neurons)
        found = deal(groups, devices, neurons)
        for held, part in zip(found, dealt_by_the_letter(groups, devices), strict=True):
            assert len(set(part)) == len(part), "a neuron twice on one device"
            assert set(np.flatnonzero(held).tolist()) == set(part)
        padded = sum(-(-len(group) // devices) * devices for group in groups)
        assert found.sum() == padded
        assert (found.sum(axis=1) == padded // devices).all(), "loads differ"
        assert found.any(axis=0).all(), "a neuron on no device"


@pytest.fixture(scope="module")
def overlapping():
    """Four devices, two layers; some neurons on one device alone, some on several."""
    rng = np.random.default_rng(3)
    holds = []
    for neurons in (9, 14):
        held = rng.random((4, neurons)) < 0.4
        held[rng.integers(0, 4, neurons), np.arange(neurons)] = True
        holds.append(held)
    return Placement("any", ("one", "two"), tuple(holds))


def first_in_order(held, failed, order):
    """A neuron at a time."""
    answers = []
    for neuron in range(held.shape[1]):
        able = [d for d in order if d not in failed and held[d, neuron]]
        answers.append(able[0] if able else -1)
    return answers


def test_the_first_in_order_of_the_living_holders_answers(overlapping):
    orders = [None, *permutations(range(4))]
    seen = set()
    for order in orders:
        for count in range(5):
            for failed in combinations(range(4), count):
                found = overlapping.answering(failed, order)
                for held, answers in zip(overlapping.holds, found, strict=True):
                    assert answers.dtype == np.int8
                    expected = first_in_order(held, failed, order or range(4))
                    assert answers.tolist() == expected
                    seen |= set(expected)
    assert seen == {-1, 0, 1, 2, 3}


def test_a_spare_answers_for_one_lost_worker_and_for_no_more():
    placement = coded_placement(7, 3, 2)  # in the last layer one worker has no neurons
    for count in range(5):
        for failed in combinations(range(4), count):
            workers = [worker for worker in range(3) if worker in failed]
            saved = len(workers) == 1 and 3 not in failed
            for held, answers in zip(placement.holds, placement.answering(failed), strict=True):
                owner = held.argmax(axis=0)
                lost = np.isin(owner, workers)
                assert (answers[~lost] == owner[~lost]).all()
                assert (answers[lost] == (3 if saved else -1)).all()


def test_a_layer_that_the_spare_holds_whole_needs_no_sums():
    placement = coded_placement(7, 5)
    whole = Placement("cdc", placement.layers, (placement.holds[0], np.ones((4, 5), bool)), 3)
    assert whole.coded(1).shape == (0, 5)
    assert whole.loads().tolist() == [[3, 2, 2, 3], [5, 5, 5, 5]]
    assert whole.answering((0, 1))[1].tolist() == [2] * 5  # one layer whole, the other lost
    assert (whole.answering((0, 1))[0] == [-1, -1, -1, -1, -1, 2, 2]).all()
    assert whole.answering((0, 1, 2))[1].tolist() == [3] * 5


def test_sums_over_groups_that_read_different_inputs_take_a_filter_for_each():
    """Depthwise, the spare needs all filters; in two groups, two where slices straddle them."""
    placement = coded_placement(6, 6, 6, workers=2)
    layers = [
        a_layer("layer0", 6, weights=9, groups=6),
        a_layer("layer1", 6, weights=9, groups=2),
        a_layer("layer2", 6, weights=9),
    ]
    assert filters(placement, layers).tolist() == [[3, 3, 6], [3, 3, 6], [3, 3, 3]]
    assert placement.loads()[:, 2].tolist() == [3, 3, 3]
    expected = (6 * 9 + 6 * 9 + 3 * 9 + 3 * 3) / (18 * 10)  # a sum has one bias
    assert memory_share(placement, layers)[2] == pytest.approx(expected)
    within = coded_placement(6, workers=3)  # neurons 0, 2, 4 and 1, 3, 5, of three groups
    two = filters(within, [a_layer("layer0", 6, weights=9, groups=3)])
    assert two.tolist() == [[2, 2, 2, 6]]
    of_two = filters(within, [a_layer("layer0", 6, weights=9, groups=2)])
    assert of_two.tolist() == [[2, 2, 2, 4]]


def test_memory_is_the_weights_and_biases_of_the_neurons_that_a_device_holds(overlapping):
    layers = [a_layer("one", 9, weights=10), a_layer("two", 14, weights=3, biased=False)]
    one, two = overlapping.holds
    whole = 9 * 11 + 14 * 3
    expected = [(a.sum() * 11 + b.sum() * 3) / whole for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(memory_share(overlapping, layers), expected, rtol=1e-12)
    assert overlapping.loads().tolist() == [held.sum(axis=1).tolist() for held in (one, two)]


def two_layers(*sizes):
    return [a_layer(name, n, weights=3) for name, n in zip(("one", "two"), sizes, strict=False)]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda own: own.answering((4,)), "failed: no device 4; devices are 0 to 3"),
        (lambda own: own.answering((0, -1)), "failed: no device -1; devices are 0 to 3"),
        (lambda own: own.answering((), (0, 1, 2)), r"order: \[0, 1, 2\]; name each of the devices"),
        (lambda own: own.answering((), (0, 1, 2, 2)), "order: .* the devices 0 to 3 once"),
        (lambda own: memory_share(own, two_layers(9)), "layers: those of another network"),
        (lambda own: memory_share(own, two_layers(9, 14)[::-1]), "layers: those of another"),
        (lambda own: memory_share(own, two_layers(9, 15)), "layers: those of another network"),
    ],
)
def test_devices_and_layers_that_there_are_not_are_refused_in_one_line(overlapping, ask, words):
    with pytest.raises(InputError, match=words) as refused:
        ask(overlapping)
    assert "\n" not in str(refused.value)
