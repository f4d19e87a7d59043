"""Step 2 of RobustDiCE's Algorithm 1: neurons of similar importance become one group."""

import numpy as np
from jaxtyping import Bool, Float, Int


def clusters(points: Float[np.ndarray, "C S"], threshold: float) -> list[Int[np.ndarray, " n"]]:
    """Groups of neurons any two of which are nearer than `threshold`, by the greedy pass.

    `points` are the neurons' scores on one scale; neurons are numbers 0 … C-1. Groups come in the
    order the pass leaves them in, neurons in the order they were merged. The comparison is strict:
    with a threshold of 0 every neuron, identical ones too, is a group of its own.

    RobustDiCE (Guo et al.), Algorithm 1, lines 10-20. The pass visits the groups G_z in order, and
    for each all other groups G_q; it merges G_q into G_z if the largest distance between their
    neurons is below t. Two facts make it cheap, and the result the same:
    - A visited group never changes again. Whatever was not merged into G_z had a neuron at t or
      more from one of G_z's, and has it for good: groups only grow. So neither does a later group
      swallow G_z, nor is a G_q after G_z anything but a single neuron.
    - A neuron is near enough to all of a growing group if it was near enough to all members so far
      and is to the newest. So distances from each neuron are needed once, when it is merged: C·C
      distances in all, a row at a time, whatever the threshold is.
    """
    scores = np.ascontiguousarray(points.T, np.float64)
    free = np.ones(len(points), bool)
    found = []
    while free.any():
        group = _group(scores, np.flatnonzero(free), threshold)
        free[group] = False
        found.append(group)
    return found


def _group(
    scores: Float[np.ndarray, "S C"], near: Int[np.ndarray, " n"], threshold: float
) -> Int[np.ndarray, " m"]:
    """The group that begins with the first of `near`, made of them."""
    group = []
    while near.size:
        newest, near = near[0], near[1:]
        group.append(newest)
        near = near[_within(scores, newest, near, threshold)]
    return np.array(group, np.int64)


def _within(
    scores: Float[np.ndarray, "S C"], one: np.integer, others: Int[np.ndarray, " n"], limit: float
) -> Bool[np.ndarray, " n"]:
    """Whether √Σ(s - s')² is below the limit: the distance of line 15."""
    apart = scores[:, others] - scores[:, one, None]
    return np.sqrt((apart * apart).sum(axis=0)) < limit
