"""Tracing: layers found in any JAX callable, named after their parameters, and run unchanged."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import execute
from afpjax.network.layers import Tensor
from afpjax.network.trace import trace

KEY = jax.random.key(0)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, images):
        hidden = nn.Conv(8, (3, 3), strides=2, name="stem")(images)
        hidden = nn.BatchNorm(use_running_average=True, name="norm")(hidden)
        hidden = nn.relu(hidden)
        branch = nn.Conv(8, (3, 3), feature_group_count=4, use_bias=False, name="grouped")(hidden)
        hidden = nn.gelu(hidden + branch)
        hidden = nn.Conv(6, (3, 3), kernel_dilation=2, padding="VALID", name="dilated")(hidden)
        hidden = nn.max_pool(hidden, (2, 2), strides=(2, 2))
        return nn.Dense(5, name="head")(hidden.reshape(hidden.shape[0], -1))


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, images):
        hidden = nnx.relu(self.norm(self.conv(images))).mean((1, 2))
        for block in self.blocks:
            hidden = hidden + nnx.silu(block(hidden))
        return self.head(hidden)


def randomised(params):
    """Every array random, vectors positive, so that no scale, shift or variance is trivial."""

    def draw(leaf):
        rng = np.random.default_rng(leaf.shape)
        drawn = (
            rng.uniform(0.1, 1, leaf.shape) if leaf.ndim < 2 else rng.normal(size=leaf.shape) / 4
        )
        return jnp.asarray(drawn, jnp.float32)

    return jax.tree.map(draw, params)


def linen_parameters(images):
    return randomised(jax.eval_shape(LinenNet().init, KEY, images))


def test_a_linen_network_is_found_folded_and_unchanged(normal, agrees):
    images = normal(3, 16, 16, 3)
    params = linen_parameters(images)
    network = trace(LinenNet().apply, params, images)
    assert network.graph.names == ("stem", "grouped", "dilated", "head")
    stem, grouped, dilated, head = network.layers
    assert (stem.kind, stem.macs, stem.neurons, stem.biases) == ("conv", 8 * 8 * 8 * 27, 8, 8)
    assert (grouped.groups, grouped.fan_in, grouped.biases) == (4, 18, 0)
    assert (dilated.output_size, dilated.window) == ((4, 4), (3, 3))
    assert (head.kind, head.fan_in, head.weights, head.macs) == ("dense", 24, 120, 120)
    agrees(network, LinenNet().apply, params, images)
    primitives = {step.primitive.name for step in network.program.steps}
    assert "sub" not in primitives and "div" not in primitives, "batch norm was left unfolded"


def test_an_nnx_network_is_found_folded_and_unchanged(normal, agrees):
    model = NnxNet(nnx.Rngs(0))
    definition, state = nnx.split(model)
    params = randomised(nnx.to_pure_dict(state))

    def apply_fn(params, images):
        concrete = nnx.state(model)
        nnx.replace_by_pure_dict(concrete, params)
        return nnx.merge(definition, concrete)(images)

    images = normal(2, 8, 8, 3)
    network = trace(apply_fn, params, images)
    assert network.graph.names == ("conv", "blocks.0", "blocks.1", "head")
    agrees(network, apply_fn, params, images)


LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NCHW", "HWIO", "NHWC")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "options",
    [
        dict(window_strides=(2, 1), padding="SAME"),
        dict(window_strides=(1, 1), padding=((1, 2), (0, 1)), rhs_dilation=(2, 3)),
        dict(window_strides=(1, 1), padding="VALID", feature_group_count=2),
        dict(window_strides=(1, 1), padding=((2, 2), (2, 2)), lhs_dilation=(2, 2)),
    ],
)
def test_convolutions_of_any_layout_stride_dilation_and_grouping(layout, options, normal, agrees):
    groups = options.get("feature_group_count", 1)
    sizes = dict(N=2, H=9, W=8, C=4)
    image = normal(*(sizes[axis] for axis in layout[0]))
    kernel_sizes = dict(H=3, W=2, I=4 // groups, O=6)
    kernel = normal(*(kernel_sizes[axis] for axis in layout[1]))
    bias = normal(*(6 if axis == "C" else 1 for axis in layout[2]))

    def apply_fn(params, images):
        out = lax.conv_general_dilated(
            images, params["conv"]["kernel"], dimension_numbers=layout, **options
        )
        return (out * 1.5 - params["conv"]["bias"]).reshape(images.shape[0], -1)

    params = {"conv": {"kernel": kernel, "bias": bias}}
    network = trace(apply_fn, params, image)
    (layer,) = network.layers
    assert (layer.name, layer.neurons, layer.biases, layer.groups) == ("conv", 6, 6, groups)
    assert layer.input_channels == 4 // groups
    agrees(network, apply_fn, params, image)


def test_dense_layers_with_the_kernel_on_either_side_and_with_several_axes(normal, agrees):
    def apply_fn(params, images):
        left = jnp.einsum("oi,bi->bo", params["left"], images)
        heads = jnp.einsum("bi,ihd->bhd", left, params["heads"]) + params["shift"]
        mixed = jnp.einsum("bhd,hde->bhe", heads, params["per_head"])
        return mixed.reshape(images.shape[0], -1)

    shapes = dict(left=(6, 5), heads=(6, 2, 3), shift=(1, 2, 3), per_head=(2, 3, 4))
    params = {n: normal(*s) for n, s in shapes.items()}
    images = normal(4, 5)
    network = trace(apply_fn, params, images)
    assert network.graph.names == ("left", "heads", "per_head")
    assert [layer.neurons for layer in network.layers] == [6, 6, 8]
    assert [layer.macs for layer in network.layers] == [30, 36, 24]
    assert network.layers[1].biases == 6
    agrees(network, apply_fn, params, images)


def test_a_product_of_two_activations_is_no_layer(normal, agrees):
    def attention(params, images):
        query, key = images @ params["q"]["kernel"], images @ params["k"]["kernel"]
        weights = jax.nn.softmax(jnp.einsum("bti,bsi->bts", query, key))
        return jnp.einsum("bts,bsi->bti", weights, query).reshape(images.shape[0], -1)

    params = {n: {"kernel": normal(4, 4)} for n in "qk"}
    images = normal(2, 5, 4)
    network = trace(attention, params, images)
    assert network.graph.names == ("q", "k")
    agrees(network, attention, params, images)


def test_nested_calls_are_inlined_and_a_kernel_used_twice_is_two_layers(normal, agrees):
    @jax.jit
    def inner(kernel, x):
        return jax.checkpoint(lambda x: jnp.tanh(x @ kernel))(x)

    @jax.custom_jvp
    def twice(kernel, x):
        return inner(kernel, inner(kernel, x))

    twice.defjvp(lambda p, t: (twice(*p), twice(*p)))
    params = {"shared": {"w": normal(4, 4)}}
    images = normal(3, 4)

    def apply_fn(params, images):
        return twice(params["shared"]["w"], images)

    network = trace(apply_fn, params, images)
    assert network.graph.names == ("shared", "shared:2")
    agrees(network, apply_fn, params, images)


def test_weights_that_a_function_closes_over_are_layers_too(normal):
    kernel = normal(4, 3)
    network = trace(lambda _, images: images @ kernel, {}, jnp.ones((1, 4)))
    assert network.graph.names == ("dense_0",)
    np.testing.assert_array_equal(network.parameters.layers["dense_0"].kernel, kernel)


def test_networks_that_cannot_be_placed_are_refused_in_one_line():
    images = jnp.ones((1, 4))
    with pytest.raises(InputError, match="has no layers"):
        trace(lambda _, x: x * 2, {}, images)
    with pytest.raises(InputError, match=r"dense\.kernel holds NaN"):
        trace(
            lambda p, x: x @ p["dense"]["kernel"],
            {"dense": {"kernel": jnp.full((4, 2), jnp.nan)}},
            images,
        )
    with pytest.raises(InputError, match="not logits"):
        trace(lambda p, x: (x @ p)[0], jnp.ones((4, 2)), images)


def test_custom_derivatives_without_a_layer_survive():
    """relu's derivative at zero is 0; max(x, 0), inlined, would give 1/2."""
    params = {"w": jnp.eye(3)}
    network = trace(lambda p, x: jax.nn.relu(x @ p["w"]), params, jnp.ones((1, 3)))
    gradient = jax.grad(lambda x: network(x).sum())(jnp.zeros((1, 3)))
    np.testing.assert_array_equal(gradient, 0)


def test_the_program_jits_vmaps_and_differentiates(normal):
    images = normal(4, 16, 16, 3)
    params = linen_parameters(images)
    network = trace(LinenNet().apply, params, images)
    stacked = jnp.stack([images, images + 1])
    mapped = jax.jit(jax.vmap(network))(stacked)
    np.testing.assert_allclose(mapped[1], network(images + 1), rtol=1e-5, atol=1e-5)

    def loss(network):
        return network(images).sum()

    def direct(params) -> jax.Array:
        logits: Any = LinenNet().apply(params, images)
        return logits.sum()

    traced = jax.jit(jax.grad(loss))(network).parameters.layers["head"]
    original = jax.jit(jax.grad(direct))(params)["params"]["head"]
    np.testing.assert_allclose(traced.kernel, original["kernel"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(traced.bias, original["bias"], rtol=1e-4)


def test_a_fault_hook_sees_a_read_copy_so_the_skip_connection_stays_whole():
    """MRFI corrupts in place: a layer's fault leaks into the residual (it must not)."""
    params = {"a": jnp.eye(3), "b": jnp.eye(3)}

    def apply_fn(params, images):
        return images @ params["a"] + images @ params["b"] + images

    network = trace(apply_fn, params, jnp.ones((1, 3)))

    def hook(call, image, parameters):
        struck = image + 100.0 if call.layer.name == "a" else image
        return call.linear(struck, parameters.kernel)

    logits = execute(network.program, network.parameters, jnp.ones(3), hook)
    np.testing.assert_array_equal(logits, 103.0)


def test_tensors_between_layers_follow_residuals_and_concatenations(normal):
    def apply_fn(params, images):
        first = jax.nn.relu(images @ params["a"])  # layer 0
        second = first @ params["b"]  # layer 1
        joined = jax.nn.relu(first + second)  # the sum runs where layer 1 runs
        third = joined @ params["c"]  # layer 2
        both = jnp.concatenate([joined, third], axis=1)  # runs where layer 2 runs
        return both @ params["d"]  # layer 3

    shapes = dict(a=(5, 4), b=(4, 4), c=(4, 2), d=(6, 3))
    params = {n: normal(*s) for n, s in shapes.items()}
    network = trace(apply_fn, params, jnp.ones((1, 5)))
    assert network.graph.tensors == (
        Tensor(-1, (0,), 5),
        Tensor(0, (1,), 4),
        Tensor(1, (2,), 4),
        Tensor(2, (3,), 6),
    )


def test_parameters_are_arguments_and_never_constants_of_the_program(normal):
    params = {"w": normal(512, 512), "v": normal(512, 3)}
    network = trace(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 512)))
    lowered = jax.jit(lambda n, x: n(x)).lower(network, jnp.ones((1, 512))).as_text()
    assert len(lowered) < 20_000, "a kernel was baked into the program"
