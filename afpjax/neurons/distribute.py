"""Neurons of a network spread over devices: the public entry, and what it refuses."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64

from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer, LayerGraph
from afpjax.neurons.methods import METHODS, Request
from afpjax.neurons.placement import MOST_DEVICES, Placement
from afpjax.neurons.scales import NORMALISATIONS, points

NAMES = ("l1", "taylor", "jsd")
FEWEST_DEVICES = 2

#: One for all layers, or one for each.
Thresholds = float | int | Sequence[float | int] | Float[np.ndarray, "L"]


@runtime_checkable
class Traced(Protocol):
    """A network whose layers are known."""

    @property
    def graph(self) -> LayerGraph: ...


def distribute(
    network: Traced,
    scores: Mapping[str, Mapping[str, Any]],
    devices: int = 4,
    thresholds: Thresholds = 0.1,
    *,
    method: str = "robustdice",
    names: Sequence[str] = NAMES,
    normalise: str = "minmax",
    seed: int = 0,
    whole_classifier: bool = False,
) -> Placement:
    """Which of `devices` computes which neurons of every layer, replicas and all.

    `scores` are `importance`'s, {layer: {name: [C]}}; those of `names` are used, on the scale that
    `normalise` says ("minmax", "zscore", "rank", "raw"; see `scales.points`). `thresholds`, one
    number or one for each layer, are on that scale: neurons within a cluster are nearer than that.
    0 replicates every neuron on every device, a large one replicates next to none. `method`:
    "robustdice", "lop", "cdc" (the last device is the spare), "replication", "random" or "topk";
    the last two have RobustDiCE's load on every device. `whole_classifier`: every device computes
    all of the last layer. Layers may have fewer neurons than there are devices: "robustdice",
    "random" and "topk" replicate them until each device has some, "lop" and "cdc" leave devices
    with none. Raises `InputError` for thresholds that are negative, NaN or not one for each layer,
    fewer than 2 devices (3 for "cdc"), more than 128, scores of another network or not finite, and
    names that are unknown, named twice or none.

    RobustDiCE (Guo et al.), Algorithm 1.
    """
    checks.instance("network", network, Traced, "a network from afpjax.trace or afpjax.quantize")
    layers = network.graph.layers
    names = (names,) if isinstance(names, str) else checks.names("names", names, "scores")
    _check(method, devices, seed, names, normalise)
    request = Request(
        network.graph,
        _points(layers, scores, names, normalise),
        devices,
        _thresholds(thresholds, len(layers)),
        seed,
        whole_classifier,
    )
    return METHODS[method](request)


def _check(method: str, devices: int, seed: int, names: Sequence[str], normalise: str) -> None:
    checks.choice("distribute.method", method, tuple(METHODS))
    checks.choice("distribute.normalise", normalise, NORMALISATIONS)
    checks.whole("distribute.devices", devices, FEWEST_DEVICES, MOST_DEVICES)
    checks.whole("distribute.seed", seed, 0)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"distribute.scores: {list(names)}; name one score or several, none of them twice"
        )


def _thresholds(given: Thresholds, layers: int) -> tuple[float, ...]:
    """One for each layer."""
    values = np.asarray(checks.array("distribute.thresholds", given), np.float64)
    if values.ndim and values.shape != (layers,):
        raise InputError(
            f"distribute.thresholds: {values.size} for {layers} layers; give one number, or one "
            "for each layer"
        )
    if not (values >= 0).all():  # NaN is not
        wrong = values.ravel()[~(values.ravel() >= 0)][0]
        raise InputError(f"distribute.thresholds: {wrong}; give numbers from 0 up")
    return tuple(np.broadcast_to(values, layers).tolist())


def _points(
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
    found = {}
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
        found[name] = values
    return found
