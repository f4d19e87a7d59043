"""Which device computes which neurons of every layer, and what is left when devices are gone."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8

from afpjax.inputs.checks import several, whole
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer

MOST_DEVICES = 128  # their numbers are int8, and -1 is no device


@dataclass(frozen=True, eq=False)
class Placement:
    """Which device computes which neurons of every layer.

    `layers` are their names in the program's order, and `holds` bool [D, C] for each of them:
    device d computes neuron n. `spare` is the device that computes, beside what it holds, sums of
    the others' neurons (`coded`); None: no device does.
    """

    method: str
    layers: tuple[str, ...]
    holds: tuple[Bool[np.ndarray, "D _"], ...]
    spare: int | None = None

    @property
    def devices(self) -> int:
        """D, the spare included."""
        return len(self.holds[0])

    def answering(
        self, failed: Collection[int], order: Sequence[int] | None = None
    ) -> tuple[Int8[np.ndarray, "_"], ...]:
        """By layer, the device whose copy of each neuron is used, int8 [C]; -1: it is lost.

        It is the first in `order` (by default 0, 1, …) of the devices that hold the neuron and are
        not among the `failed`. If all but one of the workers live, and the spare, then what only
        the lost one computes is what the sums leave over, and the spare answers. Raises
        `InputError` for devices that do not exist and an order that is not of all of them.
        """
        order = range(self.devices) if order is None else several("order", order, "devices")
        failed = several("failed", failed, "devices")
        if sorted(order) != list(range(self.devices)):
            raise InputError(
                f"order: {list(order)}; name each of the devices 0 to {self.devices - 1} once"
            )
        unknown = sorted(set(failed) - set(order))
        if unknown:
            raise InputError(f"failed: no device {unknown[0]}; devices are 0 to {self.devices - 1}")
        alive = [device for device in order if device not in failed]
        return tuple(self._answering(held, alive) for held in self.holds)

    def coded(self, layer: int) -> Bool[np.ndarray, "sums C"]:
        """Whose sums the spare computes, of a layer by its index: row i is of i-th neurons.

        There are as many as the largest slice has neurons; none without a spare, or where it holds
        the whole layer.
        """
        held = self.holds[whole("layer", layer, 0, len(self.layers) - 1)]
        if self.spare is None or held[self.spare].all():
            return np.zeros((0, held.shape[1]), bool)
        position = np.where(held, held.cumsum(axis=1) - 1, -1)  # in a device's slice
        return (position[None] == np.arange(position.max() + 1)[:, None, None]).any(axis=1)

    def loads(self) -> Int[np.ndarray, "L D"]:
        """Neurons that each device computes of each layer, a sum of neurons counted as one."""
        loads = np.array([held.sum(axis=1) for held in self.holds], np.int64)
        if self.spare is not None:
            loads[:, self.spare] += [len(self.coded(layer)) for layer in range(len(loads))]
        return loads

    def _answering(
        self, held: Bool[np.ndarray, "D C"], alive: Sequence[int]
    ) -> Int8[np.ndarray, "C"]:
        first = np.full(held.shape[1], -1, np.int8)
        for device in reversed(alive):
            first[held[device]] = device
        if self.spare is not None and len(alive) == self.devices - 1:
            first[first < 0] = self.spare  # alive: had it failed, nothing would be lost
        return first


def filters(placement: Placement, layers: Sequence[Layer]) -> Int[np.ndarray, "L D"]:
    """Filters that each device keeps and applies: `loads`, but for sums over grouped layers.

    A sum of neurons that read the same inputs is one filter, the sum of theirs. Those of different
    groups read different inputs: their sum needs a filter for each group.
    """
    sizes = [held.shape[1] for held in placement.holds]
    own = list(zip(placement.layers, sizes, strict=True))
    if [(layer.name, layer.neurons) for layer in layers] != own:
        raise InputError("layers: those of another network than the placement's; give its own")
    kept = placement.loads()
    if placement.spare is None:
        return kept
    for index, layer in enumerate(layers):
        coded = placement.coded(index)
        group = np.arange(layer.neurons) * layer.groups // layer.neurons
        apart = sum(len(np.unique(group[members])) for members in coded)
        kept[index, placement.spare] += apart - len(coded)
    return kept


def memory_share(placement: Placement, layers: Sequence[Layer]) -> Float64[np.ndarray, "D"]:
    """Share of all weights and biases of the network that each device holds, the spare's sums too.

    Full replication: 1 for each. Raises `InputError` for layers of another network.
    """
    kept = filters(placement, layers)
    weights = np.array([layer.weights / layer.neurons for layer in layers])
    biases = np.array([layer.biases / layer.neurons for layer in layers])
    total = sum(layer.weights + layer.biases for layer in layers)
    return (weights @ kept + biases @ placement.loads()) / total


def largest_share(placement: Placement, layers: Sequence[Layer]) -> float:
    """Share of the network's weights that the fullest device holds."""
    return float(memory_share(placement, layers).max())
