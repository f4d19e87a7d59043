"""RobustDiCE's replicas for random neurons: what is importance worth?"""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods.request import Request, by_layer
from afpjax.neurons.methods.robustdice import held
from afpjax.neurons.placement import Placement


def random(request: Request) -> Placement:
    """RobustDiCE's placement with every layer's neurons exchanged at random.

    Each layer has as many neurons of one copy, of two copies and so on, and every device as many
    neurons, as RobustDiCE's. The draw is a function of the seed and the layer's place.
    """

    def hold(place: int) -> Bool[np.ndarray, "D _"]:
        draws = np.random.default_rng((request.seed, place))
        return held(request, place)[:, draws.permutation(request.layer(place).neurons)]

    return by_layer(request, "random", hold)
