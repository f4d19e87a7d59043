"""Neurons of a network spread over devices: the public entry, and what it refuses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Num
from scipy.stats import rankdata

from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer, LayerGraph
from afpjax.neurons import methods
from afpjax.neurons.ablation import AnyNetwork
from afpjax.neurons.importance import NAMES
from afpjax.neurons.methods import PlacementRequest
from afpjax.neurons.placement import MOST_DEVICES, Placement

Vector = Float64[np.ndarray, "C"]


def distribute(
    network: AnyNetwork,
    scores: Mapping[str, Mapping[str, Any]],
    devices: int = 4,
    thresholds: float | int | Sequence[float | int] | Float[np.ndarray, "L"] = 0.1,
    *,
    method: str = "robustdice",
    names: Sequence[str] = NAMES,
    normalise: str = "minmax",
    seed: int = 0,
    whole_classifier: bool = False,
) -> Placement:
    """Which of `devices` computes which neurons of every layer, replicas and all.

    `scores` are `importance`'s, {layer: {name: [C]}}; those of `names` are used, on the scale that
    `normalise` says ("minmax", "zscore", "rank", "raw"; see `points`). `thresholds`, one
    number or one for each layer, are on that scale: neurons within a cluster are nearer than that.
    0 replicates every neuron on every device, a large one replicates next to none. `method`
    is a file of `methods`: "robustdice", "lop", "cdc" (the last device is the spare),
    "replication", or, with RobustDiCE's load on every device, "random", "topk" and "randomk".
    `whole_classifier`: every device computes all of the last layer. Layers may have fewer neurons
    than there are devices: "robustdice", "random" and "topk" replicate them until each device has
    some, "lop" and "cdc" leave devices with none. Raises `InputError` for thresholds that are
    negative, NaN or not one for each layer, fewer than 2 devices (3 for "cdc"), more than 128,
    scores of another network or not finite, and names that are unknown, named twice or none.

    RobustDiCE (Guo et al.), Algorithm 1.
    """
    way = methods.method(checks.choice("distribute.method", method, methods.names()))
    wanted = "a network from afpjax.trace or afpjax.quantize"
    checks.instance("network", network, AnyNetwork, wanted)
    request = request_for(
        network.graph,
        scores,
        devices,
        thresholds,
        names=names,
        normalise=normalise,
        seed=seed,
        whole_classifier=whole_classifier,
    )
    if devices < way.fewest_devices:
        raise InputError(
            f"distribute.devices: {devices} with method {method}; give {way.fewest_devices} or more"
        )
    return way.place(request)


def request_for(
    graph: LayerGraph,
    scores: Mapping[str, Mapping[str, Any]],
    devices: int,
    thresholds: float | int | Sequence[float | int] | Float[np.ndarray, "L"],
    *,
    names: Sequence[str] = NAMES,
    normalise: str = "minmax",
    seed: int = 0,
    whole_classifier: bool = False,
) -> PlacementRequest:
    """`distribute`'s arguments, checked, as every method takes them."""
    layers = graph.layers
    names = (names,) if isinstance(names, str) else checks.names("names", names, "scores")
    checks.choice("distribute.normalise", normalise, NORMALISATIONS)
    checks.whole("distribute.devices", devices, FEWEST_DEVICES, MOST_DEVICES)
    checks.whole("distribute.seed", seed, 0)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"distribute.scores: {list(names)}; name one score or several, none of them twice"
        )
    return PlacementRequest(
        graph,
        _points_of_layers(layers, scores, names, normalise),
        devices,
        _thresholds(thresholds, len(layers)),
        seed,
        whole_classifier,
    )


def points(
    scores: Mapping[str, Num[Any, "C"]], names: Sequence[str], normalise: str
) -> Float64[np.ndarray, "C S"]:
    """A layer's neurons as points, one axis for each of the named scores, in the order of `names`.

    RobustDiCE takes Euclidean distances over the three scores (Algorithm 1, line 15) and does not
    say how they are made comparable; raw l1 is orders of magnitude above the others. `scores` are
    the layer's, finite, [C] each. `normalise`, over the neurons of the layer:
    - "minmax": (s - min) / (max - min), from 0 to 1;
    - "zscore": (s - mean) / standard deviation (of the population);
    - "rank": the rank, equal scores by their mean rank, from 0 (lowest) to 1 (highest) in any
      layer, so that one threshold means the same in large layers and in small ones;
    - "raw": s as it is.
    A score that is the same for all neurons tells none from another: it is zero everywhere, but
    with "raw". Raises `InputError` for another `normalise`.
    """
    scale = _SCALES[checks.choice("distribute.normalise", normalise, NORMALISATIONS)]
    return np.stack([scale(np.asarray(scores[name], np.float64)) for name in names], axis=1)


def _minmax(score: Vector) -> Vector:
    low, high = score.min(), score.max()
    return np.zeros_like(score) if low == high else (score - low) / (high - low)


def _zscore(score: Vector) -> Vector:
    # From 0 to 1 first: squares of tiny scores would be rounded to zero, those of equal ones not.
    score = _minmax(score)
    return score if not score.any() else (score - score.mean()) / score.std()


def _rank(score: Vector) -> Vector:
    if score.min() == score.max():
        return np.zeros_like(score)
    return (rankdata(score) - 1) / (len(score) - 1)


_SCALES: Mapping[str, Callable[[Vector], Vector]] = {
    "minmax": _minmax,
    "zscore": _zscore,
    "rank": _rank,
    "raw": lambda score: score,
}
NORMALISATIONS = tuple(_SCALES)
FEWEST_DEVICES = 2


def _thresholds(thresholds: Any, layers: int) -> tuple[float, ...]:
    """One for each layer."""
    values = np.asarray(checks.array("distribute.thresholds", thresholds), np.float64)
    if values.ndim and values.shape != (layers,):
        raise InputError(
            f"distribute.thresholds: {values.size} for {layers} layers; give one number, or one "
            "for each layer"
        )
    if not (values >= 0).all():  # NaN is not
        wrong = values.ravel()[~(values.ravel() >= 0)][0]
        raise InputError(f"distribute.thresholds: {wrong}; give numbers from 0 up")
    return tuple(np.broadcast_to(values, layers).tolist())


def _points_of_layers(
    layers: Sequence[Layer],
    scores: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    normalise: str,
) -> dict[str, Float64[np.ndarray, "_ S"]]:
    """Every layer's neurons as points, once the scores are known to be this network's."""
    checks.instance("scores", scores, Mapping, "what afpjax.importance gives")
    known = [layer.name for layer in layers]
    for name in (*known, *scores):
        if (name in scores) != (name in known):
            raise InputError(
                f"scores: of another network: layer {name!r} is in one and not in the other; "
                "score this network"
            )
    return {
        layer.name: points(_checked(layer, scores[layer.name], names), names, normalise)
        for layer in layers
    }


def _checked(
    layer: Layer, scores: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Float64[np.ndarray, "_"]]:
    """The named scores of a layer."""
    checked = {}
    where = f"scores of layer {layer.name}"
    checks.instance(where, scores, Mapping, "the layer's scores by name")
    for name in names:
        if name not in scores:
            raise InputError(
                f"distribute.scores: no score {name!r} of layer {layer.name}; there are "
                f"{', '.join(scores)}"
            )
        values = np.asarray(
            checks.array(f"scores: {name} of layer {layer.name}", scores[name]), np.float64
        )
        if values.shape != (layer.neurons,):
            raise InputError(
                f"scores: {name} of layer {layer.name} is {list(values.shape)}, and the layer has "
                f"{layer.neurons} neurons; score this network"
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"scores: {name} of layer {layer.name} is not finite; score a network whose "
                "outputs are finite"
            )
        checked[name] = values
    return checked
