"""ConvNeXt-Tiny against torchvision's structure in NumPy."""

# pyright: reportMissingImports=false
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afpjax.models.convnext import Block
from afpjax.network.trace import trace

from . import plain

DEPTHS = {1: 3, 3: 3, 5: 9, 7: 3}


def block(layers, name, x):
    shortcut = x
    x = layers.conv(f"{name}.block.0", x, padding=3)
    x = layers.layer_norm(f"{name}.block.2", x).transpose(0, 2, 3, 1)
    x = plain.gelu(layers.linear(f"{name}.block.3", x))
    x = layers.linear(f"{name}.block.5", x).transpose(0, 3, 1, 2)
    return shortcut + layers(f"{name}.layer_scale") * x


def forward(layers, x):
    x = layers.conv("features.0.0", x, stride=4)
    x = layers.layer_norm("features.0.1", x)
    for stage, depth in DEPTHS.items():
        if stage > 1:
            x = layers.layer_norm(f"features.{stage - 1}.0", x)
            x = layers.conv(f"features.{stage - 1}.1", x, stride=2)
        for number in range(depth):
            x = block(layers, f"features.{stage}.{number}", x)
    return layers.linear("classifier.2", layers.layer_norm("classifier.0", x.mean((2, 3))))


def test_logits_are_those_of_torchvisions_structure():
    plain.assert_same(plain.drawn("convnext_tiny", image_size=47, width=0.1), forward, 47)


def test_a_blocks_scale_folds_into_the_dense_layer_before_it():
    apply_fn, params, _ = plain.drawn("convnext_tiny", image_size=32, width=0.05)
    network = trace(apply_fn, params, jnp.ones((1, 32, 32, 3)))
    block = params["features"][5][4]
    folded, dense = network.parameters.layers["features.5.4.block.5"], block["block"][5]
    assert folded.bias is not None
    factor = block["layer_scale"].reshape(-1)
    np.testing.assert_allclose(folded.kernel, dense["kernel"] * factor[None, :], rtol=1e-6)
    np.testing.assert_allclose(folded.bias, dense["bias"] * factor, rtol=1e-6)


def test_a_new_block_hardly_changes_its_images():
    images = jax.random.normal(jax.random.key(0), (1, 5, 5, 8))
    made = jax.jit(lambda x: Block(8, rngs=nnx.Rngs(0))(x))(images)
    assert 0 < float(jnp.abs(made - images).max()) < 1e-5
