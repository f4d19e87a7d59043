"""MobileNetV2 against torchvision's structure in NumPy."""

# pyright: reportMissingImports=false
import jax
import numpy as np
import pytest

from afpjax.models import zoo

from . import plain

# `features` 1 to 17: strides, and the first block alone does not expand.
STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)


def unit(layers, name, x, *, stride=1, padding=0):
    x = layers.conv(f"{name}.0", x, stride=stride, padding=padding, bias=False)
    return np.clip(layers.batch_norm(f"{name}.1", x), 0, 6)


def block(layers, name, x, *, stride, expands):
    shortcut = x
    parts = iter(range(4))
    if expands:
        x = unit(layers, f"{name}.{next(parts)}", x)
    x = unit(layers, f"{name}.{next(parts)}", x, stride=stride, padding=1)
    x = layers.conv(f"{name}.{next(parts)}", x, bias=False)
    x = layers.batch_norm(f"{name}.{next(parts)}", x)
    return shortcut + x if stride == 1 and x.shape == shortcut.shape else x


def forward(layers, x):
    x = unit(layers, "features.0", x, stride=2, padding=1)
    for index, stride in enumerate(STRIDES, 1):
        x = block(layers, f"features.{index}.conv", x, stride=stride, expands=index > 1)
    x = unit(layers, "features.18", x)
    return layers.linear("classifier.1", x.mean((2, 3)))


def test_logits_are_those_of_torchvisions_structure():
    plain.assert_same(plain.drawn("mobilenet_v2", image_size=45, width=0.35), forward, 45)


def outputs(width):
    """Channels that the first convolution, each block and the last convolution give."""
    features = zoo.params_of(zoo._abstract("mobilenet_v2", 3, width))["features"]
    last = [max(features[i]["conv"]) - 1 for i in range(1, 18)]
    blocks = [features[i]["conv"][at]["kernel"].shape[3] for i, at in enumerate(last, 1)]
    return [features[0][0]["kernel"].shape[3], *blocks, features[18][0]["kernel"].shape[3]]


def test_channels_are_multiples_of_eight_that_lose_at_most_a_tenth():
    stages = (1, 2, 3, 4, 3, 3, 1)
    halved = np.repeat([8, 16, 16, 32, 48, 80, 160], stages)  # 24 / 2 = 12 is not cut to 8
    assert outputs(0.5) == [16, *halved, 1280]
    larger = np.repeat([24, 32, 48, 88, 136, 224, 448], stages)  # 96 · 1.4 = 134.4, 64 · 1.4 = 89.6
    assert outputs(1.4) == [48, *larger, 1792]
    assert outputs(0.01) == [8] * 18 + [1280]


# Millions in the kernels and the last bias, from TensorFlow's list of MobileNetV2 checkpoints;
# they have one class more.
@pytest.mark.parametrize(
    ("width", "millions"), [(0.35, 1.66), (0.5, 1.95), (0.75, 2.61), (1.0, 3.47), (1.4, 6.06)]
)
def test_parameters_at_every_published_width_are_the_published_ones(width, millions):
    params = zoo.params_of(zoo._abstract("mobilenet_v2", 1000, width))
    kernels = [a.size for a in jax.tree.leaves(params) if a.ndim > 1]
    assert (sum(kernels) + 1000) / 1e6 == pytest.approx(millions, abs=0.006)
