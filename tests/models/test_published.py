"""Parameters and multiply-accumulates at 224 pixels against the published counts."""

# pyright: reportMissingImports=false
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.models import zoo
from afpjax.network.trace import trace

#: torchvision's page of models: parameters, and billions of multiply-accumulates. Layers are the
#: convolutions and dense layers of the papers' tables.
PUBLISHED = {
    "alexnet": (61_100_840, 0.714, 8),
    "squeezenet1_0": (1_248_424, 0.82, 26),
    "squeezenet1_1": (1_235_496, 0.349, 26),
    "resnet18": (11_689_512, 1.81, 21),
    "resnet34": (21_797_672, 3.66, 37),
    "vgg16_bn": (138_365_992, 15.5, 16),
    "convnext_tiny": (28_589_128, 4.46, 59),
    "mobilenet_v2": (3_504_872, 0.300, 53),
}


@pytest.mark.in_ci("alexnet", "squeezenet1_1", "resnet18")
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_layers_and_work_are_the_published_ones(name):
    parameters, billions, count = PUBLISHED[name]
    model = zoo._abstract(name, 1000, 1.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == parameters
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), zoo.params_of(model))
    apply_fn = zoo.apply_fn_of(name, classes=1000, image_size=224)
    layers = trace(apply_fn, params, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)).layers
    assert len(layers) == count
    assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(billions, rel=0.01)
    # Norms that fold leave their shift as the layer's bias; layer norms stay beside the layers.
    held = sum(layer.weights + layer.biases for layer in layers)
    assert held == pytest.approx(parameters, rel=0.01) and held <= parameters


# MobileNetV2 has a rule for its widths, and a test, of its own.
@pytest.mark.in_ci("alexnet", "resnet18")
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "mobilenet_v2"])
def test_a_width_scales_every_hidden_layer_and_leaves_the_classes(name):
    def outputs(width):
        arrays = zoo.params_of(zoo._abstract(name, 7, width))
        paths = jax.tree_util.tree_leaves_with_path(arrays)
        return {jax.tree_util.keystr(p): a.shape[-1] for p, a in paths if p[-1].key == "kernel"}

    full, narrow, thin = outputs(1.0), outputs(0.25), outputs(1e-4)
    (head,) = [path for path, channels in full.items() if channels == 7]
    assert narrow.pop(head) == thin.pop(head) == full.pop(head) == 7
    assert {path: channels / 4 for path, channels in full.items()} == narrow
    # At least one channel each; a ConvNeXt block's inner layer has four times its outer ones'.
    assert set(thin.values()) == ({1, 4} if name == "convnext_tiny" else {1})
