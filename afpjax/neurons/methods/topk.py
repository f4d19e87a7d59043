"""The most important neurons on every device, at RobustDiCE's memory: is clustering worth it?"""

import numpy as np
from jaxtyping import Bool, Int

from afpjax.neurons.methods.request import Request, by_layer
from afpjax.neurons.methods.robustdice import held
from afpjax.neurons.placement import Placement


def topk(request: Request) -> Placement:
    """The k most important neurons of a layer on every device, the others dealt round-robin.

    Importance is the sum of the scores. Every device computes as many neurons as RobustDiCE's: k is
    the largest that leaves room for the others, and who still has room takes the most important
    neuron that it lacks.
    """

    def hold(place: int) -> Bool[np.ndarray, "D _"]:
        # Equal scores in the order of neurons, on every machine.
        ranked = np.argsort(-request.points_of(place).sum(axis=1), kind="stable")
        return placed(ranked, request.devices, int(held(request, place)[0].sum()))

    return by_layer(request, "topk", hold)


def placed(ranked: Int[np.ndarray, "C"], devices: int, load: int) -> Bool[np.ndarray, "D C"]:
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
