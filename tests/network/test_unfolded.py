"""Batch norm left outside the layers, and where a kernel's numbers stand in what it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.network.trace import outline, trace


def nchw(images, kernel):
    layout = ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)


def normed(params, images):
    """A convolution with a bias, then batch norm as its formula has it."""
    wide = {name: each.reshape(1, -1, 1, 1) for name, each in params["bn"].items()}
    out = nchw(images, params["conv"]["weight"]) + params["conv"]["bias"].reshape(1, -1, 1, 1)
    out = (out - wide["mean"]) / jnp.sqrt(wide["var"] + 1e-5) * wide["weight"] + wide["bias"]
    return jax.nn.relu(out).mean((2, 3))


@pytest.fixture
def params(normal):
    bn = {name: normal(5) for name in ("mean", "weight", "bias")}
    conv = {"weight": normal(5, 3, 3, 3), "bias": normal(5)}
    return {"conv": conv, "bn": bn | {"var": jnp.abs(normal(5)) + 0.1}}


def test_a_layer_keeps_its_own_weights_and_bias(params, normal, agrees):
    network = trace(normed, params, normal(2, 3, 6, 6), fold=False)
    own = network.parameters.layers["conv"]
    assert np.array_equal(own.kernel, params["conv"]["weight"])
    assert own.bias is not None and np.array_equal(own.bias, params["conv"]["bias"])
    agrees(network, normed, params, normal(2, 3, 6, 6))
    folded = trace(normed, params, normal(2, 3, 6, 6)).parameters.layers["conv"]
    assert not np.array_equal(folded.kernel, params["conv"]["weight"])


def test_batch_norms_mean_is_no_bias(params, normal, agrees):
    """Without a bias of its own a layer has none; a subtraction is not one."""

    def apply_fn(params, images):
        bare = params["conv"] | {"bias": jnp.zeros(5)}
        return normed(params | {"conv": bare}, images)

    def without(params, images):
        wide = params["bn"]["mean"].reshape(1, -1, 1, 1)
        return (nchw(images, params["conv"]["weight"]) - wide).mean((2, 3))

    assert trace(without, params, normal(2, 3, 6, 6), fold=False).layers[0].biases == 0
    agrees(trace(apply_fn, params, normal(2, 3, 6, 6), fold=False), apply_fn, params,
           normal(2, 3, 6, 6))  # fmt: skip


def test_an_outline_is_unfolded_as_the_trace_is(params, normal):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    sample = normal(1, 3, 6, 6)
    for fold in (True, False):
        program = outline(normed, shapes, sample, fold=fold)
        traced = trace(normed, params, sample, fold=fold).program
        assert [s.outputs for s in program.steps] == [s.outputs for s in traced.steps]


def shown(w, images):
    return jnp.einsum("bi,io->bo", images, w)


#: Parameter [6, 4] or so -> what multiplies images [B, n].
LAYOUTS = {
    "as it is": ((6, 4), lambda w: w),
    "transposed": ((4, 6), lambda w: w.T),
    "flattened": ((3, 2, 4), lambda w: w.reshape(6, 4)),
    "flattened, transposed": ((4, 3, 2), lambda w: jnp.transpose(w, (2, 1, 0)).reshape(6, 4)),
    "a part of it": ((9, 4), lambda w: w[2:8]),
    "backwards": ((6, 4), lambda w: w[::-1]),
    "one of several": ((1, 6, 4), lambda w: w[0]),
    "in another dtype": ((6, 4), lambda w: w.astype(jnp.float16).astype(jnp.float32)),
    "for all outputs": ((6, 1), lambda w: jnp.broadcast_to(w, (6, 4))),
}


def test_every_weight_is_found_in_its_kernel(normal):
    """The kernel's numbers, all different, say themselves where they are from."""

    def apply_fn(params, images):
        made = [shown(layout(params[name]), images) for name, (_, layout) in LAYOUTS.items()]
        return jnp.concatenate(made, axis=1)

    params = {
        name: jnp.arange(1, np.prod(shape) + 1, dtype=jnp.float32).reshape(shape)
        for name, (shape, _) in LAYOUTS.items()
    }
    network = trace(apply_fn, params, normal(1, 6), fold=False)
    for call, (name, w) in zip(network.program.calls, params.items(), strict=True):
        kernel = np.asarray(network.parameters.layers[call.layer.name].kernel).ravel()
        assert (call.stored.name, call.stored.shape) == (name, w.shape)
        for element in range(w.size):
            expected = np.flatnonzero(kernel == element + 1)
            assert call.stored.in_kernel(element) == expected.tolist(), name


def test_what_is_computed_before_a_layer_is_no_parameter(normal):
    def apply_fn(params, images):
        w = params["w"]
        return shown(((w - w.mean()) / w.std()).T, images)

    network = trace(apply_fn, {"w": normal(4, 6)}, normal(1, 6))
    (call,) = network.program.calls
    assert call.stored.name == "" and call.stored.shape == (4, 6)
    assert call.stored.in_kernel(1) == [4]  # its transpose still is
