"""`trace` takes any JAX callable: parameters of any shape, parts of any kind, errors by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import execute
from afpjax.network.trace import trace


def flat(images):
    return images.reshape((images.shape[0], -1))


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


def test_attention_norms_and_transposed_convolutions_run_unchanged(normal, agrees):
    images = normal(2, 4, 4, 3)
    shapes = jax.eval_shape(Everything().init, jax.random.key(0), images)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape) / 2, shapes)
    network = trace(Everything().apply, params, images)
    attention = ("mha.query", "mha.key", "mha.value", "mha.out")
    assert network.graph.names == ("conv", "depthwise", "up", *attention, "head")
    assert all(layer.biases == layer.neurons for layer in network.layers)
    up = network.layers[2]
    assert (up.macs, up.output_shape) == (
        4 * 4 * 4 * 6 * 4,
        (1, 8, 8, 6),
    )  # pixels x taps x in x out
    agrees(network, Everything().apply, params, images)


def test_lookups_of_a_fixed_table_are_no_layers(normal, agrees):
    def apply_fn(params, tokens):
        vectors = jnp.take(params["table"], tokens, axis=0) + params["positions"]
        return flat(jax.nn.relu(vectors)) @ params["head"]["w"]

    params = {
        "table": normal(10, 4),
        "positions": normal(1, 6, 4),
        "head": {"w": normal(24, 3)},
    }
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 10, (3, 6)), jnp.int32)
    network = trace(apply_fn, params, tokens)
    assert network.graph.names == ("head",)
    agrees(network, apply_fn, params, tokens)


def test_images_of_bytes_are_converted_where_the_network_converts_them(normal, agrees):
    def apply_fn(params, images):
        return (flat(images).astype(jnp.float32) / 255) @ params["w"]

    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)), jnp.uint8)
    params = {"w": normal(12, 3)}
    network = trace(apply_fn, params, images)
    agrees(network, apply_fn, params, images)
    with pytest.raises(InputError, match="they are float32, but the network was traced for uint8"):
        network(images.astype(jnp.float32))


def test_a_network_traced_for_floats_takes_bytes(normal):
    params, images = {"w": normal(12, 3)}, np.arange(24, dtype=np.uint8).reshape(2, 12)
    network = trace(lambda p, x: (x - 1.5) @ p["w"], params, images.astype(np.float32))
    np.testing.assert_array_equal(network(images), network(images.astype(np.float32)))


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

CALLS = {
    "jit in jit": jax.jit(lambda x, w: jax.jit(jnp.matmul)(x, w)),
    "custom_vjp": doubled,
    "custom_vmap": mapped,
    "checkpoint": jax.checkpoint(lambda x, w: jnp.sin(x @ w)),
    "composite": lambda x, w: lax.composite(jnp.matmul, "test.matmul")(x, w),
    "vmap": lambda x, w: jax.vmap(lambda row: row @ w)(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_layer_is_found_behind_every_kind_of_call(name, normal, agrees):
    def apply_fn(params, images):
        return CALLS[name](images, params["w"])

    params = {"w": normal(4, 3)}
    network = trace(apply_fn, params, normal(2, 4))
    assert network.graph.names == ("w",)
    agrees(network, apply_fn, params, normal(2, 4))


def test_layers_that_the_logits_do_not_need_are_left_out(normal):
    def apply_fn(params, images):
        _ = jnp.tanh(images @ params["unused"])
        return images @ params["w"]

    params = {"w": normal(4, 3), "unused": normal(4, 4)}
    assert trace(apply_fn, params, normal(1, 4)).graph.names == ("w",)
    with pytest.raises(InputError, match="has no layers"):
        trace(lambda p, x: [apply_fn(p, x), x * 2][1], params, normal(1, 4))


def integers(params, images):
    product = (((1,), (0,)), ((), ()))
    made = lax.dot_general(images, params["w"], product, preferred_element_type=jnp.int32)
    return made.astype(jnp.float32)


@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (lambda p, x: (x @ p["w"], x), "it gives a tuple, not one array of logits"),
        (lambda p, x: {"logits": x @ p["w"]}, "it gives a dict, not one array"),
        (lambda p, x: jnp.squeeze(x @ p["w"]), r"gives \(3,\), not logits \[1, classes\]"),
        (lambda p, x: x[:, :, None] @ p["w"][:1], r"gives \(1, 4, 3\), not logits"),
        (lambda p, x: jnp.ones((x.shape[0], 3)), "has no layers"),
    ],
)
def test_what_gives_no_logits_is_refused(apply_fn, message, normal):
    with pytest.raises(InputError, match=message):
        trace(apply_fn, {"w": normal(4, 3)}, normal(1, 4))


def test_layers_of_integers_and_samples_without_a_batch_are_refused(normal):
    params = {"w": jnp.ones((4, 3), jnp.int8)}
    with pytest.raises(InputError, match="layer w multiplies int8 numbers"):
        trace(integers, params, jnp.ones((1, 4), jnp.int8))
    for sample in (normal(4), 3.0, [1.0, 2.0]):
        with pytest.raises(InputError, match=r"the sample: it is no batch of images"):
            trace(lambda p, x: x @ p["w"], {"w": normal(4, 3)}, sample)


def test_a_shape_is_sample_enough(normal):
    params, shape = {"w": normal(4, 3)}, jax.ShapeDtypeStruct((8, 4), jnp.float32)
    network = trace(lambda p, x: x @ p["w"], params, shape)
    np.testing.assert_allclose(network(normal(2, 4)), normal(2, 4) @ normal(4, 3), rtol=1e-5)
