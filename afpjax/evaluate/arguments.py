"""What a call is given of its nodes' faults: rates or places for every image, on every device."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from afpjax.evaluate.given import Spots
from afpjax.evaluate.plan import Hits, Node
from afpjax.faults.sites import NOWHERE
from afpjax.faults.strike import Draws


def met(
    draws: Draws,
    devices: int,
    nodes: Sequence[Node],
    indices: np.ndarray,
    slots: int,
    neurons: int,
) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """What strikes the inputs of every image of a call, its trial [D, B], its neurons [D, B, C].

    `nodes` fill the first of `slots` slots of equally many images, whose numbers `indices` repeats
    for each slot; empty slots have nothing.
    """
    size = len(indices) // slots
    of_inputs = _places if draws.places else _rates
    return (
        of_inputs(draws, devices, nodes, indices[:size], slots),
        trials_of(devices, nodes, slots, size),
        _answering(devices, nodes, slots, size, neurons) if draws.copies else None,
    )


def on_the_way(
    draws: Draws, devices: int, nodes: Sequence[Node], slots: int, size: int, read: int
) -> np.ndarray:
    """Thresholds of the `read` values that cross to every image of a call, [D, B, read, …]."""
    of_values = (read, *draws.link_words)
    limits = np.zeros((devices, slots, size, *of_values), np.uint32)
    for slot, node in enumerate(nodes):
        if node.wires:
            limits[:, slot] = np.frombuffer(node.wires, np.uint32).reshape(of_values)
    return limits.reshape(devices, slots * size, *of_values)


def trials_of(devices: int, nodes: Sequence[Node], slots: int, size: int) -> np.ndarray:
    """The trial of every image of a call, [D, B]."""
    trials = np.zeros((devices, slots, size), np.uint32)
    for slot, node in enumerate(nodes):
        trials[:, slot] = np.array(node.trials or (0,) * devices, np.uint32)[:, None]
    return trials.reshape(devices, slots * size)


def spots_of(hits: Hits, devices: int) -> Spots:
    """By device and image, [D, I, n]."""
    shape = (devices, -1, hits.places)
    elements = np.frombuffer(hits.elements, np.uint32).reshape(shape)
    return Spots(elements, np.frombuffer(hits.words, np.int32).reshape(shape))


def _answering(
    devices: int, nodes: Sequence[Node], slots: int, size: int, neurons: int
) -> np.ndarray:
    """Whose copy answers for each neuron, int8 [D, B, C]: the first, where nothing else is said."""
    by = np.zeros((devices, slots, size, neurons), np.int8)
    for slot, node in enumerate(nodes):
        if node.strike.outputs:
            every = np.frombuffer(node.strike.outputs, np.int8).reshape(-1, 1, neurons)
            by[:, slot] = every  # the same on all devices, or each its own
    return by.reshape(devices, slots * size, neurons)


def _rates(
    draws: Draws, devices: int, nodes: Sequence[Node], indices: np.ndarray, slots: int
) -> np.ndarray:
    """Thresholds, [D, B, columns], or of every read copy, [D, B, copies, columns]."""
    shape = (draws.copies, draws.columns) if draws.copies else (draws.columns,)
    limits = np.zeros((devices, slots, len(indices), *shape), np.uint32)
    for slot, node in enumerate(nodes):
        inputs = node.strike.inputs
        if not isinstance(inputs, bytes) or not inputs:
            continue
        words = np.frombuffer(inputs, np.uint32)
        if draws.copies:
            limits[:, slot] = words.reshape(shape)
        elif draws.budget is None:
            limits[:, slot] = words
        else:  # for every image of every trial
            each = words.reshape(devices, -1, draws.columns)
            limits[:, slot] = each[:, np.minimum(indices, each.shape[1] - 1)]
    return limits.reshape(devices, slots * len(indices), *shape)


def _places(
    draws: Draws, devices: int, nodes: Sequence[Node], indices: np.ndarray, slots: int
) -> Spots:
    """Places, [D, B, n]."""
    elements = np.full((devices, slots, len(indices), draws.places), NOWHERE, np.uint32)
    words = np.zeros(elements.shape, np.int32)
    for slot, node in enumerate(nodes):
        if isinstance(node.strike.inputs, Hits):
            spots = spots_of(node.strike.inputs, devices)
            images = np.minimum(indices, spots.elements.shape[1] - 1)
            elements[:, slot], words[:, slot] = (each[:, images] for each in spots)
    return Spots(
        *(each.reshape(devices, slots * len(indices), draws.places) for each in (elements, words))
    )
