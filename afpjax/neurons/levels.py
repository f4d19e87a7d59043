"""Ladders of thresholds that matter: a few for each layer, evenly spread over the load they cost.

A threshold acts through the clusters that it leaves, which change at the distances between neurons
alone and differently in every layer. What is worth trying is therefore not a grid of numbers, but
thresholds whose loads are apart.

Legend: L layers, G groups of consecutive layers, N choices for the whole network, D devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.spatial.distance import pdist

from afpjax.inputs.errors import InputError
from afpjax.neurons.distribute import NAMES, Traced, distribute
from afpjax.neurons.methods.request import Request
from afpjax.neurons.methods.robustdice import held, robustdice
from afpjax.neurons.placement import Placement
from afpjax.neurons.scales import points

MOST = 16  # levels of a ladder, constants aside
_NEURONS = 512  # of a layer whose distances say where thresholds can lie
_TRIES = 3  # thresholds tried for each level that is wanted


class Level(NamedTuple):
    """What a threshold makes of a group's layers."""

    threshold: float
    holds: tuple[Bool[np.ndarray, "D _"], ...]
    parameters: float  # weights and biases that each device holds of these layers


@dataclass(frozen=True, eq=False)
class Ladder:
    """Thresholds to choose from for consecutive layers, full replication first, least load last.

    No two levels place all neurons alike. `constants` are the levels of thresholds that were asked
    for; another threshold with the same placement may stand for one.
    """

    places: tuple[int, ...]  # of the layers in the program
    levels: tuple[Level, ...]
    constants: Mapping[float, int]
    top: float  # a threshold that leaves one cluster in each of the layers


@dataclass(frozen=True, eq=False)
class Ladders:
    """A ladder for each group of layers; a choice is one level of each, int [G]."""

    request: Request
    ladders: tuple[Ladder, ...]

    @property
    def cardinality(self) -> Int[np.ndarray, "G"]:
        """Levels of each ladder."""
        return np.array([len(ladder.levels) for ladder in self.ladders])

    def placement(self, choice: Int[np.ndarray, "G"]) -> Placement:
        """RobustDiCE's placement with these levels."""
        holds = [
            held
            for ladder, level in zip(self.ladders, choice, strict=True)
            for held in ladder.levels[level].holds
        ]
        return Placement("robustdice", self.request.graph.names, tuple(holds))

    def placed(self, thresholds: Float64[np.ndarray, "G"]) -> Placement:
        """RobustDiCE's placement with any thresholds, one for each group."""
        return robustdice(replace(self.request, thresholds=self.of_layers(thresholds)))

    def thresholds(self, choice: Int[np.ndarray, "G"]) -> tuple[float, ...]:
        """Of each group, at these levels."""
        pairs = zip(self.ladders, choice, strict=True)
        return tuple(ladder.levels[level].threshold for ladder, level in pairs)

    def of_layers(self, thresholds: Sequence[float] | Float64[np.ndarray, "G"]) -> tuple:
        """Thresholds of groups as thresholds of layers, which `distribute` takes."""
        pairs = zip(self.ladders, thresholds, strict=True)
        return tuple(float(each) for ladder, each in pairs for _ in ladder.places)

    def constant(self, threshold: float) -> Int[np.ndarray, "G"]:
        """The choice that places neurons as one threshold for all layers does; it must be known."""
        return np.array([ladder.constants[threshold] for ladder in self.ladders], np.int32)

    @property
    def constants(self) -> tuple[float, ...]:
        """Thresholds that every ladder has, in their order; 0 is among them."""
        return tuple(sorted(self.ladders[0].constants))

    def memory(self, choices: Int[np.ndarray, "N G"]) -> Float64[np.ndarray, "N"]:
        """Share of all weights and biases that each device holds.

        Sums of whole numbers: choices of equal memory compare as equal.
        """
        held = np.zeros(len(choices))
        for ladder, column in zip(self.ladders, choices.T, strict=True):
            held += np.array([level.parameters for level in ladder.levels])[column]
        return held / sum(layer.weights + layer.biases for layer in self.request.graph.layers)

    def curve(self) -> list[Float64[np.ndarray, "_"]]:
        """Of each group, thresholds in ascending order, from 0 to where nothing changes any more.

        The load falls about evenly from one to the next.
        """
        return [
            np.unique([level.threshold for level in ladder.levels] + [ladder.top])
            for ladder in self.ladders
        ]


def ladders(
    network: Traced,
    scores: Mapping[str, Mapping[str, Any]],
    devices: int = 4,
    *,
    groups: int = -1,
    most: int = MOST,
    constants: Sequence[float] = (),
    names: Sequence[str] = NAMES,
    normalise: str = "minmax",
    whole_classifier: bool = False,
) -> Ladders:
    """Thresholds to choose from, for `groups` groups of consecutive layers; -1: for each layer.

    Each ladder has `most` levels or what fewer a group allows, with different loads, and those of
    `constants` besides. The other arguments are `distribute`'s. Raises `InputError` as that does,
    and for more groups than layers, or fewer than 2 levels.
    """
    layers = network.graph.layers
    if groups != -1 and not 1 <= groups <= len(layers):
        raise InputError(
            f"distribute.search: {groups} groups of {len(layers)} layers; give 1 to {len(layers)}, "
            "or -1 for each layer its own"
        )
    if most < 2:
        raise InputError(f"ladders: {most} levels; give 2 or more")
    options = {"names": names, "normalise": normalise, "whole_classifier": whole_classifier}
    for threshold in (0.0, *constants):  # refuses what is wrong
        distribute(network, scores, devices, threshold, **options)
    names = (names,) if isinstance(names, str) else tuple(names)
    of_layers = {each.name: points(scores[each.name], names, normalise) for each in layers}
    request = Request(network.graph, of_layers, devices, (0.0,) * len(layers), 0, whole_classifier)
    parts = np.array_split(np.arange(len(layers)), len(layers) if groups == -1 else groups)
    wanted = tuple(sorted({0.0, *map(float, constants)}))
    found = [_ladder(request, tuple(part.tolist()), most, wanted) for part in parts]
    return Ladders(request, tuple(found))


def _ladder(
    request: Request, places: tuple[int, ...], most: int, constants: tuple[float, ...]
) -> Ladder:
    top = max(_top(request.points_of(place)) for place in places)
    tried = {t: _level(request, places, t) for t in (*constants, top)}
    near = np.unique(np.concatenate([_distances(request.points_of(place)) for place in places]))
    for _ in range(_TRIES * most):
        threshold = _between(tried, near)
        if threshold is None or len({level.parameters for level in tried.values()}) >= most:
            break
        tried[threshold] = _level(request, places, threshold)
    return _arranged(places, tried, constants, top)


def _between(tried: Mapping[float, Level], near: Float64[np.ndarray, "n"]) -> float | None:
    """A distance in the middle of the two neighbouring thresholds whose loads are most apart."""
    known = sorted(tried)
    gaps = [abs(tried[a].parameters - tried[b].parameters) for a, b in pairwise(known)]
    for place in np.argsort(-np.array(gaps), kind="stable"):
        low = np.searchsorted(near, known[place], "right")
        high = np.searchsorted(near, known[place + 1], "left")
        if gaps[place] > 0 and low < high:
            return float(near[(low + high) // 2])
    return None


def _arranged(
    places: tuple[int, ...], tried: Mapping[float, Level], constants: tuple[float, ...], top: float
) -> Ladder:
    """Each placement once, and each load once but for those of constants."""
    kept: dict[bytes, Level] = {}
    loads: set[float] = set()
    for threshold in (*constants, *sorted(set(tried) - set(constants))):
        level = tried[threshold]
        if threshold in constants or level.parameters not in loads:
            kept.setdefault(_placed(level), level)
            loads.add(level.parameters)
    levels = sorted(kept.values(), key=lambda level: (-level.parameters, level.threshold))
    number = {_placed(level): place for place, level in enumerate(levels)}
    return Ladder(places, tuple(levels), {t: number[_placed(tried[t])] for t in constants}, top)


def _placed(level: Level) -> bytes:
    return b"".join(np.packbits(held).tobytes() for held in level.holds)


def _level(request: Request, places: tuple[int, ...], threshold: float) -> Level:
    count = len(request.graph.layers)
    request = replace(request, thresholds=(threshold,) * count)
    holds, parameters = [], 0.0
    for place in places:
        layer, whole = request.layer(place), request.whole_classifier and place == count - 1
        shape = (request.devices, layer.neurons)
        holds.append(np.ones(shape, bool) if whole else held(request, place))
        most = int(holds[-1].sum(axis=1).max())
        parameters += (layer.weights + layer.biases) * most / layer.neurons
    return Level(threshold, tuple(holds), parameters)


def _top(neurons: Float64[np.ndarray, "C S"]) -> float:
    """More than any two are apart: the diagonal of their box, and some."""
    return 1.001 * float(np.linalg.norm(np.ptp(neurons, axis=0))) or 1.0


def _distances(neurons: Float64[np.ndarray, "C S"]) -> Float64[np.ndarray, "n"]:
    """Distances between neurons, of some where there are many."""
    some = np.linspace(0, len(neurons) - 1, min(len(neurons), _NEURONS)).round().astype(int)
    found = pdist(neurons[some])
    return found[found > 0]
