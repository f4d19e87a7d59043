"""Any k neurons on every device, at RobustDiCE's memory: what is it worth to choose them?"""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods.request import Request, by_layer
from afpjax.neurons.methods.robustdice import held
from afpjax.neurons.methods.topk import placed
from afpjax.neurons.placement import Placement


def randomk(request: Request) -> Placement:
    """`topk` with its neurons in a random order instead of that of importance.

    The draw is a function of the seed and the layer's place.
    """

    def hold(place: int) -> Bool[np.ndarray, "D _"]:
        order = np.random.default_rng((request.seed, place)).permutation(
            request.layer(place).neurons
        )
        return placed(order, request.devices, int(held(request, place)[0].sum()))

    return by_layer(request, "randomk", hold)
