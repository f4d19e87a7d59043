"""The zoo: networks by name, weights in and out under torchvision's names."""

# pyright: reportMissingImports=false
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.inputs.errors import InputError, listed
from afpjax.inputs.image_size import image_size
from afpjax.models import zoo
from afpjax.network.trace import outline, trace

from .tiny import equal

SMALL: dict[str, Any] = dict(classes=3, width=0.05)


@pytest.fixture(scope="module")
def params():
    return zoo.params_of(zoo.create("resnet18", seed=3, **SMALL))


def test_a_seed_decides_the_weights_and_the_largest_one_is_taken():
    one, again, other = (
        zoo.params_of(zoo.create("alexnet", seed=seed, classes=3, width=0.02))
        for seed in (3, 3, 2**32 - 1)
    )
    assert equal(one, again) and not equal(one["features"], other["features"])


def test_kernels_start_with_the_variance_that_keeps_gradients_steady(params):
    kernel = np.asarray(params["layer4"][1]["conv2"]["kernel"])
    fan_out = 3 * 3 * kernel.shape[3]
    # 6,084 draws: the deviation's own standard error is 0.9 %.
    assert kernel.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.05)


def test_saved_weights_load_bit_for_bit(params, tmp_path):
    for name in ("weights.npz", "weights.safetensors"):
        zoo.save(tmp_path / name, params)
        _, loaded = zoo.load("resnet18", tmp_path / name, image_size=8, **SMALL)
        assert equal(params, loaded)


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (1, 8, 9, 3)])
def test_images_of_another_shape_are_refused_in_one_line(params, shape):
    apply_fn = zoo.apply_fn_of("resnet18", image_size=8, **SMALL)
    with pytest.raises(InputError, match=r"reads images of 8 x 8 x 3, these are \d+ x \d+ x \d"):
        apply_fn(params, jnp.ones(shape))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(InputError, match="no `resnet81`; did you mean `resnet18`"):
        zoo.create("resnet81", seed=0, **SMALL)
    with pytest.raises(InputError, match=f"it has {listed(zoo.NETWORKS)}"):
        zoo.load("x", image_size=8, **SMALL)


@pytest.mark.in_ci("squeezenet1_1")
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_shapes_alone_give_the_layers_that_parameters_give(name):
    """Job profile once trained a network whose weights it does not look at."""
    size: dict[str, Any] = dict(classes=3, image_size=64, width=0.1)
    apply_fn, shapes = zoo.abstract(name, **size)
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes)
    sample = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    expected = trace(apply_fn, params, sample).graph
    assert outline(apply_fn, shapes, sample).graph == expected


@pytest.mark.in_ci("alexnet")
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_images_need_not_be_square(name):
    """As many pixels in another shape: as many layers, and the same last one."""
    size: dict[str, Any] = dict(classes=3, width=0.1)
    graphs = []
    for rows, columns in ((96, 96), (72, 128)):
        apply_fn, shapes = zoo.abstract(name, image_size=image_size(rows, columns), **size)
        sample = jax.ShapeDtypeStruct((1, rows, columns, 3), jnp.float32)
        graphs.append(outline(apply_fn, shapes, sample).graph)
    square, wide = graphs
    assert wide.names == square.names
    assert [layer.weights for layer in wide.layers] == [layer.weights for layer in square.layers]
    assert wide.layers[0].macs == pytest.approx(square.layers[0].macs, rel=0.1)
    with pytest.raises(InputError, match="reads images of 72 x 128 x 3, these are 128 x 72 x 3"):
        jax.eval_shape(apply_fn, shapes, jax.ShapeDtypeStruct((1, 128, 72, 3), jnp.float32))
