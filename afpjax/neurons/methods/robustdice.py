"""RobustDiCE: similar neurons in clusters, clusters padded with replicas, dealt round-robin.

Guo et al., Algorithm 1, steps 2 and 3.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from afpjax.neurons.methods import PlacementRequest

LABEL = "RobustDiCE"
BY_THRESHOLD = True


def robustdice(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """RobustDiCE's Algorithm 1: equal loads in every layer, replicas where clusters need them."""
    groups = clusters(request.points_of(layer), request.thresholds[layer])
    return deal(groups, request.devices, request.layer(layer).neurons)


def clusters(points: Float[np.ndarray, "C S"], threshold: float) -> list[Int[np.ndarray, " n"]]:
    """Groups of neurons any two of which are nearer than `threshold`, by the greedy pass.

    `points` are the neurons' scores on one scale; neurons are numbers 0 … C-1. Groups come in the
    order the pass leaves them in, neurons in the order they were merged. The comparison is strict:
    with a threshold of 0 every neuron, identical ones too, is a group of its own.

    Algorithm 1, lines 10-20. The pass visits the groups G_z in order, and for each all other groups
    G_q; it merges G_q into G_z if the largest distance between their neurons is below t. Two facts
    make it cheap, and the result the same:
    - A visited group never changes again. Whatever was not merged into G_z had a neuron at t or
      more from one of G_z's, and has it for good: groups only grow. So neither does a later group
      swallow G_z, nor is a G_q after G_z anything but a single neuron.
    - A neuron is near enough to all of a growing group if it was near enough to all members so far
      and is to the newest. So distances from each neuron are needed once, when it is merged: C·C
      distances in all, a row at a time, whatever the threshold is.
    """
    scores = np.ascontiguousarray(points.T, np.float64)
    free = np.ones(len(points), bool)
    groups = []
    while free.any():
        group, near = [], np.flatnonzero(free)
        while near.size:
            newest, near = near[0], near[1:]
            group.append(newest)
            apart = scores[:, near] - scores[:, newest, None]
            near = near[np.sqrt((apart * apart).sum(axis=0)) < threshold]  # line 15
        groups.append(np.array(group, np.int64))
        free[groups[-1]] = False
    return groups


def deal(
    groups: Sequence[Int[np.ndarray, "_"]], devices: int, neurons: int
) -> Bool[np.ndarray, "D C"]:
    """Every group padded with replicas to a multiple of D, and dealt round-robin to the devices.

    `groups` hold each of the neurons 0 … C-1 once. Replicas are of a group's first neurons,
    counted round again where it has fewer than are missing. No device gets a neuron twice: copies
    are a group's size apart, which D does not divide where there are any, or less than D apart in
    all. So every device gets equally many of each group.

    Algorithm 1, lines 21-28: the j-th of a group, j from 1, goes to device j mod D, D counted from
    0. The line that deals stands inside the `if` in print; groups that need no padding are dealt
    out too.
    """
    holds = np.zeros((devices, neurons), bool)
    for group in groups:
        padded = np.resize(group, -(-len(group) // devices) * devices)
        holds[np.arange(1, len(padded) + 1) % devices, padded] = True
    return holds
