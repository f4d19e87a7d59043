"""SqueezeNet 1.0 and 1.1 against torchvision's structure in NumPy."""

# pyright: reportMissingImports=false
from functools import partial

import numpy as np
import pytest

from . import plain

# Where `features` has fires, and where pools.
VERSIONS = {
    "squeezenet1_0": ((3, 4, 5, 7, 8, 9, 10, 12), (2, 6, 11)),
    "squeezenet1_1": ((3, 4, 6, 7, 9, 10, 11, 12), (2, 5, 8)),
}


def fire(layers, name, x):
    x = plain.relu(layers.conv(f"{name}.squeeze", x))
    wide = layers.conv(f"{name}.expand3x3", x, padding=1)
    return plain.relu(np.concatenate([layers.conv(f"{name}.expand1x1", x), wide], 1))


def forward(version, layers, x):
    fires, pools = VERSIONS[version]
    x = plain.relu(layers.conv("features.0", x, stride=2))
    for index in range(2, 13):
        if index in pools:
            x = plain.max_pool(x, 3, 2, ceil=True)
        else:
            assert index in fires
            x = fire(layers, f"features.{index}", x)
    return plain.relu(layers.conv("classifier.1", x)).mean((2, 3))


# At these sizes the first pool's last window hangs over the edge.
@pytest.mark.parametrize(("version", "size"), [("squeezenet1_0", 49), ("squeezenet1_1", 45)])
def test_logits_are_those_of_torchvisions_structure(version, size):
    network = plain.drawn(version, image_size=size, width=0.1)
    plain.assert_same(network, partial(forward, version), size)
