"""Parameters of a traced network: any container, any kind of leaf, and the names they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.inputs.errors import InputError
from afpjax.network.flatten import layer_name
from afpjax.network.trace import trace


def flat(images):
    return images.reshape((images.shape[0], -1))


def mlp(first, second, images):
    return jnp.tanh(flat(images) @ first) @ second


CONTAINERS = {
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
    "float64 of NumPy": (
        lambda a, b: {"a": np.asarray(a, np.float64), "b": np.asarray(b)},
        lambda p, x: mlp(p["a"], p["b"], x),
        ("a", "b"),
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_parameters_come_in_any_container_and_name_their_layers(name, normal, traces):
    build, apply_fn, names = CONTAINERS[name]
    traces(apply_fn, build(normal(12, 5), normal(5, 3)), normal(2, 2, 2, 3), *names)


def test_what_is_no_array_stays_what_it_is(normal, traces):
    """Functions, flags and numbers among the parameters, as Equinox keeps them."""

    def apply_fn(params, images):
        hidden = flat(images) @ params["w"]
        return params["activation"](hidden) * params["scale"] if params["flag"] else hidden

    params = {"w": normal(12, 3), "activation": jnp.tanh, "scale": 2, "flag": True, "none": None}
    traces(apply_fn, params, normal(2, 2, 2, 3), "w")


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
def test_an_nnx_module_and_its_state_are_parameters(form, normal, traces):
    """In evaluation mode; the dropout's random key and counter are leaves of both."""
    model = Nnx(nnx.Rngs(0))
    model.eval()
    definition, state = nnx.split(model)

    def of_state(state, images):
        return nnx.merge(definition, state)(images)

    def of_module(module, images):
        return module(images)

    apply_fn, params = (of_module, model) if form == "module" else (of_state, state)
    network = traces(apply_fn, params, normal(2, 6, 6, 3), "conv", "head")
    kept = {step.primitive.name for step in network.program.steps}
    assert not kept & {"sub", "rsqrt"}, "batch norm was left unfolded"


def test_arrays_that_a_nested_function_closes_over_are_known(normal, traces):
    kernel, shift = np.asarray(normal(4, 3)), normal(1, 3)

    @jax.jit
    def inner(images):
        return images @ kernel + shift

    network = traces(lambda _, images: inner(images), {}, normal(2, 4), "dense_0")
    assert network.layers[0].biases == 3


@pytest.mark.parametrize("nested", [False, True])
def test_every_array_must_be_finite(nested, normal):
    """Of those closed over only the last one was looked at, and none of a nested function."""
    kernels = [np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)]
    kernels[0][2, 1] = np.inf

    def apply_fn(_, images):
        return jnp.tanh(images @ kernels[0]) @ kernels[1]

    with pytest.raises(InputError, match="closes over holds NaN or infinity"):
        trace(lambda p, x: (jax.jit(apply_fn) if nested else apply_fn)(p, x), {}, normal(1, 4))
    params = {"w": normal(4, 3).astype(jnp.bfloat16).at[1, 1].set(jnp.nan)}
    with pytest.raises(InputError, match="w holds NaN"):
        trace(lambda p, x: x.astype(jnp.bfloat16) @ p["w"], params, normal(1, 4))


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
