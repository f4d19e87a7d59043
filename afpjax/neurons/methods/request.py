"""What every method is given, and how it answers a layer at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from afpjax.network.layers import Layer, LayerGraph
from afpjax.neurons.placement import Placement

#: Bool [D, C] of the layer at a place in the program.
Hold = Callable[[int], Bool[np.ndarray, "D _"]]


@dataclass(frozen=True, eq=False)
class Request:
    """A network's neurons and their importance, to be spread over `devices`; checked beforehand.

    `points` are float64 [C, S] by layer: scores on one scale, whose sum orders a layer's neurons
    by importance. `thresholds` are one for each layer. With `whole_classifier` the last layer is
    not distributed: every device computes all of it.
    """

    graph: LayerGraph
    points: Mapping[str, Float64[np.ndarray, "_ S"]]
    devices: int
    thresholds: tuple[float, ...]
    seed: int = 0
    whole_classifier: bool = False

    def layer(self, place: int) -> Layer:
        return self.graph.layers[place]

    def points_of(self, place: int) -> Float64[np.ndarray, "C S"]:
        return self.points[self.layer(place).name]


def by_layer(request: Request, method: str, hold: Hold, spare: int | None = None) -> Placement:
    """The placement that `hold` makes layer by layer."""
    holds = []
    for place, layer in enumerate(request.graph.layers):
        last = place == len(request.graph.layers) - 1
        whole = last and request.whole_classifier
        holds.append(np.ones((request.devices, layer.neurons), bool) if whole else hold(place))
    return Placement(method, request.graph.names, tuple(holds), spare)
