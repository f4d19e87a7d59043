"""RobustDiCE: similar neurons in clusters, clusters padded with replicas, dealt round-robin."""

import numpy as np
from jaxtyping import Bool, Int

from afpjax.neurons.cluster import clusters
from afpjax.neurons.methods.request import Request, by_layer
from afpjax.neurons.placement import Placement, deal


def robustdice(request: Request) -> Placement:
    """RobustDiCE's Algorithm 1: equal loads in every layer, replicas where clusters need them."""
    return by_layer(request, "robustdice", lambda place: held(request, place))


def held(request: Request, place: int) -> Bool[np.ndarray, "D C"]:
    """Which device computes which neurons of a layer."""
    return deal(groups(request, place), request.devices, request.layer(place).neurons)


def groups(request: Request, place: int) -> list[Int[np.ndarray, "_"]]:
    """A layer's clusters."""
    return clusters(request.points_of(place), request.thresholds[place])
