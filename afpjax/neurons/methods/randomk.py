"""Any k neurons on every device, at RobustDiCE's memory: what is it worth to choose them?"""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods import PlacementRequest
from afpjax.neurons.methods.robustdice import robustdice
from afpjax.neurons.methods.topk import first_everywhere

LABEL = "random-k replicas"
BY_THRESHOLD = True


def randomk(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """`topk` with its neurons in a random order instead of that of importance.

    The draw is a function of the seed and the layer's index.
    """
    draws = np.random.default_rng((request.seed, layer))
    order = draws.permutation(request.layer(layer).neurons)
    load = int(robustdice(request, layer)[0].sum())
    return first_everywhere(order, request.devices, load)
