"""The zoo against torchvision's own names, shapes and answers (the shared data pack)."""

# pyright: reportMissingImports=false
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.models import zoo
from afpjax.models.state_dict import from_state_dict, state_dict

from .plain import QUICK

NETWORKS = ("alexnet", "squeezenet1_0", "squeezenet1_1", "resnet18", "vgg16_bn", "convnext_tiny")


@pytest.fixture(scope="module")
def reference(shared_data):
    """The pack's own generator of weights and images, and torchvision's shapes and logits."""
    folder = shared_data / "torchvision"
    assert set(json.loads((folder / "shapes.json").read_text())) == set(NETWORKS)
    spec = importlib.util.spec_from_file_location("reference", folder / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, json.loads((folder / "shapes.json").read_text()), np.load(folder / "logits.npz")


@pytest.mark.parametrize("name", NETWORKS)
def test_names_shapes_and_counts_are_torchvisions(reference, name):
    wanted = {
        n: tuple(s) for n, s in reference[1][name].items() if not n.endswith("num_batches_tracked")
    }
    model = zoo._abstract(name, 1000, 1.0)
    zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), zoo.params_of(model)
    )
    assert {n: array.shape for n, array in state_dict(zeros).items()} == wanted
    trained = [s for n, s in wanted.items() if not n.endswith(("running_mean", "running_var"))]
    held = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert held == sum(map(np.prod, trained))


@pytest.mark.in_ci("squeezenet1_1-96", "resnet18-96")
@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_torchvisions(reference, name, size):
    module, shapes, logits = reference
    empty = zoo.params_of(zoo._abstract(name, 1000, 1.0))
    params = from_state_dict(module.weights(shapes[name]), empty, name, classes=1000)
    apply_fn = zoo.apply_fn_of(name, classes=1000, image_size=size)
    apply_fn = jax.jit(apply_fn, compiler_options=QUICK)
    got = apply_fn(params, jnp.asarray(module.images(size).transpose(0, 2, 3, 1)))
    expected = logits[f"{name}_{size}"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
