"""What holds for every network of the zoo: layers, arithmetic, sizes, dropout."""

# pyright: reportMissingImports=false
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax import QFormat, quantize
from afpjax.inputs.errors import InputError
from afpjax.models import zoo
from afpjax.network.trace import trace

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

IN_CI = ("alexnet", "resnet18", "mobilenet_v2")  # plain, joined, groups of one


@pytest.fixture(
    scope="module",
    params=[n if n in IN_CI else pytest.param(n, marks=pytest.mark.slow) for n in zoo.NETWORKS],
)
def traced(request):
    """A narrow network at its least size: (name, size, apply_fn, params, its trace)."""
    name, size = request.param, LEAST[request.param]
    apply_fn, params, _ = plain.drawn(name, image_size=size, width=0.05)
    apply_fn = jax.jit(apply_fn)
    network = trace(apply_fn, params, jnp.ones((1, size, size, 3)))
    return name, size, apply_fn, params, network


def kernels_of(params):
    """Kernels in PyTorch's layout, by the name of their layer."""
    named = zoo.state_dict(params).items()
    return {n.removesuffix(".weight"): a for n, a in named if n.endswith("weight") and a.ndim > 1}


def test_it_traces_to_one_layer_per_kernel_with_the_same_logits(traced):
    _, size, apply_fn, params, network = traced
    assert sorted(network.graph.names) == sorted(kernels_of(params))
    images = jnp.asarray(plain.images(size).transpose(0, 2, 3, 1))
    expected = apply_fn(params, images)
    assert expected.shape == (2, 5) and np.ptp(expected) > 0.01
    np.testing.assert_allclose(network(images), expected, atol=1e-5 * float(np.ptp(expected)))


def test_layers_have_their_kernels_sizes_grouped_or_not(traced):
    *_, params, network = traced
    kernels = kernels_of(params)
    for layer in network.layers:
        outputs, inputs, *window = kernels[layer.name].shape
        assert layer.neurons == outputs and layer.weights == kernels[layer.name].size
        assert layer.input_channels == inputs and layer.window == tuple(window)
        # Every number that comes out is a sum over the inputs that one neuron reads.
        assert layer.macs == math.prod(layer.output_shape) * inputs * math.prod(window)
        assert layer.groups == (layer.input_shape[-1] // inputs if window else 1)


def test_it_runs_in_fixed_point(traced):
    _, size, apply_fn, params, network = traced
    images = jnp.asarray(plain.images(size).transpose(0, 2, 3, 1))
    expected, got = apply_fn(params, images), quantize(network, QFormat(16, 8))(images)
    assert got.shape == expected.shape and (np.asarray(got) != np.asarray(expected)).any()
    # Steps of 2^-8 for weights of about 0.1 to 1, through up to 59 layers.
    np.testing.assert_allclose(got, expected, atol=0.1 * float(np.abs(expected).max()))


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


@pytest.mark.in_ci("squeezenet1_1-1")
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


def test_a_preset_is_how_torchvision_reads_imagenet():
    assert set(zoo.PRESETS) == set(zoo.NETWORKS)
    for name in zoo.NETWORKS:
        preset = zoo.preset(name)
        assert preset is not None
        assert preset.resize == (236 if name == "convnext_tiny" else 256) and preset.crop == 224
        assert preset.mean == (0.485, 0.456, 0.406) and preset.std == (0.229, 0.224, 0.225)
    assert zoo.preset("net.onnx") is None
