"""The zoo's networks against torchvision's structures in NumPy, and rules of single families."""

# pyright: reportMissingImports=false
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.models import zoo
from afpjax.models.convnext import Block
from afpjax.network.trace import trace

from . import plain


def vgg16_bn(layers, x):
    for index in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40):
        x = layers.conv(f"features.{index}", x, padding=1)
        x = plain.relu(layers.batch_norm(f"features.{index + 1}", x))
        x = plain.max_pool(x, 2, 2) if index in (3, 10, 20, 30, 40) else x
    x = plain.average_to(x, 7).reshape(len(x), -1)
    x = plain.relu(layers.linear("classifier.0", x))
    x = plain.relu(layers.linear("classifier.3", x))
    return layers.linear("classifier.6", x)


def alexnet(layers, x):
    how = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}  # stride, padding
    for index, (stride, padding) in how.items():
        x = plain.relu(layers.conv(f"features.{index}", x, stride=stride, padding=padding))
        x = plain.max_pool(x, 3, 2) if index in (0, 3, 10) else x
    x = plain.average_to(x, 6).reshape(len(x), -1)
    x = plain.relu(layers.linear("classifier.1", x))
    x = plain.relu(layers.linear("classifier.4", x))
    return layers.linear("classifier.6", x)


def fire(layers, name, x):
    x = plain.relu(layers.conv(f"{name}.squeeze", x))
    wide = layers.conv(f"{name}.expand3x3", x, padding=1)
    return plain.relu(np.concatenate([layers.conv(f"{name}.expand1x1", x), wide], 1))


def squeezenet(layers, x, pools):
    x = plain.relu(layers.conv("features.0", x, stride=2))
    for index in range(2, 13):
        if index in pools:
            x = plain.max_pool(x, 3, 2, ceil=True)
        else:
            x = fire(layers, f"features.{index}", x)
    return plain.relu(layers.conv("classifier.1", x)).mean((2, 3))


def convnext_block(layers, name, x):
    shortcut = x
    x = layers.conv(f"{name}.block.0", x, padding=3)
    x = layers.layer_norm(f"{name}.block.2", x).transpose(0, 2, 3, 1)
    x = plain.gelu(layers.linear(f"{name}.block.3", x))
    x = layers.linear(f"{name}.block.5", x).transpose(0, 3, 1, 2)
    return shortcut + layers(f"{name}.layer_scale") * x


def convnext_tiny(layers, x):
    x = layers.conv("features.0.0", x, stride=4)
    x = layers.layer_norm("features.0.1", x)
    for stage, depth in {1: 3, 3: 3, 5: 9, 7: 3}.items():
        if stage > 1:
            x = layers.layer_norm(f"features.{stage - 1}.0", x)
            x = layers.conv(f"features.{stage - 1}.1", x, stride=2)
        for number in range(depth):
            x = convnext_block(layers, f"features.{stage}.{number}", x)
    return layers.linear("classifier.2", layers.layer_norm("classifier.0", x.mean((2, 3))))


def unit(layers, name, x, *, stride=1, padding=0):
    x = layers.conv(f"{name}.0", x, stride=stride, padding=padding, bias=False)
    return np.clip(layers.batch_norm(f"{name}.1", x), 0, 6)


def mobile_block(layers, name, x, *, stride, expands):
    shortcut, parts = x, iter(range(4))
    if expands:
        x = unit(layers, f"{name}.{next(parts)}", x)
    x = unit(layers, f"{name}.{next(parts)}", x, stride=stride, padding=1)
    x = layers.conv(f"{name}.{next(parts)}", x, bias=False)
    x = layers.batch_norm(f"{name}.{next(parts)}", x)
    return shortcut + x if stride == 1 and x.shape == shortcut.shape else x


def mobilenet_v2(layers, x):
    x = unit(layers, "features.0", x, stride=2, padding=1)
    # `features` 1 to 17: the first block alone does not expand.
    for index, stride in enumerate((1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1), 1):
        x = mobile_block(layers, f"features.{index}.conv", x, stride=stride, expands=index > 1)
    x = unit(layers, "features.18", x)
    return layers.linear("classifier.1", x.mean((2, 3)))


#: The structure, pixels a side and width. Maps are smaller and larger than what the dense layers of
#: AlexNet (6) and VGG (7) read; SqueezeNets' first pool hangs over the edge.
STRUCTURES = {
    "vgg16_bn": (vgg16_bn, 33, 0.04),
    "alexnet": (alexnet, 290, 0.05),
    "squeezenet1_0": (lambda layers, x: squeezenet(layers, x, (2, 6, 11)), 49, 0.1),
    "squeezenet1_1": (lambda layers, x: squeezenet(layers, x, (2, 5, 8)), 45, 0.1),
    "convnext_tiny": (convnext_tiny, 47, 0.1),
    "mobilenet_v2": (mobilenet_v2, 45, 0.35),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_logits_are_those_of_torchvisions_structure(name):
    forward, size, width = STRUCTURES[name]
    plain.assert_same(plain.drawn(name, image_size=size, width=width), forward, size)


def test_a_new_convnext_block_hardly_changes_its_images_and_its_scale_folds_into_a_dense_layer():
    block, scale = Block(8, rngs=nnx.Rngs(0)), np.linspace(0.5, 2, 8, dtype=np.float32)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 5, 8)), jnp.float32)
    made = jax.jit(lambda images: block(images))(images)
    assert 0 < float(jnp.abs(made - images).max()) < 1e-5
    block.layer_scale = nnx.Param(jnp.asarray(scale).reshape(8, 1, 1))
    definition, params = nnx.split(block)

    def apply_fn(params, images):
        return nnx.merge(definition, params)(images).reshape(images.shape[0], -1)

    dense = zoo.params_of(block)["block"][5]
    folded = trace(apply_fn, params, images).parameters.layers["block.5"]
    assert folded.bias is not None
    np.testing.assert_allclose(folded.kernel, dense["kernel"] * scale[None, :], rtol=1e-6)
    np.testing.assert_allclose(folded.bias, dense["bias"] * scale, rtol=1e-6)


def outputs(width):
    """Channels that MobileNet's first convolution, each block and the last convolution give."""
    features = zoo.params_of(zoo._abstract("mobilenet_v2", 3, width))["features"]
    last = [max(features[i]["conv"]) - 1 for i in range(1, 18)]
    blocks = [features[i]["conv"][at]["kernel"].shape[3] for i, at in enumerate(last, 1)]
    return [features[0][0]["kernel"].shape[3], *blocks, features[18][0]["kernel"].shape[3]]


def test_mobilenets_channels_are_multiples_of_eight_that_lose_at_most_a_tenth():
    stages = (1, 2, 3, 4, 3, 3, 1)
    halved = np.repeat([8, 16, 16, 32, 48, 80, 160], stages)  # 24 / 2 = 12 is not cut to 8
    assert outputs(0.5) == [16, *halved, 1280]

    assert outputs(0.01) == [8] * 18 + [1280]


# Millions in the kernels and the last bias, from TensorFlow's list of MobileNetV2 checkpoints;
# they have one class more.
@pytest.mark.in_ci("1.4-6.06")
@pytest.mark.parametrize(
    ("width", "millions"), [(0.35, 1.66), (0.5, 1.95), (0.75, 2.61), (1.0, 3.47), (1.4, 6.06)]
)
def test_mobilenets_parameters_at_published_widths_are_the_published_ones(width, millions):
    params = zoo.params_of(zoo._abstract("mobilenet_v2", 1000, width))
    kernels = [a.size for a in jax.tree.leaves(params) if a.ndim > 1]
    assert (sum(kernels) + 1000) / 1e6 == pytest.approx(millions, abs=0.006)
