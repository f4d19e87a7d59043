"""Every method of distribution: what each promises, on layers of all sizes."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from afpjax.network.layers import LayerGraph
from afpjax.neurons import methods
from afpjax.neurons.distribute import distribute
from afpjax.neurons.methods import PlacementRequest, method, names
from afpjax.neurons.placement import memory_share

from .test_placement import a_layer

SIZES = {"stem": 16, "wide": 37, "thin": 2, "one": 1, "head": 10}
EQUAL = ("robustdice", "random", "topk", "randomk")  # in load per device
every_method = pytest.mark.parametrize("method", names())
some_devices = pytest.mark.parametrize("devices", [3, 4, 13])


def place(name, request):
    return method(name).place(request)


def a_request(devices=4, thresholds: Any = 0.3, *, seed=0, whole=False, sizes=SIZES):
    """Bunches of neurons at many distances, and some with the same scores."""
    rng = np.random.default_rng(1)
    layers = tuple(a_layer(name, size, weights=5) for name, size in sizes.items())
    points = {}
    for name, size in sizes.items():
        points[name] = np.clip(rng.exponential(0.3, (size, 3)), 0, 1)
        points[name][size // 2 :: 3] = points[name][0]
    several = np.broadcast_to(thresholds, len(layers)).astype(np.float64)
    return PlacementRequest(
        LayerGraph(layers, ()), points, devices, tuple(several.tolist()), seed, whole
    )


@every_method
@some_devices
@pytest.mark.parametrize("whole", [False, True])
def test_every_neuron_lives_on_some_device_and_answers(method, devices, whole):
    """More devices than a layer has neurons among them: 13 for 10, 2 and 1."""
    request = a_request(devices, whole=whole)
    placement = place(method, request)
    assert placement.method == method and placement.devices == devices
    assert placement.layers == request.graph.names
    assert placement.spare == (devices - 1 if method == "cdc" else None)
    answers = placement.answering(())
    for layer, held, answer in zip(request.graph.layers, placement.holds, answers, strict=True):
        assert held.shape == (devices, layer.neurons) and held.any(axis=0).all()
        assert (answer >= 0).all() and held[answer, np.arange(layer.neurons)].all()


@pytest.mark.parametrize("method", EQUAL)
@pytest.mark.parametrize("devices", [2, 3, 4, 13])
@pytest.mark.parametrize("thresholds", [0.0, 0.2, (0.0, 0.1, 0.2, 0.4, 10.0), 10.0])
def test_loads_are_equal_and_those_of_robustdice(method, devices, thresholds):
    request = a_request(devices, thresholds)
    loads = place(method, request).loads()
    assert (loads == loads[:, :1]).all()
    assert (loads == place("robustdice", request).loads()).all()
    share = memory_share(place(method, request), request.graph.layers)
    np.testing.assert_allclose(share, share[0])


@pytest.mark.parametrize("method", ["robustdice", "random", "topk", "replication"])
def test_a_threshold_of_zero_is_full_replication(method):
    placement = place(method, a_request(4, 0.0))
    assert all(held.all() for held in placement.holds)
    for failed in combinations(range(4), 3):
        assert all((answer >= 0).all() for answer in placement.answering(failed))


@pytest.mark.parametrize("method", EQUAL)
def test_each_layer_has_a_threshold_of_its_own(method):
    loads = place(method, a_request(2, (0.0, 10.0, 0.0, 0.0, 10.0))).loads()
    assert loads[:, 0].tolist() == [16, 19, 2, 1, 5]


@pytest.mark.parametrize("devices", [2, 3, 4, 13])
def test_lop_cuts_contiguous_slices_that_differ_by_one_at_most(devices):
    placement = place("lop", a_request(devices))
    for held, loads in zip(placement.holds, placement.loads(), strict=True):
        owners = held.argmax(axis=0)
        assert (held.sum(axis=0) == 1).all() and (np.diff(owners) >= 0).all()
        assert loads.max() - loads.min() <= 1 and loads.sum() == held.shape[1]
        assert (np.diff(loads) <= 0).all()  # what is missing is missing at the end


@pytest.mark.parametrize("devices", [3, 4, 13])
def test_cdc_is_lop_on_one_device_less_with_sums_on_the_last(devices):
    placement = place("cdc", a_request(devices))
    slices = place("lop", a_request(devices - 1))
    for layer, (held, plain) in enumerate(zip(placement.holds, slices.holds, strict=True)):
        assert (held[:-1] == plain).all() and not held[-1].any()
        assert placement.loads()[layer, -1] == plain.sum(axis=1).max()
        assert (placement.coded(layer).sum(axis=0) == 1).all()


@some_devices
def test_random_has_robustdice_s_copies_on_other_neurons(devices):
    request = a_request(devices)
    ours, theirs = (place(each, request) for each in ("random", "robustdice"))
    for held, like in zip(ours.holds, theirs.holds, strict=True):
        assert sorted(held.sum(axis=0)) == sorted(like.sum(axis=0))
    wide = list(SIZES).index("wide")
    assert (ours.holds[wide].sum(axis=0) != theirs.holds[wide].sum(axis=0)).any()


def test_random_follows_from_the_seed_and_the_layer_alone():
    request = a_request(4, seed=7, sizes={"a": 40, "b": 40})
    request = replace(request, points={"a": request.points["a"], "b": request.points["a"]})
    one, other = (place("random", replace(request, seed=seed)).holds for seed in (7, 8))
    assert (one[1] != other[1]).any() and (one[0] != one[1]).any(), "two layers, one draw"
    again = place("random", replace(request, thresholds=(0.0, request.thresholds[1])))
    assert (one[1] == again.holds[1]).all()


def test_random_gives_every_neuron_the_same_chance_of_a_replica():
    """800 draws, and each neuron's replicas within five standard errors of the mean."""
    request = a_request(4, sizes={"a": 12})
    draws = [place("random", replace(request, seed=seed)).holds[0] for seed in range(800)]
    copies = np.array([held.sum(axis=0) for held in draws])
    assert copies.std() > 0
    error = copies.std() / np.sqrt(len(draws))
    assert (abs(copies.mean(axis=0) - copies.mean()) < 5 * error).all()


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.7])
@some_devices
def test_topk_replicates_the_most_important_neurons_and_as_many_as_there_is_room_for(
    devices, threshold
):
    request = a_request(devices, threshold)
    placement = place("topk", request)
    for name, held in zip(placement.layers, placement.holds, strict=True):
        importance, copies = request.points[name].sum(axis=1), held.sum(axis=0)
        k, load = int((copies == devices).sum()), int(held[0].sum())
        # One more on every device, and the others once, do not fit.
        assert k == len(copies) or k + 1 + -(-(len(copies) - k - 1) // devices) > load
        everywhere = copies == devices
        assert (
            k in (0, len(copies)) or importance[everywhere].min() >= importance[~everywhere].max()
        )
        # Further replicas are where all that matters more is: a holder less, which was dealt it.
        for neuron in np.flatnonzero((copies > 1) & ~everywhere):
            more = importance > importance[neuron]
            holders = held[held[:, neuron]]
            assert holders[:, more].all(axis=1).sum() >= copies[neuron] - 1


@pytest.mark.parametrize(
    ("devices", "scores", "expected"),
    [
        # Load 3: the best is everywhere, and two others fit on each, dealt in their order.
        (2, [1, 5, 2, 3, 0], [[1, 1, 0, 1, 0], [0, 1, 1, 0, 1]]),
        # Load 2: none fits everywhere, and the one place left takes the best that it lacks.
        (3, [0, 1, 0.2, 0.3, 0.1], [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 1, 1, 0, 0]]),
        (3, [0, 0.1, 1, 0.3, 0.1], [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 0, 1, 1, 0]]),
    ],
)
def test_topk_worked_by_hand(devices, scores, expected):
    request = a_request(devices, 10.0, sizes={"a": 5})
    request = replace(request, points={"a": np.array(scores, np.float64)[:, None]})
    assert place("topk", request).holds[0].astype(int).tolist() == expected


@every_method
def test_the_classifier_is_whole_by_option_and_nothing_else(method):
    apart, whole = (place(method, a_request(4, 0.7, whole=each)) for each in (False, True))
    for one, other in zip(apart.holds[:-1], whole.holds[:-1], strict=True):
        assert (one == other).all()
    assert whole.holds[-1].shape == (4, 10) and whole.holds[-1].all()
    assert method == "replication" or not apart.holds[-1].all()
    assert whole.loads()[-1].tolist() == [10] * 4
    for failed in combinations(range(4), 3):
        assert (whole.answering(failed)[-1] >= 0).all()


MIRRORED = """
import numpy as np

LABEL = 'both ends'

def mirrored(request, layer):
    '''The first device has all neurons, and the last one too.'''
    held = np.zeros((request.devices, request.layer(layer).neurons), bool)
    held[[0, -1]] = True
    return held
"""


def test_a_method_of_ones_own_is_one_file(case, tmp_path, monkeypatch):
    (tmp_path / "mirrored.py").write_text(MIRRORED)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert "mirrored" in names() and method("mirrored").label == "both ends"
    assert method("mirrored").help == "The first device has all neurons, and the last one too."
    scores = {layer.name: {"l1": np.ones(layer.neurons)} for layer in case.network.layers}
    placement = distribute(case.network, scores, 3, method="mirrored", names="l1")
    assert placement.method == "mirrored"
    assert all(held[[0, 2]].all() and not held[1].any() for held in placement.holds)
