"""Thresholds that matter, and what a choice of them is worth.

A threshold acts through the clusters that it leaves, which change at the distances between neurons
alone and differently in every layer. What is worth trying is therefore not a grid of numbers, but
a ladder for each group of layers: a few thresholds, evenly spread over the load they cost. The
paper leaves it open how thresholds are to be chosen; `threshold_search` and `weighted` look for
good ones by `Trade`, and `remeasured` measures them anew on held-out images.

Legend: L layers, G groups of consecutive layers, N choices for the whole network, M objectives,
D devices, F sets of failed devices, B images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.spatial.distance import pdist

from afpjax.evaluate.evaluator import Evaluator, Progress
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer, LayerGraph
from afpjax.neurons.distribute import request_for
from afpjax.neurons.failures import Failures, Preserved, difference, outcomes, preserved
from afpjax.neurons.importance import NAMES
from afpjax.neurons.methods import PlacementRequest, method
from afpjax.neurons.methods.robustdice import robustdice
from afpjax.neurons.placement import Placement, largest_share

MOST = 16  # levels of a ladder, constants aside
_NEURONS = 512  # of a layer whose distances say where thresholds can lie
_TRIES = 3  # thresholds tried for each level that is wanted
_HALVINGS = 24
_LARGEST = 2.0**20  # no scale of scores has neurons so far apart that this does not join them


class ThresholdLevel(NamedTuple):
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

    layers: tuple[int, ...]  # their indices in the program
    levels: tuple[ThresholdLevel, ...]
    constants: Mapping[float, int]
    top: float  # a threshold that leaves one cluster in each of the layers


@dataclass(frozen=True, eq=False)
class Ladders:
    """A ladder for each group of layers; a choice is one level of each, int [G]."""

    request: PlacementRequest
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
        of_layers = replace(self.request, thresholds=self.of_layers(thresholds))
        return method("robustdice").place(of_layers)

    def thresholds(self, choice: Int[np.ndarray, "G"]) -> tuple[float, ...]:
        """Of each group, at these levels."""
        pairs = zip(self.ladders, choice, strict=True)
        return tuple(ladder.levels[level].threshold for ladder, level in pairs)

    def of_layers(self, thresholds: Sequence[float] | Float64[np.ndarray, "G"]) -> tuple:
        """Thresholds of groups as thresholds of layers, which `distribute` takes."""
        pairs = zip(self.ladders, thresholds, strict=True)
        return tuple(float(t) for ladder, t in pairs for _ in ladder.layers)

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
    graph: LayerGraph,
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
    count = len(graph.layers)
    if groups != -1 and not 1 <= groups <= count:
        raise InputError(
            f"distribute.search: {groups} groups of {count} layers; give 1 to {count}, "
            "or -1 for each layer its own"
        )
    if most < 2:
        raise InputError(f"ladders: {most} levels; give 2 or more")
    for threshold in (*constants, 0.0):  # refuses what is wrong
        request = request_for(
            graph,
            scores,
            devices,
            threshold,
            names=names,
            normalise=normalise,
            whole_classifier=whole_classifier,
        )
    parts = np.array_split(np.arange(count), count if groups == -1 else groups)
    wanted = tuple(sorted({0.0, *map(float, constants)}))
    return Ladders(request, tuple(_ladder(request, tuple(p.tolist()), most, wanted) for p in parts))


def _ladder(
    request: PlacementRequest, layers: tuple[int, ...], most: int, constants: tuple[float, ...]
) -> Ladder:
    top = max(_top(request.points_of(layer)) for layer in layers)
    tried = {t: _level(request, layers, t) for t in (*constants, top)}
    near = np.unique(np.concatenate([_distances(request.points_of(layer)) for layer in layers]))
    for _ in range(_TRIES * most):
        threshold = _between(tried, near)
        if threshold is None or len({level.parameters for level in tried.values()}) >= most:
            break
        tried[threshold] = _level(request, layers, threshold)
    return _arranged(layers, tried, constants, top)


def _between(tried: Mapping[float, ThresholdLevel], near: Float64[np.ndarray, "n"]) -> float | None:
    """A distance in the middle of the two neighbouring thresholds whose loads are most apart."""
    known = sorted(tried)
    gaps = [abs(tried[a].parameters - tried[b].parameters) for a, b in pairwise(known)]
    for gap in np.argsort(-np.array(gaps), kind="stable"):
        low = np.searchsorted(near, known[gap], "right")
        high = np.searchsorted(near, known[gap + 1], "left")
        if gaps[gap] > 0 and low < high:
            return float(near[(low + high) // 2])
    return None


def _arranged(
    layers: tuple[int, ...],
    tried: Mapping[float, ThresholdLevel],
    constants: tuple[float, ...],
    top: float,
) -> Ladder:
    """Each placement once, and each load once but for those of constants."""
    kept: dict[bytes, ThresholdLevel] = {}
    loads: set[float] = set()
    for threshold in (*constants, *sorted(set(tried) - set(constants))):
        level = tried[threshold]
        if threshold in constants or level.parameters not in loads:
            kept.setdefault(_placed(level), level)
            loads.add(level.parameters)
    levels = sorted(kept.values(), key=lambda level: (-level.parameters, level.threshold))
    number = {_placed(level): index for index, level in enumerate(levels)}
    return Ladder(layers, tuple(levels), {t: number[_placed(tried[t])] for t in constants}, top)


def _placed(level: ThresholdLevel) -> bytes:
    return b"".join(np.packbits(held).tobytes() for held in level.holds)


def _level(request: PlacementRequest, layers: tuple[int, ...], threshold: float) -> ThresholdLevel:
    count = len(request.graph.layers)
    request = replace(request, thresholds=(threshold,) * count)
    holds, parameters = [], 0.0
    for index in layers:
        layer, whole = request.layer(index), request.whole_classifier and index == count - 1
        shape = (request.devices, layer.neurons)
        holds.append(np.ones(shape, bool) if whole else robustdice(request, index))
        most = int(holds[-1].sum(axis=1).max())
        parameters += (layer.weights + layer.biases) * most / layer.neurons
    return ThresholdLevel(threshold, tuple(holds), parameters)


def _top(neurons: Float64[np.ndarray, "C S"]) -> float:
    """More than any two are apart: the diagonal of their box, and some."""
    return 1.001 * float(np.linalg.norm(np.ptp(neurons, axis=0))) or 1.0


def _distances(neurons: Float64[np.ndarray, "C S"]) -> Float64[np.ndarray, "n"]:
    """Distances between neurons, of some where there are many."""
    some = np.linspace(0, len(neurons) - 1, min(len(neurons), _NEURONS)).round().astype(int)
    distances = pdist(neurons[some])
    return distances[distances > 0]


def threshold_for(
    memory: float, place: Callable[[float], Placement], layers: Sequence[Layer]
) -> tuple[float, Placement]:
    """The threshold for all layers whose placement's largest share is nearest to `memory`.

    `place(t)` makes a placement. Memory falls with the threshold but for small steps back, so this
    halves an interval and keeps the nearest of what it tried; the smaller threshold of equals.
    """
    tried: list[tuple[float, float, Placement]] = []

    def share(threshold: float) -> float:
        placement = place(threshold)
        largest = largest_share(placement, layers)
        tried.append((abs(largest - memory), threshold, placement))
        return largest

    low, high = 0.0, 1.0
    while share(high) > memory and high < _LARGEST:
        low, high = high, 4 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > memory else (low, middle)
    _, threshold, placement = min(tried, key=lambda entry: entry[:2])
    return threshold, placement


Costs = Callable[[Placement], tuple[float, float]]  # J per image, images per second


class Chosen(NamedTuple):
    """Thresholds of a network's groups of layers, and what they cost where they were searched."""

    thresholds: tuple[float, ...]
    memory: float  # share of all weights and biases on the device that holds most
    accuracy: float  # on the images of the search
    energy_j: float | None  # per image
    fps: float | None


class Gain(NamedTuple):
    """Accuracy on held-out images: what was searched, and a constant of no less memory."""

    memory: float  # the constant's
    point: int  # the searched one's number
    searched: float
    constant: float
    difference: float
    interval: tuple[float, float]  # 95 %, over new images


class Remeasured(NamedTuple):
    """Held-out accuracy of searched thresholds and of constant ones."""

    searched: list[Preserved]
    constant: list[Preserved]
    gains: list[Gain]  # for each constant


@dataclass(frozen=True, eq=False)
class Trade:
    """What thresholds cost: the accuracy that failures take, memory, and maybe energy and time.

    Objectives, all to be minimised: accuracy lost against no failure (mean over the sets, by their
    weights), the largest share of the weights on a device, and where `costs` are given, J per image
    and seconds per image.
    """

    ladders: Ladders
    evaluator: Evaluator
    failures: Failures
    costs: Costs | None = None

    @property
    def rows_each(self) -> int:
        """Rows of the evaluator that a choice takes."""
        return len(self.failures.sets)

    @property
    def clean(self) -> float:
        """Accuracy as long as no device fails."""
        return float(self.evaluator.whole().mean())

    def constants(self) -> Int[np.ndarray, "N G"]:
        """Choices that are one threshold for all layers."""
        return np.stack([self.ladders.constant(t) for t in self.ladders.constants])

    def of_choices(
        self, choices: Int[np.ndarray, "N G"], progress: Progress = lambda rows: None
    ) -> Float64[np.ndarray, "N M"]:
        """Objectives of choices of levels."""
        placements = [self.ladders.placement(choice) for choice in choices]
        return self._objectives(placements, self.ladders.memory(choices), progress)

    def of_thresholds(
        self, thresholds: Float[np.ndarray, "N G"], progress: Progress = lambda rows: None
    ) -> Float64[np.ndarray, "N M"]:
        """Objectives of any thresholds."""
        placements = [self.ladders.placed(np.asarray(row, np.float64)) for row in thresholds]
        layers = self.ladders.request.graph.layers
        memory = np.array([largest_share(placement, layers) for placement in placements])
        return self._objectives(placements, memory, progress)

    def chosen(self, thresholds: Sequence[float], objectives: Float64[np.ndarray, "M"]) -> Chosen:
        """A point of a front by the names of what was measured."""
        lost, memory, *more = map(float, objectives)
        energy, fps = (more[0], 1 / more[1]) if more else (None, None)
        return Chosen(tuple(thresholds), memory, self.clean - lost, energy, fps)

    def front(
        self, choices: Int[np.ndarray, "N G"], objectives: Float64[np.ndarray, "N M"]
    ) -> list[Chosen]:
        """`chosen` for a front of choices."""
        pairs = zip(choices, objectives, strict=True)
        return [self.chosen(self.ladders.thresholds(choice), cost) for choice, cost in pairs]

    def _objectives(
        self, placements: list[Placement], memory: Float64[np.ndarray, "N"], progress: Progress
    ) -> Float64[np.ndarray, "N M"]:
        pairs = [(placement, self.failures) for placement in placements]
        weights = self.failures.weights
        lost = [
            self.clean - float(weights @ right.mean(axis=(1, 2)))
            for right in outcomes(self.evaluator, pairs, progress=progress)
        ]
        columns = [np.array(lost), memory]
        if self.costs is not None:
            energy, fps = np.array([self.costs(p) for p in placements]).reshape(-1, 2).T
            columns += [energy, 1 / fps]
        return np.stack(columns, axis=1)


def remeasured(
    ladders: Ladders,
    searched: Sequence[Chosen],
    constants: Sequence[Chosen],
    evaluator: Evaluator,
    failures: Failures,
    progress: Progress = lambda rows: None,
) -> Remeasured:
    """Held-out accuracy of points of a search, and what they gain over constants at equal memory.

    `evaluator` has images that no search has seen. Against each constant stands the searched point
    that was the most accurate on the images of the search among those of no more memory (of equals
    the one of least): held-out images never choose. A constant without such a point stands alone.
    """
    points = (*searched, *constants)
    pairs = [(ladders.placed(np.array(point.thresholds)), failures) for point in points]
    right = outcomes(evaluator, pairs, progress=progress)
    held_out = [preserved(failures, outcome) for outcome in right]
    count = len(searched)
    gains = []
    for index, constant in enumerate(constants, count):
        rival = best_within(searched, constant.memory)
        if rival is not None:
            apart, interval = difference((failures, right[rival]), (failures, right[index]))
            one, other = held_out[rival].accuracy, held_out[index].accuracy
            gains.append(Gain(constant.memory, rival, one, other, apart, interval))
    return Remeasured(held_out[:count], held_out[count:], gains)


def best_within(points: Sequence[Chosen], memory: float) -> int | None:
    """The number of the most accurate point of at most so much memory; None where there is none."""
    fitting = [index for index, point in enumerate(points) if point.memory <= memory]
    return max(fitting, key=lambda p: (points[p].accuracy, -points[p].memory), default=None)
