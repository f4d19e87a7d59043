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
        """Whose sums the spare computes, of a layer by its place: row i is of i-th neurons.

        There are as many as the largest slice has neurons; none without a spare, or where it holds
        the whole layer.
        """
        held = self.holds[whole("layer", layer, 0, len(self.layers) - 1)]
        if self.spare is None or held[self.spare].all():
            return np.zeros((0, held.shape[1]), bool)
        place = np.where(held, held.cumsum(axis=1) - 1, -1)  # of a neuron in its device's slice
        return (place[None] == np.arange(place.max() + 1)[:, None, None]).any(axis=1)

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


def deal(
    groups: Sequence[Int[np.ndarray, "_"]], devices: int, neurons: int
) -> Bool[np.ndarray, "D C"]:
    """Every group padded with replicas to a multiple of D, and dealt round-robin to the devices.

    `groups` hold each of the neurons 0 … C-1 once. Replicas are of a group's first neurons,
    counted round again where it has fewer than are missing. No device gets a neuron twice: copies
    are a group's size apart, which D does not divide where there are any, or less than D apart in
    all. So every device gets equally many of each group.

    RobustDiCE, Algorithm 1, step 3 (lines 21-28): the j-th of a group, j from 1, goes to device
    j mod D, D counted from 0. The line that deals stands inside the `if` in print; groups that
    need no padding are dealt out too.
    """
    holds = np.zeros((devices, neurons), bool)
    for group in groups:
        padded = np.resize(group, -(-len(group) // devices) * devices)
        holds[np.arange(1, len(padded) + 1) % devices, padded] = True
    return holds


def filters(placement: Placement, layers: Sequence[Layer]) -> Int[np.ndarray, "L D"]:
    """Filters that each device keeps and applies: `loads`, but for sums over grouped layers.

    A sum of neurons that read the same inputs is one filter, the sum of theirs. Those of different
    groups read different inputs: their sum needs a filter for each group.
    """
    _check(placement, layers)
    found = placement.loads()
    if placement.spare is None:
        return found
    for place, layer in enumerate(layers):
        coded = placement.coded(place)
        group = np.arange(layer.neurons) * layer.groups // layer.neurons
        apart = sum(len(np.unique(group[members])) for members in coded)
        found[place, placement.spare] += apart - len(coded)
    return found


def memory_share(placement: Placement, layers: Sequence[Layer]) -> Float64[np.ndarray, "D"]:
    """Share of all weights and biases of the network that each device holds, the spare's sums too.

    Full replication: 1 for each. Raises `InputError` for layers of another network.
    """
    kept = filters(placement, layers)
    weights = np.array([layer.weights / layer.neurons for layer in layers])
    biases = np.array([layer.biases / layer.neurons for layer in layers])
    total = sum(layer.weights + layer.biases for layer in layers)
    return (weights @ kept + biases @ placement.loads()) / total


def _check(placement: Placement, layers: Sequence[Layer]) -> None:
    found = [(layer.name, layer.neurons) for layer in layers]
    sizes = [held.shape[1] for held in placement.holds]
    if found != list(zip(placement.layers, sizes, strict=True)):
        raise InputError("layers: those of another network than the placement's; give its own")
