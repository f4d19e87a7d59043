"""The interpreter: where hooks stand, what they are given, and what passes by them untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.network.interpreter import affine, execute
from afpjax.network.trace import trace


def apply_fn(params, images):
    first = jax.nn.relu(images @ params["first"] + params["bias"])
    second = first @ params["second"]
    return (first + second) @ params["third"] + first[:, :2]


@pytest.fixture
def network(normal):
    shapes = dict(first=(3, 4), bias=(1, 4), second=(4, 4), third=(4, 2))
    return trace(apply_fn, {n: normal(*s) for n, s in shapes.items()}, normal(1, 3))


@pytest.mark.parametrize("struck", ["first", "second", "third"])
def test_a_hook_changes_only_what_its_layer_makes(struck, network, normal):
    """Against the function written out, with one layer's own read copy replaced by zeros."""
    image, layers = np.asarray(normal(1, 3)), network.parameters.layers
    kernels = {name: np.asarray(layer.kernel) for name, layer in layers.items()}
    read = {name: 0.0 if name == struck else 1.0 for name in kernels}
    first = np.maximum(read["first"] * image @ kernels["first"] + np.asarray(normal(1, 4)), 0)
    second = read["second"] * first @ kernels["second"]
    expected = read["third"] * (first + second) @ kernels["third"] + first[:, :2]

    def hook(call, image, parameters):
        return affine(call, image * read[call.layer.name], parameters)

    logits = execute(network.program, network.parameters, jnp.asarray(image[0]), hook)
    np.testing.assert_allclose(logits, expected[0], rtol=1e-5, atol=1e-6)


def test_control_flow_between_layers_ends_for_every_image_by_itself(normal):
    def halved(hidden):
        return jax.lax.while_loop(lambda h: (h**2).sum() > 1, lambda h: h / 2, hidden)

    def looping(params, images):
        return jax.vmap(halved)(images @ params["w"]) @ params["v"]

    params, images = {"w": normal(3, 4) * 10, "v": normal(4, 2)}, normal(5, 3)
    network = trace(looping, params, normal(1, 3))
    one_by_one = [halved(image @ params["w"]) @ params["v"] for image in images]
    np.testing.assert_allclose(network(images), jnp.stack(one_by_one), rtol=1e-5)
