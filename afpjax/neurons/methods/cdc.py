"""Coded distributed computing: one device more computes sums of the others' neurons.

Hadidi et al., Creating Robust Deep Neural Networks with Coded Distributed Computing for IoT, 2023.
"""

import numpy as np
from jaxtyping import Bool

from afpjax.inputs.errors import InputError
from afpjax.neurons.methods.lop import slices
from afpjax.neurons.methods.request import Request, by_layer
from afpjax.neurons.placement import Placement

FEWEST = 3  # devices: the sum of one worker's neurons would be a replica


def cdc(request: Request) -> Placement:
    """Slices as `lop` has them on the first D-1 devices, and on the last the sums of i-th neurons.

    One lost worker's outputs are the sums less what the others computed; two are not recovered.
    Raises `InputError` for fewer than 3 devices.
    """
    if request.devices < FEWEST:
        raise InputError(
            f"distribute.devices: {request.devices} with method cdc, one of them the spare; "
            f"give {FEWEST} or more"
        )
    workers = request.devices - 1

    def hold(place: int) -> Bool[np.ndarray, "D _"]:
        return np.pad(slices(workers, request.layer(place).neurons), ((0, 1), (0, 0)))

    return by_layer(request, "cdc", hold, spare=workers)
