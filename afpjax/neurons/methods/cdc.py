"""Coded distributed computing: one device more computes sums of the others' neurons.

Hadidi et al., Creating Robust Deep Neural Networks with Coded Distributed Computing for IoT, 2023.
"""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods import PlacementRequest
from afpjax.neurons.methods.lop import slices

LABEL = "CDC"
FEWEST_DEVICES = 3  # one is the spare; the sum of one worker's neurons would be a replica
SPARE = True


def cdc(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """Slices as `lop` has them on the first D-1 devices, and on the last the sums of i-th neurons.

    One lost worker's outputs are the sums less what the others computed; two are not recovered.
    """
    workers = slices(request.devices - 1, request.layer(layer).neurons)
    return np.pad(workers, ((0, 1), (0, 0)))
