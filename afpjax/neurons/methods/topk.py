"""The most important neurons on every device, at RobustDiCE's memory: is clustering worth it?"""

import numpy as np
from jaxtyping import Bool, Int

from afpjax.neurons.methods import PlacementRequest
from afpjax.neurons.methods.robustdice import robustdice

LABEL = "top-k replicas"
BY_THRESHOLD = True


def topk(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """The k most important neurons of a layer on every device, the others dealt round-robin.

    Importance is the sum of the scores. Every device computes as many neurons as RobustDiCE's: k is
    the largest that leaves room for the others, and who still has room takes the most important
    neuron that it lacks.
    """
    # Equal scores in the order of neurons, on every machine.
    ranked = np.argsort(-request.points_of(layer).sum(axis=1), kind="stable")
    return first_everywhere(ranked, request.devices, int(robustdice(request, layer)[0].sum()))


def first_everywhere(
    ranked: Int[np.ndarray, "C"], devices: int, load: int
) -> Bool[np.ndarray, "D C"]:
    """Neurons of a layer, the most important first, as `load` on each of D devices, D·load >= C."""
    neurons = len(ranked)
    count = np.arange(neurons + 1)
    k = int(count[count + -((count - neurons) // devices) <= load].max())
    holds = np.zeros((devices, neurons), bool)
    holds[:, ranked[:k]] = True
    rest = np.sort(ranked[k:])
    holds[np.arange(len(rest)) % devices, rest] = True
    for own in holds:
        lacking = ranked[~own[ranked]]
        own[lacking[: load - own.sum()]] = True
    return holds
