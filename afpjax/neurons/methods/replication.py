"""Full replication (DMR, TMR, QMR): every neuron on every device."""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods.request import Request, by_layer
from afpjax.neurons.placement import Placement


def replication(request: Request) -> Placement:
    """Every neuron on every device: nothing is lost as long as one of them lives."""

    def hold(place: int) -> Bool[np.ndarray, "D _"]:
        return np.ones((request.devices, request.layer(place).neurons), bool)

    return by_layer(request, "replication", hold)
