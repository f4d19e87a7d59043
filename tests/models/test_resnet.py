"""ResNet: torchvision's names, shapes and answers."""

# pyright: reportMissingImports=false
import importlib.util
import json
from pathlib import Path

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


def test_the_work_at_224_pixels_is_the_published_one():
    apply_fn = zoo.apply_fn_of("resnet18", classes=1000, image_size=224)
    params, _ = shapes_of(resnet18, classes=1000, width=1.0)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    layers = trace(apply_fn, params, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)).layers
    assert sum(layer.macs for layer in layers) == pytest.approx(1.81e9, rel=0.01)


def reference(shared_data: Path):
    """The pack's own generator of weights and images, and torchvision's shapes and logits."""
    folder = shared_data / "torchvision"
    spec = importlib.util.spec_from_file_location("reference", folder / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((folder / "shapes.json").read_text())["resnet18"]
    return module, shapes, np.load(folder / "logits.npz")


def test_names_and_shapes_are_torchvisions(shared_data):
    _, shapes, _ = reference(shared_data)
    params, _ = shapes_of(resnet18, classes=1000, width=1.0)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), params)
    ours = {name: list(array.shape) for name, array in zoo.state_dict(zeros).items()}
    assert ours == {n: s for n, s in shapes.items() if not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize("size", [96, 224])
def test_logits_are_torchvisions(shared_data, tmp_path, size):
    module, shapes, logits = reference(shared_data)
    np.savez(tmp_path / "weights.npz", **module.weights(shapes))
    apply_fn, params = zoo.load("resnet18", tmp_path / "weights.npz", classes=1000, image_size=size)
    images = jnp.asarray(module.images(size).transpose(0, 2, 3, 1))
    expected = logits[f"resnet18_{size}"]
    got = jax.jit(apply_fn)(params, images)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
