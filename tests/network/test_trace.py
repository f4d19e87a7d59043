"""`trace` takes any JAX callable: layers found and named, run unchanged, and errors by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import execute
from afpjax.network.trace import trace

KEY = jax.random.key(0)
ONE = np.ones((1, 4), np.float32)


def flat(images):
    return images.reshape((images.shape[0], -1))


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
        return nn.Dense(5, name="head")(flat(hidden))


def test_a_linen_network_is_found_folded_and_unchanged(normal, traces):
    """Every array random, vectors positive, so that no scale, shift or variance is trivial."""

    def draw(leaf):
        rng, vector = np.random.default_rng(leaf.shape), leaf.ndim < 2
        drawn = rng.uniform(0.1, 1, leaf.shape) if vector else rng.normal(size=leaf.shape) / 4
        return jnp.asarray(drawn, jnp.float32)

    images = normal(3, 16, 16, 3)
    params = jax.tree.map(draw, jax.eval_shape(LinenNet().init, KEY, images))
    names = ("stem", "grouped", "dilated", "head")
    network = traces(LinenNet().apply, params, images, *names)
    stem, grouped, dilated, head = network.layers
    assert (stem.kind, stem.macs, stem.neurons, stem.biases) == ("conv", 8 * 8 * 8 * 27, 8, 8)
    assert (grouped.groups, grouped.fan_in, grouped.biases) == (4, 18, 0)
    assert (dilated.output_size, dilated.window) == ((4, 4), (3, 3))
    assert (head.kind, head.fan_in, head.weights, head.macs) == ("dense", 24, 120, 120)
    primitives = {step.primitive.name for step in network.program.steps}
    assert "sub" not in primitives and "div" not in primitives, "batch norm was left unfolded"


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        (NHWC, dict(window_strides=(2, 1), padding="SAME")),
        (NCHW, dict(window_strides=(1, 1), padding=((1, 2), (0, 1)), rhs_dilation=(2, 3))),
        (NHWC, dict(window_strides=(1, 1), padding="VALID", feature_group_count=2)),
        (NCHW, dict(window_strides=(2, 2), padding="SAME", feature_group_count=2)),
        (("NCHW", "HWIO", "NHWC"), dict(window_strides=(1, 1), padding="VALID")),
        (NHWC, dict(window_strides=(1, 1), padding=((2, 2), (2, 2)), lhs_dilation=(2, 2))),
    ],
)
def test_convolutions_of_any_layout_stride_dilation_and_grouping(layout, options, normal, traces):
    groups = options.get("feature_group_count", 1)
    sizes, kernel_sizes = dict(N=2, H=9, W=8, C=4), dict(H=3, W=2, I=4 // groups, O=6)
    bias = normal(*(6 if axis == "C" else 1 for axis in layout[2]))
    kernel = normal(*(kernel_sizes[axis] for axis in layout[1]))

    def apply_fn(params, images):
        out = lax.conv_general_dilated(
            images, params["conv"]["kernel"], dimension_numbers=layout, **options
        )
        return flat(out * 1.5 - params["conv"]["bias"])

    params = {"conv": {"kernel": kernel, "bias": bias}}
    (layer,) = traces(apply_fn, params, normal(*(sizes[axis] for axis in layout[0]))).layers
    assert (layer.name, layer.neurons, layer.biases, layer.groups) == ("conv", 6, 6, groups)
    assert layer.input_channels == 4 // groups


def test_dense_layers_with_the_kernel_on_either_side_and_with_several_axes(normal, traces):
    def apply_fn(params, images):
        left = jnp.einsum("oi,bi->bo", params["left"], images)
        heads = jnp.einsum("bi,ihd->bhd", left, params["heads"]) + params["shift"]
        return flat(jnp.einsum("bhd,hde->bhe", heads, params["per_head"]))

    shapes = dict(left=(6, 5), heads=(6, 2, 3), shift=(1, 2, 3), per_head=(2, 3, 4))
    params = {n: normal(*s) for n, s in shapes.items()}
    network = traces(apply_fn, params, normal(4, 5), "left", "heads", "per_head")
    assert [layer.neurons for layer in network.layers] == [6, 6, 8]
    assert [layer.macs for layer in network.layers] == [30, 36, 24]
    assert network.layers[1].biases == 6


class Everything(nn.Module):
    @nn.compact
    def __call__(self, images):
        hidden = nn.Conv(4, (3, 3), name="conv")(images)
        hidden = nn.gelu(nn.LayerNorm()(hidden))
        hidden = nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(hidden)
        hidden = nn.Dropout(0.5, deterministic=True)(nn.GroupNorm(2)(hidden))
        hidden = nn.remat(nn.ConvTranspose)(6, (2, 2), strides=(2, 2), name="up")(hidden)
        tokens = hidden.reshape((hidden.shape[0], -1, 6))
        mixed = nn.MultiHeadDotProductAttention(2, deterministic=True, name="mha")
        tokens = tokens + mixed(tokens, tokens)
        return nn.softmax(nn.DenseGeneral((5,), name="head")(tokens.mean(1)))


def test_attention_norms_and_transposed_convolutions_run_unchanged(normal, traces):
    """A product of two activations is no layer."""
    images = normal(2, 4, 4, 3)
    shapes = jax.eval_shape(Everything().init, KEY, images)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape) / 2, shapes)
    attention = ("mha.query", "mha.key", "mha.value", "mha.out")
    names = ("conv", "depthwise", "up", *attention, "head")
    network = traces(Everything().apply, params, images, *names)
    assert all(layer.biases == layer.neurons for layer in network.layers)
    up = network.layers[2]
    assert up.macs == 4 * 4 * 4 * 6 * 4 and up.output_shape == (1, 8, 8, 6)


def test_images_of_bytes_are_converted_where_the_network_converts_them(normal, traces):
    def apply_fn(params, images):
        return (flat(images).astype(jnp.float32) / 255) @ params["w"]

    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)), jnp.uint8)
    network = traces(apply_fn, {"w": normal(12, 3)}, images)
    with pytest.raises(InputError, match="they are float32, but the network was traced for uint8"):
        network(images.astype(jnp.float32))


def test_float64_networks_run_in_float64(normal):
    def apply_fn(params, images):
        return jnp.sin(images @ params["w"]) @ params["v"]

    with jax.enable_x64(True):
        params = {n: jnp.asarray(normal(4, 4), jnp.float64) for n in "wv"}
        images = jnp.asarray(normal(3, 4), jnp.float64)
        logits = trace(apply_fn, params, images)(images)
        assert logits.dtype == jnp.float64
        np.testing.assert_allclose(logits, apply_fn(params, images), rtol=1e-12)


def test_bfloat16_networks_keep_their_dtypes(normal):
    """The layer computes in float32; what follows was traced for bfloat16 and gets it."""

    def apply_fn(params, images):
        hidden = jnp.tanh(images.astype(jnp.bfloat16) @ params["w"] + params["b"])
        return lax.dot_general(
            hidden, params["v"], (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )

    shapes = dict(w=(4, 5), b=(1, 5), v=(5, 3))
    params = {n: normal(*s).astype(jnp.bfloat16) for n, s in shapes.items()}
    network = trace(apply_fn, params, normal(3, 4))
    assert network(normal(3, 4)).dtype == jnp.float32
    seen = []

    def hook(call, image, parameters):
        seen.append((image.dtype, call.dtype))
        return call.linear(image.astype(jnp.float32), parameters.kernel)

    execute(network.program, network.parameters, normal(3, 4)[0], hook)
    assert seen == [(jnp.bfloat16, jnp.bfloat16), (jnp.bfloat16, jnp.float32)]
    np.testing.assert_allclose(network(normal(3, 4)), apply_fn(params, normal(3, 4)), atol=0.03)


@jax.custom_vjp
def doubled(x, w):
    return 2 * (x @ w)


doubled.defvjp(lambda x, w: (doubled(x, w), (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))


@jax.custom_batching.custom_vmap
def mapped(x, w):
    return x @ w


mapped.def_vmap(lambda size, batched, x, w: (x @ w, True))


@jax.custom_jvp
def nested(x, w):
    return jax.jit(lambda w, x: jax.checkpoint(lambda x: jnp.tanh(x @ w))(x))(w, x)


nested.defjvp(lambda p, t: (nested(*p), nested(*p)))

CALLS = {
    "jit in jit": jax.jit(lambda x, w: jax.jit(jnp.matmul)(x, w)),
    "custom_jvp": nested,
    "custom_vjp": doubled,
    "custom_vmap": mapped,
    "checkpoint": jax.checkpoint(lambda x, w: jnp.sin(x @ w)),
    "composite": lambda x, w: lax.composite(jnp.matmul, "test.matmul")(x, w),
    "vmap": lambda x, w: jax.vmap(lambda row: row @ w)(x),
}


def test_layers_are_found_behind_every_kind_of_call(normal, traces):
    """A kernel that is used twice makes two layers."""

    def apply_fn(params, images):
        made = [call(call(images, params[name]), params[name]) for name, call in CALLS.items()]
        return jnp.concatenate(made, axis=1)

    params = {name: normal(4, 4) for name in CALLS}
    names = [each for name in CALLS for each in (name, f"{name}:2")]
    traces(apply_fn, params, normal(2, 4), *names)


def test_layers_that_the_logits_do_not_need_are_left_out(normal):
    def apply_fn(params, images):
        _ = jnp.tanh(images @ params["unused"])
        return images @ params["w"]

    params = {"w": normal(4, 3), "unused": normal(4, 4)}
    assert trace(apply_fn, params, normal(1, 4)).graph.names == ("w",)


def integers(params, images):
    product = (((1,), (0,)), ((), ()))
    kernel = params["w"].astype(jnp.int8)
    made = lax.dot_general(images, kernel, product, preferred_element_type=jnp.int32)
    return made.astype(jnp.float32)


@pytest.mark.parametrize(
    ("apply_fn", "sample", "message"),
    [
        (lambda p, x: (x @ p["w"], x), ONE, "it gives a tuple, not one array of logits"),
        (lambda p, x: jnp.squeeze(x @ p["w"]), ONE, r"gives \(3,\), not logits \[1, classes\]"),
        (lambda p, x: x[:, :, None] @ p["w"][:1], ONE, r"gives \(1, 4, 3\), not logits"),
        (lambda p, x: jnp.ones((x.shape[0], 3)), ONE, "has no layers"),
        (integers, np.ones((1, 4), np.int8), "layer w multiplies int8 numbers"),
        (lambda p, x: x @ p["w"], ONE[0], "the sample: it is no batch of images"),
        (lambda p, x: x @ p["w"], [1.0, 2.0], "the sample: it is no batch of images"),
    ],
)
def test_what_gives_no_logits_or_is_no_sample_is_refused(apply_fn, sample, message, normal):
    with pytest.raises(InputError, match=message):
        trace(apply_fn, {"w": normal(4, 3)}, sample)


def test_custom_derivatives_without_a_layer_survive():
    """relu's derivative at zero is 0; max(x, 0), inlined, would give 1/2."""
    params = {"w": jnp.eye(3)}
    network = trace(lambda p, x: jax.nn.relu(x @ p["w"]), params, jnp.ones((1, 3)))
    gradient = jax.grad(lambda x: network(x).sum())(jnp.zeros((1, 3)))
    np.testing.assert_array_equal(gradient, 0)


def test_parameters_are_arguments_and_never_constants_of_the_program(normal):
    params = {"w": normal(512, 512), "v": normal(512, 3)}
    network = trace(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 512)))
    lowered = jax.jit(lambda n, x: n(x)).lower(network, jnp.ones((1, 512))).as_text()
    assert len(lowered) < 20_000, "a kernel was baked into the program"
