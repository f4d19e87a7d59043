"""AlexNet against torchvision's structure in NumPy."""

# pyright: reportMissingImports=false
import pytest

from . import plain

CONVOLUTIONS = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}  # stride, padding
POOLS = (0, 3, 10)  # behind these


def forward(layers, x):
    for index, (stride, padding) in CONVOLUTIONS.items():
        x = plain.relu(layers.conv(f"features.{index}", x, stride=stride, padding=padding))
        x = plain.max_pool(x, 3, 2) if index in POOLS else x
    x = plain.average_to(x, 6).reshape(len(x), -1)
    x = plain.relu(layers.linear("classifier.1", x))
    x = plain.relu(layers.linear("classifier.4", x))
    return layers.linear("classifier.6", x)


# The last map has 1, 5 and 8 pixels a side; the dense layers read 6.
@pytest.mark.parametrize("size", [64, 191, 290])
def test_logits_are_those_of_torchvisions_structure(size):
    network = plain.drawn("alexnet", image_size=size, width=0.05)
    plain.assert_same(network, forward, size)
