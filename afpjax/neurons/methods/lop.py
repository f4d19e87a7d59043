"""Layer output partitioning: contiguous slices of neurons, no replicas.

DeeperThings (Stahl et al., International Journal of Parallel Programming 49, 2021), the paper's
robustness-unaware rival.
"""

import numpy as np
from jaxtyping import Bool

from afpjax.neurons.methods import PlacementRequest

LABEL = "LOP"


def lop(request: PlacementRequest, layer: int) -> Bool[np.ndarray, "D C"]:
    """Contiguous slices of neurons whose sizes differ by one at most, the larger ones first.

    Of a layer with fewer neurons than devices the last devices compute nothing.
    """
    return slices(request.devices, request.layer(layer).neurons)


def slices(devices: int, neurons: int) -> Bool[np.ndarray, "D C"]:
    """Which device computes which neurons, each of them once."""
    holds = np.zeros((devices, neurons), bool)
    for held, part in zip(holds, np.array_split(np.arange(neurons), devices), strict=True):
        held[part] = True
    return holds
