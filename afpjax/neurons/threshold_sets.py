"""What a choice of thresholds is worth: measured for a search, and anew on held-out images.

The paper leaves it open how thresholds are to be chosen. Here is what a choice costs; `search` has
the ways to look for good ones.

Legend: N choices, G groups of layers, M objectives, F sets of failed devices, B images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from afpjax.evaluate.evaluator import Evaluator
from afpjax.neurons.failures import Failures, Preserved, difference, outcomes, preserved
from afpjax.neurons.levels import Ladders
from afpjax.neurons.placement import Placement, memory_share

Progress = Callable[[int], Any]
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
    def cardinality(self) -> Int[np.ndarray, "G"]:
        return self.ladders.cardinality

    @property
    def rows_each(self) -> int:
        """Rows of the evaluator that a choice takes."""
        return len(self.failures.sets)

    @property
    def clean(self) -> float:
        """Accuracy as long as no device fails."""
        return float(self.evaluator.whole().mean())

    def memory(self, choices: Int[np.ndarray, "N G"]) -> Float64[np.ndarray, "N"]:
        return self.ladders.memory(choices)

    def curve(self) -> list[Float64[np.ndarray, "_"]]:
        return self.ladders.curve()

    def constants(self) -> Int[np.ndarray, "N G"]:
        """Choices that are one threshold for all layers."""
        return np.stack([self.ladders.constant(each) for each in self.ladders.constants])

    def of_choices(
        self, choices: Int[np.ndarray, "N G"], progress: Progress = lambda rows: None
    ) -> Float64[np.ndarray, "N M"]:
        """Objectives of choices of levels."""
        placements = [self.ladders.placement(choice) for choice in choices]
        return self._objectives(placements, self.memory(choices), progress)

    def of_thresholds(
        self, thresholds: Float[np.ndarray, "N G"], progress: Progress = lambda rows: None
    ) -> Float64[np.ndarray, "N M"]:
        """Objectives of any thresholds."""
        placements = [self.ladders.placed(np.asarray(each, np.float64)) for each in thresholds]
        layers = self.ladders.request.graph.layers
        memory = np.array([memory_share(each, layers).max() for each in placements])
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
        return [self.chosen(self.ladders.thresholds(each), cost) for each, cost in pairs]

    def _objectives(
        self, placements: list[Placement], memory: Float64[np.ndarray, "N"], progress: Progress
    ) -> Float64[np.ndarray, "N M"]:
        asked = [(placement, self.failures) for placement in placements]
        found = outcomes(self.evaluator, asked, progress=progress)
        columns = [np.array([self._lost(right) for right in found]), memory]
        if self.costs is not None:
            energy, fps = np.array([self.costs(each) for each in placements]).reshape(-1, 2).T
            columns += [energy, 1 / fps]
        return np.stack(columns, axis=1)

    def _lost(self, right: Bool[np.ndarray, "F K B"]) -> float:
        return self.clean - float(self.failures.weights @ right.mean(axis=(1, 2)))


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
    placements = [ladders.placed(np.array(each.thresholds)) for each in (*searched, *constants)]
    asked = [(placement, failures) for placement in placements]
    right = outcomes(evaluator, asked, progress=progress)
    held_out = [preserved(failures, each) for each in right]
    count = len(searched)
    gains = []
    for place, constant in enumerate(constants, count):
        point = best_within(searched, constant.memory)
        if point is not None:
            pair = (failures, right[point]), (failures, right[place])
            apart, interval = difference(*pair)
            one, other = held_out[point].accuracy, held_out[place].accuracy
            gains.append(Gain(constant.memory, point, one, other, apart, interval))
    return Remeasured(held_out[:count], held_out[count:], gains)


def best_within(points: Sequence[Chosen], memory: float) -> int | None:
    """The number of the most accurate point of at most so much memory; None where there is none."""
    fitting = [place for place, point in enumerate(points) if point.memory <= memory]
    return max(fitting, key=lambda p: (points[p].accuracy, -points[p].memory), default=None)
