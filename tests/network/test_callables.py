"""`trace` takes any JAX callable: parameters of any shape, parts of any kind, errors by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from afpjax.errors import InputError
from afpjax.network.execute import execute
from afpjax.network.names import layer_name
from afpjax.network.trace import trace


def flat(images):
    return images.reshape((images.shape[0], -1))


def mlp(first, second, images):
    return jnp.tanh(flat(images) @ first) @ second


CONTAINERS = {
    "list": (lambda a, b: [a, b], lambda p, x: mlp(p[0], p[1], x), ("0", "1")),
    "nested": (
        lambda a, b: [(a, 1), {"w": b}],
        lambda p, x: mlp(p[0][0], p[1]["w"], x),
        ("0.0", "1"),
    ),
    "dotted": (
        lambda a, b: {"net.0.weight": a.T, "net.2.weight": b.T},
        lambda p, x: mlp(p["net.0.weight"].T, p["net.2.weight"].T, x),
        ("net.0", "net.2"),
    ),
    "linen": (
        lambda a, b: {"params": {"up": {"kernel": a}, "down": {"kernel": b}}},
        lambda p, x: mlp(p["params"]["up"]["kernel"], p["params"]["down"]["kernel"], x),
        ("up", "down"),
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_parameters_come_in_any_container_and_name_their_layers(name, normal, agrees):
    build, apply_fn, names = CONTAINERS[name]
    params = build(normal(12, 5), normal(5, 3))
    network = trace(apply_fn, params, normal(2, 2, 2, 3))
    assert network.graph.names == names
    agrees(network, apply_fn, params, normal(2, 2, 2, 3))


def test_numpy_arrays_are_parameters_and_images_too(normal, agrees):
    params = {"w": np.asarray(normal(12, 3), np.float64)}
    images = np.asarray(normal(2, 2, 2, 3))

    def apply_fn(params, images):
        return flat(images) @ params["w"]

    agrees(trace(apply_fn, params, images), apply_fn, params, images)


def test_what_is_no_array_stays_what_it_is(normal, agrees):
    """Functions, flags and numbers among the parameters, as Equinox keeps them."""

    def apply_fn(params, images):
        hidden = flat(images) @ params["w"]
        return params["activation"](hidden) * params["scale"] if params["flag"] else hidden

    params = {"w": normal(12, 3), "activation": jnp.tanh, "scale": 2, "flag": True, "none": None}
    network = trace(apply_fn, params, normal(2, 2, 2, 3))
    assert network.graph.names == ("w",)
    agrees(network, apply_fn, params, normal(2, 2, 2, 3))


def test_random_keys_and_integers_are_parameters_too(normal, agrees):
    def apply_fn(params, images):
        chosen = jnp.take(flat(images), params["places"], axis=1)
        noise = jax.random.uniform(params["key"], (1, 3))
        return jnp.tanh(chosen @ params["w"]) + noise

    params = {"w": normal(4, 3), "places": jnp.array([0, 7, 3, 11]), "key": jax.random.key(3)}
    network = trace(apply_fn, params, normal(2, 2, 2, 3))
    assert network.graph.names == ("w",)
    agrees(network, apply_fn, params, normal(2, 2, 2, 3))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images):
        hidden = nnx.relu(self.norm(self.conv(images))).mean((1, 2))
        return self.head(self.drop(hidden))


@pytest.mark.parametrize("form", ["module", "state"])
def test_an_nnx_module_and_its_state_are_parameters(form, normal, agrees):
    """In evaluation mode; the dropout's random key and counter are leaves of both."""
    model = Nnx(nnx.Rngs(0))
    model.eval()
    definition, state = nnx.split(model)

    def of_state(state, images):
        return nnx.merge(definition, state)(images)

    def of_module(module, images):
        return module(images)

    apply_fn, params = (of_module, model) if form == "module" else (of_state, state)
    network = trace(apply_fn, params, normal(2, 6, 6, 3))
    assert network.graph.names == ("conv", "head")
    agrees(network, apply_fn, params, normal(2, 6, 6, 3))


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


def test_arrays_that_a_nested_function_closes_over_are_known(normal, agrees):
    kernel, shift = np.asarray(normal(4, 3)), normal(1, 3)

    @jax.jit
    def inner(images):
        return images @ kernel + shift

    network = trace(lambda _, images: inner(images), {}, normal(2, 4))
    assert (network.graph.names, network.layers[0].biases) == (("dense_0",), 3)
    agrees(network, lambda _, images: inner(images), {}, normal(2, 4))


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("nested", [False, True])
def test_every_array_that_a_function_closes_over_must_be_finite(bad, nested, normal):
    """Only the last one was looked at, and none of a nested function."""
    kernels = [np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)]
    kernels[bad][2, 1] = np.inf

    def apply_fn(_, images):
        return jnp.tanh(images @ kernels[0]) @ kernels[1]

    with pytest.raises(InputError, match="closes over holds NaN or infinity"):
        trace(lambda p, x: (jax.jit(apply_fn) if nested else apply_fn)(p, x), {}, normal(1, 4))


def test_bfloat16_weights_must_be_finite_too(normal):
    params = {"w": normal(4, 3).astype(jnp.bfloat16).at[1, 1].set(jnp.nan)}
    with pytest.raises(InputError, match="w holds NaN"):
        trace(lambda p, x: x.astype(jnp.bfloat16) @ p["w"], params, normal(1, 4))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, images):
        hidden = nn.Dense(8, name="first")(flat(images))
        stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return stack(name="stack")(hidden, None)[0]


class Block(nn.Module):
    @nn.compact
    def __call__(self, hidden, _):
        return nn.relu(nn.LayerNorm()(hidden) + nn.Dense(8, name="inner")(hidden)), None


def test_a_layer_in_a_scan_is_refused_by_its_own_name(normal):
    """The scan carries a norm's parameters as well; the message names the layer's alone."""
    shapes = jax.eval_shape(Scanned().init, jax.random.key(0), normal(1, 2, 2, 3))
    params = jax.tree.map(lambda leaf: normal(*leaf.shape), shapes)
    message = r"`scan` holds a layer \(stack\.inner: `dot_general`, kernel float32\[8,8\] of "
    with pytest.raises(InputError, match=message + r"params\.stack\.inner\.kernel\); .* Python"):
        trace(Scanned().apply, params, normal(1, 2, 2, 3))


def test_control_flow_that_multiplies_activations_only_is_no_layer(normal, agrees):
    """The carry becomes dependent in the first round: x·h is a product of two activations."""

    def apply_fn(params, images):
        start = jnp.broadcast_to(params["start"], (4, 4))
        mixed, _ = lax.scan(lambda h, _: (h * images.sum(), None), start, None, length=2)
        powers, _ = lax.scan(lambda h, _: (jnp.tanh(h @ h), None), mixed, None, length=2)
        return images @ params["w"] + powers[:1, :3]

    params = {"w": normal(4, 3), "start": normal(1, 4)}
    network = trace(apply_fn, params, normal(1, 4))
    assert network.graph.names == ("w",)
    agrees(network, apply_fn, params, normal(1, 4))


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


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["params.stem.kernel"], "stem"),
        (["conv.kernel.value"], "conv"),
        (["head.w.raw_value"], "head"),
        (["mha.value.kernel"], "mha.value"),  # the attention's value projection
        (["blocks.0.g", "blocks.0.v"], "blocks.0"),  # weight normalisation
        (["a.kernel", "b.kernel"], ""),
        (["kernel"], "kernel"),
        ([], ""),
    ],
)
def test_layers_are_named_after_what_their_parameters_share(paths, name):
    assert layer_name(frozenset(paths)) == name
