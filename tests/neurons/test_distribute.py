"""The public entry: real scores, the options' effect, and everything that it refuses."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from afpjax.inputs.errors import InputError
from afpjax.neurons.distribute import NORMALISATIONS, distribute, points

from .conftest import CLASSES
from .test_placement import dealt_by_the_letter
from .test_robustdice import by_the_letter

NAMES = ("l1", "taylor", "jsd")


#: Textbooks' scales of one score, in float64.
SCALES = {
    "minmax": lambda own: (own - own.min()) / (own.max() - own.min()),
    "zscore": stats.zscore,
    "rank": lambda own: (stats.rankdata(own) - 1) / (len(own) - 1),
    "raw": lambda own: own,
}


def by_hand(own, names, normalise):
    columns = [SCALES[normalise](np.asarray(own[name], np.float64)) for name in names]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    ("names", "normalise"), [(NAMES, "minmax"), ("taylor", "zscore"), (("jsd", "l1"), "rank")]
)
@pytest.mark.parametrize("devices", [2, 3])
def test_importance_becomes_the_placement_of_algorithm_1(case, scores, devices, names, normalise):
    placement = distribute(case.network, scores, devices, 0.4, names=names, normalise=normalise)
    assert placement.layers == case.network.graph.names
    names = (names,) if isinstance(names, str) else names
    for layer, held in zip(placement.layers, placement.holds, strict=True):
        groups = by_the_letter(by_hand(scores[layer], names, normalise), 0.4)
        parts = dealt_by_the_letter(groups, devices)
        assert [np.flatnonzero(row).tolist() for row in held] == [sorted(part) for part in parts]


def test_the_defaults_are_those_of_the_design(case, scores):
    design: dict[str, Any] = dict(
        devices=4, thresholds=[0.1] * 7, method="robustdice", names=list(NAMES)
    )
    design |= dict(normalise="minmax", seed=0, whole_classifier=False)
    found, said = distribute(case.network, scores), distribute(case.network, scores, **design)
    assert found.method == "robustdice" and found.devices == 4
    assert all((a == b).all() for a, b in zip(found.holds, said.holds, strict=True))


def test_seed_and_whole_classifier_reach_the_method(case, scores):
    def held(**options):
        return np.concatenate(distribute(case.network, scores, 2, 0.8, **options).holds, axis=1)

    draws = [held(method="random", seed=seed) for seed in (0, 1, 0)]
    assert (draws[0] != draws[1]).any() and (draws[0] == draws[2]).all()
    assert held(whole_classifier=True)[:, -CLASSES:].all() and not held()[:, -CLASSES:].all()


def with_a_nan(own):
    return own | {"taylor": own["taylor"] * np.float32("nan")}


def changed(case, scores, change):
    """Scores of the first layer that are changed, or of other layers where nothing is left."""
    first = case.network.graph.names[0]
    own = change(dict(scores[first]))
    return {layer: each for layer, each in (scores | {first: own}).items() if each}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": 1}, "distribute.devices: 1; give 2 to 128"),
        ({"devices": 129}, "distribute.devices: 129; give 2 to 128"),
        ({"devices": 2, "method": "cdc"}, "distribute.devices: 2 with method cdc"),
        ({"thresholds": math.nan}, "distribute.thresholds: nan; give numbers from 0 up"),
        ({"thresholds": [0.1] * 6 + [-1.0]}, "distribute.thresholds: -1.0; give"),
        ({"thresholds": [0.1] * 6}, "distribute.thresholds: 6 for 7 layers"),
        ({"thresholds": [0.1]}, "distribute.thresholds: 1 for 7 layers"),
        ({"method": "raid"}, "distribute.method: 'raid' is none of cdc, lop, random, randomk, rep"),
        ({"normalise": "log"}, "distribute.normalise: 'log' is none of minmax, zscore, rank, raw"),
        ({"names": ()}, r"distribute.scores: \[\]; name one score or several"),
        ({"names": ("l1", "jsd", "l1")}, "distribute.scores: .* none of them twice"),
        ({"names": ("l1", "l2")}, "distribute.scores: no score 'l2' of layer .* taylor"),
        ({"seed": -1}, "distribute.seed: -1; give 0 or more"),
        (lambda own: {}, "scores: of another network: layer '.*stem.*' is"),
        (
            lambda own: {name: each[:-1] for name, each in own.items()},
            r"scores: l1 of layer .*stem.* is \[3\], and the layer has 4 neurons",
        ),
        (
            lambda own: {name: each[:, None] for name, each in own.items()},
            r"scores: l1 of layer .*stem.* is \[4, 1\], and the layer has 4 neurons",
        ),
        (with_a_nan, "scores: taylor of layer .*stem.* is not finite"),
        (
            lambda own: own | {"l1": own["l1"] + np.float32("inf")},
            "scores: l1 of layer .*stem.* is not finite",
        ),
    ],
)
def test_bad_options_and_scores_are_refused_in_one_line(case, scores, options, words):
    if callable(options):
        scores, options = changed(case, scores, options), {}
    with pytest.raises(InputError, match=words) as refused:
        distribute(case.network, scores, **options)
    assert "\n" not in str(refused.value)


def test_scores_of_a_layer_more_are_refused(case, scores):
    more = scores | {"conv9": scores[case.network.graph.names[0]]}
    with pytest.raises(InputError, match="scores: of another network: layer 'conv9' is"):
        distribute(case.network, more)


def test_a_score_that_is_not_named_may_be_missing_or_broken(case, scores):
    """An ablation's subset, and scores that were never worked out."""
    broken = changed(case, scores, with_a_nan)
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


@every_scale
@pytest.mark.parametrize("neurons", [2, 3, 40])
def test_scores_are_put_on_one_scale_and_in_the_order_of_their_names(normalise, neurons):
    own = some_scores(neurons)
    own["jsd"][0] = 1  # never constant
    for names in (NAMES, ("jsd", "l1")):
        found = points(own, names, normalise)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, by_hand(own, names, normalise), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalise", [each for each in NORMALISATIONS if each != "raw"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-40])
@pytest.mark.parametrize("neurons", [1, 1000])
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
