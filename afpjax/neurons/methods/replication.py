"""Full replication (DMR, TMR, QMR): every neuron on every device."""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods import PlacementRequest


def replication(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """Every neuron on every device: nothing is lost as long as one of them lives."""
    return np.ones((request.devices, request.layer(layer).neurons), bool)
