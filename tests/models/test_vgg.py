"""VGG16 with batch norm against torchvision's structure in NumPy."""

# pyright: reportMissingImports=false
import pytest

from . import plain

CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)  # batch norm is the next index
POOLS = (3, 10, 20, 30, 40)  # behind these


def forward(layers, x):
    for index in CONVOLUTIONS:
        x = layers.conv(f"features.{index}", x, padding=1)
        x = plain.relu(layers.batch_norm(f"features.{index + 1}", x))
        x = plain.max_pool(x, 2, 2) if index in POOLS else x
    x = plain.average_to(x, 7).reshape(len(x), -1)
    x = plain.relu(layers.linear("classifier.0", x))
    x = plain.relu(layers.linear("classifier.3", x))
    return layers.linear("classifier.6", x)


@pytest.mark.parametrize("size", [33, 70])
def test_logits_are_those_of_torchvisions_structure(size):
    plain.assert_same(plain.drawn("vgg16_bn", image_size=size, width=0.04), forward, size)
