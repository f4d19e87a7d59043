"""Ways to spread neurons over devices: RobustDiCE, and what it is compared with.

This folder is read: each of its files is a method, under the file's name. It has a function of that
name, from a `PlacementRequest` and a layer's index to bool [D, C] (which device computes which of
the layer's neurons), whose first line is the method's help, and may say:

- `LABEL`: its name on pages and in tables (default: the file's name);
- `FEWEST_DEVICES`: it needs so many (default 2);
- `SPARE`: the last device computes sums of the others' neurons (default False);
- `BY_THRESHOLD`: its memory follows from the thresholds (default False).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
from jaxtyping import Bool, Float64

from afpjax.network.layers import Layer, LayerGraph
from afpjax.neurons.placement import Placement


@dataclass(frozen=True, eq=False)
class PlacementRequest:
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

    def layer(self, index: int) -> Layer:
        return self.graph.layers[index]

    def points_of(self, index: int) -> Float64[np.ndarray, "C S"]:
        return self.points[self.layer(index).name]


@dataclass(frozen=True)
class Method:
    """A way to spread neurons, as its file has it."""

    name: str
    hold: Callable[[PlacementRequest, int], Bool[np.ndarray, "D _"]]
    label: str
    help: str
    fewest_devices: int
    spare: bool
    by_threshold: bool

    def place(self, request: PlacementRequest) -> Placement:
        """Every layer's neurons on the devices of a request."""
        holds = []
        for index, layer in enumerate(request.graph.layers):
            last = index == len(request.graph.layers) - 1
            everywhere = np.ones((request.devices, layer.neurons), bool)
            whole = last and request.whole_classifier
            holds.append(everywhere if whole else self.hold(request, index))
        spare = request.devices - 1 if self.spare else None
        return Placement(self.name, request.graph.names, tuple(holds), spare)


def names() -> tuple[str, ...]:
    """The methods that there are: this folder's files."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def method(name: str) -> Method:
    """The method of a file of this folder."""
    module = import_module(f"{__name__}.{name}")
    hold = getattr(module, name)
    return Method(
        name,
        hold,
        label=getattr(module, "LABEL", name),
        help=(hold.__doc__ or "").strip().split("\n")[0],
        fewest_devices=getattr(module, "FEWEST_DEVICES", 2),
        spare=getattr(module, "SPARE", False),
        by_threshold=getattr(module, "BY_THRESHOLD", False),
    )
