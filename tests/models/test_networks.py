"""What holds for every network of the zoo: layers, sizes, published counts, dropout."""

# pyright: reportMissingImports=false
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.inputs.errors import InputError
from afpjax.models import zoo
from afpjax.network.trace import outline, trace

from . import plain

LEAST = {
    "alexnet": 63,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "resnet18": 1,
    "resnet34": 1,
    "vgg16_bn": 32,
    "convnext_tiny": 32,
    "mobilenet_v2": 1,
}
DROPOUTS = {"alexnet": 2, "squeezenet1_0": 1, "squeezenet1_1": 1, "vgg16_bn": 2, "mobilenet_v2": 1}

IN_CI = ("alexnet", "mobilenet_v2")  # plain; joined, with groups of one


@pytest.fixture(
    scope="module",
    params=[n if n in IN_CI else pytest.param(n, marks=pytest.mark.slow) for n in zoo.NETWORKS],
)
def traced(request):
    """A narrow network at its least size: (name, size, apply_fn, params, its trace)."""
    name, size = request.param, LEAST[request.param]
    apply_fn, params, _ = plain.drawn(name, image_size=size, width=0.05)
    network = trace(apply_fn, params, jnp.ones((1, size, size, 3)))
    return name, size, jax.jit(apply_fn, compiler_options=plain.QUICK), params, network


def kernels_of(params):
    """Kernels in PyTorch's layout, by the name of their layer."""
    named = zoo.state_dict(params).items()
    return {n.removesuffix(".weight"): a for n, a in named if n.endswith("weight") and a.ndim > 1}


def test_it_traces_to_one_layer_per_kernel_of_its_sizes_with_the_same_logits(traced):
    _, size, apply_fn, params, network = traced
    kernels = kernels_of(params)
    assert sorted(network.graph.names) == sorted(kernels)
    for layer in network.layers:
        outputs, inputs, *window = kernels[layer.name].shape
        assert layer.neurons == outputs and layer.weights == kernels[layer.name].size
        assert layer.input_channels == inputs and layer.window == tuple(window)
        # Every number that comes out is a sum over the inputs that one neuron reads.
        assert layer.macs == math.prod(layer.output_shape) * inputs * math.prod(window)
        assert layer.groups == (layer.input_shape[-1] // inputs if window else 1)
    images = jnp.asarray(plain.images(size).transpose(0, 2, 3, 1))
    expected = apply_fn(params, images)
    assert expected.shape == (2, 5) and np.ptp(expected) > 0.01
    np.testing.assert_allclose(network(images), expected, atol=1e-5 * float(np.ptp(expected)))


def test_the_least_image_is_read_and_a_smaller_one_refused_in_one_line(traced):
    name, size, _, params, network = traced
    assert all(math.prod(layer.output_shape) > 0 for layer in network.layers)
    if size == 1:
        return
    smaller = zoo.apply_fn_of(name, classes=5, image_size=size - 1, width=0.05)
    message = rf"`{name}` reads images of at least {size} x {size} pixels, these are {size - 1} x"
    with pytest.raises(InputError, match=message) as caught:
        trace(smaller, params, jnp.ones((1, size - 1, size - 1, 3)))
    assert "\n" not in str(caught.value)


@pytest.mark.in_ci("alexnet-2")
@pytest.mark.parametrize(("name", "dropouts"), DROPOUTS.items())
def test_a_new_networks_dropouts_are_torchvisions_and_have_random_state_to_train_with(
    name, dropouts
):
    model = zoo.create(name, classes=3, width=0.03, seed=0)
    found = [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.Dropout)]
    assert [m.rate for m in found] == [0.2 if name == "mobilenet_v2" else 0.5] * dropouts
    hidden = jnp.ones((1, 400))
    model.train()
    draws = [m(hidden) for m in found for _ in range(2)]
    assert len({np.asarray(draw).tobytes() for draw in draws}) == 2 * dropouts
    model.eval()
    assert all((m(hidden) == hidden).all() for m in found)


#: torchvision's page of models: parameters, and billions of multiply-accumulates at 224 pixels.
#: Layers are the convolutions and dense layers of the papers' tables.
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


@pytest.mark.in_ci("alexnet", "resnet18")
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_layers_and_work_are_the_published_ones(name):
    parameters, billions, count = PUBLISHED[name]
    model = zoo._abstract(name, 1000, 1.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == parameters
    apply_fn, shapes = zoo.abstract(name, classes=1000, image_size=224, width=1.0)
    sample = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    layers = outline(apply_fn, shapes, sample).graph.layers
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


def test_a_preset_is_how_torchvision_reads_imagenet():
    assert set(zoo.PRESETS) == set(zoo.NETWORKS)
    for name in zoo.NETWORKS:
        preset = zoo.preset(name)
        assert preset is not None
        assert preset.resize == (236 if name == "convnext_tiny" else 256) and preset.crop == 224
        assert preset.mean == (0.485, 0.456, 0.406) and preset.std == (0.229, 0.224, 0.225)
    assert zoo.preset("net.onnx") is None
