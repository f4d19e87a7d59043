"""Folding: what is absorbed into a layer, what must not be, and that the function is the same."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.trace import trace


def left(network):
    """The names of what is still computed outside the layers, layouts and reductions apart."""
    layout = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "reduce_sum", "dot_general")
    names = [step.primitive.name for step in network.program.steps]
    return [name for name in names if name not in (*layout, "conv_general_dilated")]


def nchw(params, images):
    kernel, layout = params["conv"]["kernel"], ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)


CHAINS = {
    "add": (lambda y, c: y + c, 4),
    "add from the left": (lambda y, c: c + y, 4),
    "sub": (lambda y, c: y - c, 4),
    "sub from the left": (lambda y, c: c - y, 4),
    "mul": (lambda y, c: c * y, 0),
    "div": (lambda y, c: y / c, 0),
    "neg": (lambda y, c: -y, 0),
    "scalars": (lambda y, c: 3.0 - (2.0 * y + 1.0) / 4.0, 4),
    "arrays of one number": (lambda y, c: y * jnp.full_like(y, 2.0) + jnp.ones_like(y), 4),
    "a long chain": (lambda y, c: -((c - y * c) / c + c) * 0.5 - c, 4),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("axis", [1, 3])
def test_chains_of_affine_equations_are_absorbed(name, axis, normal, traces):
    """Channels on axis 1 (as ONNX exports them) and last; a bias counts where one is added."""
    after, biases = CHAINS[name]
    layout = ("NCHW", "OIHW", "NCHW") if axis == 1 else ("NHWC", "HWIO", "NHWC")
    kernel, images = ((4, 3, 3, 3), (2, 3, 5, 5)) if axis == 1 else ((3, 3, 3, 4), (2, 5, 5, 3))
    channels = [4 if a == axis else 1 for a in range(4)]

    def apply_fn(params, images):
        out = lax.conv_general_dilated(
            images, params["kernel"], (1, 1), "SAME", dimension_numbers=layout
        )
        return after(out, params["c"]).reshape(images.shape[0], -1)

    params = {"kernel": normal(*kernel), "c": jnp.abs(normal(*channels)) + 0.5}
    network = traces(apply_fn, params, normal(*images))
    assert left(network) == []
    assert network.layers[0].biases == biases
    assert (network.parameters.layers[network.graph.names[0]].bias is None) == (biases == 0)


def test_batch_norm_as_onnx_writes_it(normal, traces):
    """Per-channel vectors reshaped to [1, C, 1, 1] inside the function, as onnx runtimes do."""

    def apply_fn(params, images):
        wide = {k: v.reshape(1, -1, 1, 1) for k, v in params["bn"].items()}
        out = nchw(params, images) + params["conv"]["bias"].reshape(1, -1, 1, 1)
        out = wide["weight"] * (out - wide["running_mean"]) / jnp.sqrt(wide["running_var"] + 1e-5)
        return (out + wide["bias"]).mean((2, 3))

    names = ("weight", "bias", "running_mean", "running_var")
    bn = {name: jnp.abs(normal(6, i))[:, 0] + 0.1 for i, name in enumerate(names, 1)}
    params = {"conv": {"kernel": normal(6, 3, 3, 3), "bias": normal(6)}, "bn": bn}
    network = traces(apply_fn, params, normal(2, 3, 5, 5))
    assert left(network) == ["div"]  # of the mean
    assert network.layers[0].biases == 6


class Linen(nn.Module):
    options: dict

    @nn.compact
    def __call__(self, images):
        hidden = nn.Conv(4, (3, 3), use_bias=False)(images)
        hidden = nn.BatchNorm(use_running_average=True, **self.options)(hidden)
        return hidden.reshape(hidden.shape[0], -1)


class Nnx(nnx.Module):
    def __init__(self, **options):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs, **options)

    def __call__(self, images):
        return self.norm(self.conv(images)).reshape(images.shape[0], -1)


def positive(tree):
    def draw(leaf):
        values = np.random.default_rng(leaf.shape).uniform(0.2, 2, leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(draw, tree)


OPTIONS = [dict(), dict(use_scale=False), dict(use_bias=False), dict(epsilon=0.1)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_batch_norms_of_flax_are_absorbed(kind, options, normal, traces):
    images = normal(2, 4, 4, 3)
    apply_fn: Any = Linen(options).apply
    if kind == "linen":
        params = positive(jax.eval_shape(Linen(options).init, jax.random.key(0), images))
    else:
        definition, state = nnx.split(Nnx(**options))
        params = positive(state)
        apply_fn = lambda params, images: nnx.merge(definition, params)(images)  # noqa: E731

    network = traces(apply_fn, params, images)
    assert left(network) == []
    assert network.layers[0].biases == 4


def test_a_value_that_is_read_twice_is_not_absorbed(normal, traces):
    """The residual needs the convolution's own output: the scale belongs to one branch only."""

    def apply_fn(params, images):
        out = images @ params["w"]
        return out * params["c"] + jnp.tanh(out)

    params = {"w": normal(3, 4), "c": normal(1, 4)}
    network = traces(apply_fn, params, normal(5, 3))
    assert sorted(left(network)) == ["add", "mul", "tanh"]
    assert network.layers[0].biases == 0


def test_an_absorbed_value_may_be_the_output_itself(normal, traces):
    """Flattened networks end in `squeeze`; here the program's last equation is the bias."""

    def apply_fn(params, images):
        return (images[:, None] @ params["w"])[:, 0] + params["c"]

    params = {"w": normal(3, 4), "c": normal(1, 4)}
    traces(apply_fn, params, normal(5, 3))


@pytest.mark.parametrize("shape", [(1, 5, 5, 1), (1, 5, 5, 4)])
def test_what_varies_along_another_axis_is_not_absorbed(shape, normal, traces):
    def apply_fn(params, images):
        layout = ("NHWC", "HWIO", "NHWC")
        out = lax.conv_general_dilated(
            images, params["w"], (1, 1), "SAME", dimension_numbers=layout
        )
        return (out * params["c"]).reshape(images.shape[0], -1)

    params = {"w": normal(3, 3, 3, 4), "c": normal(*shape)}
    network = traces(apply_fn, params, normal(2, 5, 5, 3))
    assert left(network) == ["mul"]


@pytest.mark.parametrize(
    "after",
    [
        lambda y, x: y * x.mean(axis=1, keepdims=True),  # an operand that depends on the image
        lambda y, x: 1.0 / y,  # the value is the divisor
        lambda y, x: jnp.maximum(y, 0.1),
        lambda y, x: y**2,
    ],
)
def test_what_is_not_affine_with_fixed_operands_is_not_absorbed(after, normal, traces):
    def apply_fn(params, images):
        return after(images @ params["w"], images)

    images = jnp.abs(normal(5, 3)) + 0.1
    params = {"w": jnp.abs(normal(3, 4)) + 0.1}
    network = traces(apply_fn, params, images[:1])
    assert left(network) != []
    np.testing.assert_array_equal(network.parameters.layers["w"].kernel, params["w"])


def test_a_bias_behind_a_transpose_is_absorbed(normal, traces):
    """Attention heads: [B, T, H, K] is transposed to [B, H, T, K] before its bias is added."""

    def apply_fn(params, images):
        heads = jnp.einsum("btd,dhk->bhtk", images, params["heads"]["kernel"])
        heads = jnp.tanh((heads + params["heads"]["bias"]) * 2.0)
        return heads.reshape(images.shape[0], -1)

    params = {"heads": {"kernel": normal(5, 2, 3), "bias": normal(1, 2, 1, 3)}}
    network = traces(apply_fn, params, normal(2, 4, 5))
    assert (left(network), network.layers[0].biases) == (["tanh"], 6)


def test_a_batch_norm_in_float32_after_a_bfloat16_layer_is_absorbed(normal):
    """Mixed precision: the change of dtype between the two stays, and the layer computes wide."""

    def apply_fn(params, images):
        out = images.astype(jnp.bfloat16) @ params["w"].astype(jnp.bfloat16)
        return jnp.tanh(out.astype(jnp.float32) * params["scale"] + params["shift"])

    params = {"w": normal(3, 4), "scale": normal(1, 4), "shift": normal(2, 4)[:1]}
    network = trace(apply_fn, params, normal(5, 3))
    assert left(network) == ["convert_element_type", "convert_element_type", "tanh"]
    np.testing.assert_allclose(network(normal(5, 3)), apply_fn(params, normal(5, 3)), atol=0.02)


def test_folding_is_done_in_float64(normal):
    """A scale of 1/3 in four steps: in float32 each would round."""

    def apply_fn(params, images):
        return (images @ params["w"]) / params["c"] * params["d"] / params["d"] + params["c"]

    params = {"w": normal(3, 400), "c": normal(1, 400), "d": jnp.full((1, 400), 1.1)}
    network = trace(apply_fn, params, normal(5, 3))
    scale = 1 / np.float64(params["c"]) * np.float64(params["d"]) * (1 / np.float64(params["d"]))
    expected = (np.float64(params["w"]) * scale).astype(np.float32)
    layer = network.parameters.layers["w"]
    np.testing.assert_array_equal(layer.kernel, expected)
    in_float32 = params["w"] / params["c"] * params["d"] / params["d"]
    assert (np.asarray(in_float32) != expected).any(), "the example shows nothing"
    np.testing.assert_array_equal(layer.bias, params["c"][0])


def test_a_bias_of_zeros_is_a_bias(normal):
    """What a device stores cannot depend on the numbers: a fresh network has its biases."""
    params = {"w": normal(3, 4), "b": jnp.zeros((1, 4))}
    network = trace(lambda p, x: x @ p["w"] + p["b"], params, normal(5, 3))
    assert network.layers[0].biases == 4


def test_a_fold_that_is_not_finite_is_refused_by_the_layers_name(normal):
    params = {"stem": {"w": normal(3, 4)}, "variance": jnp.zeros((1, 4))}

    def apply_fn(params, images):
        return images @ params["stem"]["w"] * lax.rsqrt(params["variance"])

    with pytest.raises(InputError, match="layer stem holds NaN or infinity once"):
        trace(apply_fn, params, normal(5, 3))
