"""ResNet: torchvision's names, shapes and answers."""

# pyright: reportMissingImports=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.models import zoo
from afpjax.models.resnet import resnet18, resnet34
from afpjax.network.trace import trace


def shapes_of(build, **size):
    model = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0), **size))
    return nnx.to_pure_dict(nnx.state(model)), nnx.state(model, nnx.Param)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.in_ci("resnet18-11689512")
@pytest.mark.parametrize(("build", "published"), [(resnet18, 11_689_512), (resnet34, 21_797_672)])
def test_parameter_counts_are_torchvisions(build, published):
    assert count(shapes_of(build, classes=1000, width=1.0)[1]) == published


def test_width_scales_every_stage():
    params, _ = shapes_of(resnet18, classes=7, width=0.25)
    assert params["conv1"]["kernel"].shape == (7, 7, 3, 16)
    assert [params[f"layer{i}"][1]["conv2"]["kernel"].shape[3] for i in range(1, 5)] == [
        16,
        32,
        64,
        128,
    ]
    assert params["fc"]["kernel"].shape == (128, 7)


@pytest.mark.in_ci("33")
@pytest.mark.parametrize("size", [1, 33])
def test_any_image_size_goes_through_and_traces_to_one_layer_per_kernel(size):
    apply_fn, params = zoo.load("resnet18", classes=5, image_size=size, width=0.05)
    apply_fn = jax.jit(apply_fn)
    network = trace(apply_fn, params, jnp.ones((1, size, size, 3)))
    kernels = [n.removesuffix(".weight") for n, a in zoo.state_dict(params).items() if a.ndim > 1]
    assert sorted(network.graph.names) == sorted(kernels)
    images = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    expected = apply_fn(params, images)
    assert expected.shape == (2, 5)
    np.testing.assert_allclose(network(images), expected, atol=1e-5 * float(np.ptp(expected)))
