"""The public entry: real scores, the options' effect, and everything that it refuses."""

import math
from fractions import Fraction

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.neurons.distribute import NORMALISATIONS, distribute, points
from afpjax.neurons.importance import importance
from afpjax.neurons.methods import names

from .test_placement import dealt_by_the_letter
from .test_robustdice import by_the_letter

NAMES = ("l1", "taylor", "jsd")


@pytest.fixture(scope="module")
def scores(case):
    """As `importance` has them: JAX arrays, float32."""
    return importance(case.network, case.images)


def minmax_points(own, names):
    columns = [np.asarray(own[name], np.float64) for name in names]
    spread = [(each - each.min()) / (each.max() - each.min()) for each in columns]
    return np.stack(spread, axis=1)


@pytest.mark.parametrize("names", [NAMES, ("taylor",), ("jsd", "l1")])
@pytest.mark.parametrize("devices", [2, 3])
def test_importance_becomes_the_placement_of_algorithm_1(case, scores, devices, names):
    placement = distribute(case.network, scores, devices, 0.4, names=names)
    assert placement.layers == case.network.graph.names
    for layer, held in zip(placement.layers, placement.holds, strict=True):
        groups = by_the_letter(minmax_points(scores[layer], names), 0.4)
        parts = dealt_by_the_letter(groups, devices)
        assert [np.flatnonzero(row).tolist() for row in held] == [sorted(part) for part in parts]


def test_the_defaults_are_those_of_the_design(case, scores):
    found = distribute(case.network, scores)
    said = distribute(
        case.network,
        scores,
        devices=4,
        thresholds=[0.1] * len(scores),
        method="robustdice",
        names=["l1", "taylor", "jsd"],
        normalise="minmax",
        seed=0,
        whole_classifier=False,
    )
    assert found.method == "robustdice" and found.devices == 4
    assert all((a == b).all() for a, b in zip(found.holds, said.holds, strict=True))


@pytest.mark.parametrize("method", names())
def test_every_method_takes_real_scores_and_more_devices_than_neurons(case, scores, method):
    placement = distribute(case.network, scores, 9, 0.3, method=method)
    assert placement.method == method and placement.devices == 9
    assert all((answer >= 0).all() for answer in placement.answering(()))


def test_a_quantised_network_is_distributed_too(case, scores):
    coarse = quantize(case.network, QFormat(bits=16, frac=8))
    ours, theirs = distribute(coarse, scores), distribute(case.network, scores)
    assert all((a == b).all() for a, b in zip(ours.holds, theirs.holds, strict=True))


def test_scores_scale_thresholds_and_seed_matter(case, scores):
    def held(**options):
        settings = {"devices": 2, "thresholds": 0.8, "names": NAMES} | options
        return np.concatenate(distribute(case.network, scores, **settings).holds, axis=1)

    plain = held()
    assert (held(names="l1") == held(names=("l1",))).all()
    for options in (
        {"names": ("l1",)},
        {"normalise": "zscore"},
        {"normalise": "rank"},
        {"normalise": "raw"},
        {"thresholds": 0.0},
        {"whole_classifier": True},
    ):
        assert (held(**options) != plain).any(), options
    draws = [held(method="random", seed=seed) for seed in (0, 1, 0)]
    assert (draws[0] != draws[1]).any() and (draws[0] == draws[2]).all()


def test_a_constant_score_tells_nothing_apart(case, scores):
    """With equal l1 everywhere, the other two decide, on every scale."""
    same = {layer: {**own, "l1": np.full_like(own["l1"], 0.1)} for layer, own in scores.items()}
    for normalise in ("minmax", "zscore", "rank", "raw"):
        with_it = distribute(case.network, same, 2, 0.4, normalise=normalise)
        without = distribute(case.network, same, 2, 0.4, names=NAMES[1:], normalise=normalise)
        assert all((a == b).all() for a, b in zip(with_it.holds, without.holds, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": 1}, "distribute.devices: 1; give 2 to 128"),
        ({"devices": 0}, "distribute.devices: 0; give 2 to 128"),
        ({"devices": 129}, "distribute.devices: 129; give 2 to 128"),
        ({"devices": 2, "method": "cdc"}, "distribute.devices: 2 with method cdc"),
        ({"thresholds": math.nan}, "distribute.thresholds: nan; give numbers from 0 up"),
        ({"thresholds": -0.1}, "distribute.thresholds: -0.1; give numbers from 0 up"),
        ({"thresholds": [0.1] * 6 + [-1.0]}, "distribute.thresholds: -1.0; give"),
        ({"thresholds": [0.1] * 6 + [math.nan]}, "distribute.thresholds: nan; give"),
        ({"thresholds": [0.1] * 6}, "distribute.thresholds: 6 for 7 layers"),
        ({"thresholds": [0.1] * 8}, "distribute.thresholds: 8 for 7 layers"),
        ({"thresholds": []}, "distribute.thresholds: 0 for 7 layers"),
        ({"thresholds": [0.1]}, "distribute.thresholds: 1 for 7 layers"),
        ({"method": "raid"}, "distribute.method: 'raid' is none of cdc, lop, random, randomk, rep"),
        ({"normalise": "log"}, "distribute.normalise: 'log' is none of minmax, zscore, rank, raw"),
        ({"names": ()}, r"distribute.scores: \[\]; name one score or several"),
        ({"names": ("l1", "jsd", "l1")}, "distribute.scores: .* none of them twice"),
        ({"names": ("l1", "l2")}, "distribute.scores: no score 'l2' of layer .* taylor"),
        ({"seed": -1}, "distribute.seed: -1; give 0 or more"),
    ],
)
def test_bad_options_are_refused_in_one_line(case, scores, options, words):
    assert len(scores) == 7
    with pytest.raises(InputError, match=words) as refused:
        distribute(case.network, scores, **options)
    assert "\n" not in str(refused.value)


def without_a_layer(scores, first):
    return {layer: own for layer, own in scores.items() if layer != first}


def with_a_layer_more(scores, first):
    return {**scores, "conv9": scores[first]}


def with_a_neuron_less(scores, first):
    return {**scores, first: {name: each[:-1] for name, each in scores[first].items()}}


def with_a_column(scores, first):
    return {**scores, first: {name: each[:, None] for name, each in scores[first].items()}}


def with_a_nan(scores, first):
    return {
        **scores,
        first: {**scores[first], "taylor": scores[first]["taylor"] * np.float32("nan")},
    }


def with_an_infinity(scores, first):
    return {**scores, first: {**scores[first], "l1": scores[first]["l1"] + np.float32("inf")}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (without_a_layer, "scores: of another network: layer '.*stem.*' is"),
        (with_a_layer_more, "scores: of another network: layer 'conv9' is"),
        (with_a_neuron_less, r"scores: l1 of layer .*stem.* is \[3\], and the layer has 4 neurons"),
        (with_a_column, r"scores: l1 of layer .*stem.* is \[4, 1\], and the layer has 4 neurons"),
        (with_a_nan, "scores: taylor of layer .*stem.* is not finite"),
        (with_an_infinity, "scores: l1 of layer .*stem.* is not finite"),
    ],
)
def test_scores_of_another_network_are_refused_in_one_line(case, scores, changed, words):
    first = case.network.graph.names[0]
    with pytest.raises(InputError, match=words) as refused:
        distribute(case.network, changed(scores, first))
    assert "\n" not in str(refused.value)


def test_a_score_that_is_not_named_may_be_missing_or_broken(case, scores):
    """An ablation's subset, and scores that were never worked out."""
    first = case.network.graph.names[0]
    broken = with_a_nan(scores, first)
    alone = {layer: {"l1": own["l1"]} for layer, own in scores.items()}
    for given in (broken, alone):
        found = distribute(case.network, given, 2, 0.3, names=("l1",))
        like = distribute(case.network, scores, 2, 0.3, names=("l1",))
        assert all((a == b).all() for a, b in zip(found.holds, like.holds, strict=True))


# Scores on one scale: what is promised of each, and scores that do not vary


every_scale = pytest.mark.parametrize("normalise", NORMALISATIONS)


def some_scores(neurons, seed=0):
    """Of three units, the last one with ties."""
    rng = np.random.default_rng(seed)
    return {
        "l1": rng.uniform(5, 900, neurons).astype(np.float32),
        "taylor": rng.exponential(0.3, neurons).astype(np.float32),
        "jsd": 1e-9 * rng.integers(0, 4, neurons).astype(np.float32),
    }


def test_min_max_is_a_share_of_the_range():
    own = some_scores(40)
    found = points(own, NAMES, "minmax")
    assert found.shape == (40, 3) and found.dtype == np.float64
    for axis, name in enumerate(NAMES):
        exact = [Fraction(float(each)) for each in own[name]]
        low, high = min(exact), max(exact)
        shares = [float((each - low) / (high - low)) for each in exact]
        np.testing.assert_allclose(found[:, axis], shares, rtol=1e-12)
        assert found[:, axis].min() == 0 and found[:, axis].max() == 1


def test_z_scores_have_mean_zero_and_deviation_one_and_keep_proportions():
    own = some_scores(40)
    found = points(own, NAMES, "zscore")
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-12)
    for axis, name in enumerate(NAMES):
        assert np.corrcoef(found[:, axis], own[name].astype(np.float64))[0, 1] > 1 - 1e-12


@pytest.mark.parametrize("neurons", [2, 3, 40])
def test_a_rank_is_the_share_of_others_below_and_half_of_the_equal_ones(neurons):
    own = some_scores(neurons)
    own["jsd"][0] = 1  # never constant
    found = points(own, NAMES, "rank")
    for axis, name in enumerate(NAMES):
        below = (own[name][:, None] > own[name]).sum(axis=1)
        equal = (own[name][:, None] == own[name]).sum(axis=1) - 1
        np.testing.assert_allclose(found[:, axis], (below + equal / 2) / (neurons - 1), rtol=1e-12)


def test_raw_scores_stay_as_they_are():
    own = some_scores(9)
    expected = np.stack([own[name] for name in NAMES], axis=1).astype(np.float64)
    np.testing.assert_array_equal(points(own, NAMES, "raw"), expected)


@pytest.mark.parametrize("normalise", [each for each in NORMALISATIONS if each != "raw"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-40, 3e30])
@pytest.mark.parametrize("neurons", [1, 7, 1000])
def test_a_constant_score_is_zero_everywhere(normalise, value, neurons):
    """The mean of equal numbers is not always that number: 0.1 a thousand times, for one."""
    own = {"l1": np.full(neurons, value), "jsd": np.arange(neurons, dtype=np.float64)}
    found = points(own, ("l1", "jsd"), normalise)
    assert (found[:, 0] == 0).all() and np.isfinite(found).all()
    assert neurons == 1 or np.ptp(found[:, 1]) > 0


@every_scale
@pytest.mark.parametrize("size", [1e-200, 1e-40, 1.0, 1e35])
def test_scores_of_any_size_make_numbers(normalise, size):
    """Squares of the smallest of them are zero in float64."""
    found = points({"jsd": size * np.array([1.0, 2.0, 5.0])}, ("jsd",), normalise)
    assert np.isfinite(found).all() and len(np.unique(found)) == 3


@every_scale
def test_axes_are_the_named_scores_in_their_order(normalise):
    own = some_scores(12)
    whole = points(own, NAMES, normalise)
    np.testing.assert_array_equal(points(own, ("jsd", "l1"), normalise), whole[:, [2, 0]])
    np.testing.assert_array_equal(points(own, ("taylor",), normalise), whole[:, [1]])
