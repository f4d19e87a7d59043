"""RobustDiCE's replicas for random neurons: what is importance worth?"""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods import PlacementRequest
from afpjax.neurons.methods.robustdice import robustdice

LABEL = "random replicas"
BY_THRESHOLD = True


def random(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """RobustDiCE's placement with every layer's neurons exchanged at random.

    Each layer has as many neurons of one copy, of two copies and so on, and every device as many
    neurons, as RobustDiCE's. The draw is a function of the seed and the layer's index.
    """
    draws = np.random.default_rng((request.seed, layer))
    return robustdice(request, layer)[:, draws.permutation(request.layer(layer).neurons)]
