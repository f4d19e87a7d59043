"""Folding: what is absorbed into a layer, what must not be, and that the function is the same."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.trace import trace


def left(network):
    """The names of what is still computed outside the layers, layouts and reductions apart."""
    layout = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "reduce_sum", "dot_general")
    names = [step.primitive.name for step in network.program.steps]
    return [name for name in names if name not in (*layout, "conv_general_dilated")]


CHAINS = {
    "add": (lambda y, c: y + c, 4),
    "add zeros": (lambda y, c: 0 * c + y, 4),  # what a device stores is no matter of numbers
    "sub": (lambda y, c: y - c, 4),
    "sub from the left": (lambda y, c: c - y, 4),
    "mul": (lambda y, c: c * y, 0),
    "div": (lambda y, c: y / c, 0),
    "neg": (lambda y, c: -y, 0),
    "scalars": (lambda y, c: 3.0 - (2.0 * y + 1.0) / 4.0, 4),
    "arrays of one number": (lambda y, c: y * jnp.full_like(y, 2.0) + jnp.ones_like(y), 4),
    "a long chain": (lambda y, c: -((c - y * c) / c + c) * 0.5 - c, 4),
}


@pytest.mark.parametrize("axis", [1, 3])
def test_chains_of_affine_equations_are_absorbed(axis, normal, traces):
    """Channels on axis 1 (as ONNX exports them) and last; a bias counts where one is added.

    Each chain stands behind a layer of its own.
    """
    layout = ("NCHW", "OIHW", "NCHW") if axis == 1 else ("NHWC", "HWIO", "NHWC")
    kernel, images = ((4, 3, 3, 3), (2, 3, 5, 5)) if axis == 1 else ((3, 3, 3, 4), (2, 5, 5, 3))
    channels = [4 if a == axis else 1 for a in range(4)]

    def apply_fn(params, images):
        made = []
        for name, (after, _) in CHAINS.items():
            own = params[name]
            out = lax.conv_general_dilated(
                images, own["kernel"], (1, 1), "SAME", dimension_numbers=layout
            )
            made.append(after(out, own["c"]).reshape(images.shape[0], -1))
        return jnp.concatenate(made, axis=1)

    own = {"kernel": normal(*kernel), "c": jnp.abs(normal(*channels)) + 0.5}
    network = traces(apply_fn, dict.fromkeys(CHAINS, own), normal(*images), *CHAINS)
    assert left(network) == ["concatenate"]
    biases = {name: count for name, (_, count) in CHAINS.items()}
    assert {layer.name: layer.biases for layer in network.layers} == biases
    stored = network.parameters.layers
    assert {name for name in CHAINS if stored[name].bias is not None} == {
        name for name, count in biases.items() if count
    }


class Linen(nn.Module):
    options: dict

    @nn.compact
    def __call__(self, images):
        hidden = nn.Conv(4, (3, 3), use_bias=False)(images)
        hidden = nn.BatchNorm(use_running_average=True, **self.options)(hidden)
        return hidden.reshape(hidden.shape[0], -1)


def positive(tree):
    def draw(leaf):
        values = np.random.default_rng(leaf.shape).uniform(0.2, 2, leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(draw, tree)


def test_an_absorbed_value_may_be_the_output_itself(normal, traces):
    """Flattened networks end in `squeeze`; here the program's last equation is the bias."""

    def apply_fn(params, images):
        return (images[:, None] @ params["w"])[:, 0] + params["c"]

    params = {"w": normal(3, 4), "c": normal(1, 4)}
    traces(apply_fn, params, normal(5, 3))


@pytest.mark.parametrize(
    "options", [dict(), dict(use_scale=False), dict(use_bias=False), dict(epsilon=0.1)], ids=str
)
def test_batch_norms_of_flax_are_absorbed(options, normal, traces):
    images = normal(2, 4, 4, 3)
    params = positive(jax.eval_shape(Linen(options).init, jax.random.key(0), images))
    network = traces(Linen(options).apply, params, images)
    assert left(network) == []
    assert network.layers[0].biases == 4


NOT_ABSORBED = {
    "read twice": lambda y, x, c: y * c["channel"] + jnp.tanh(y),  # the scale is one branch's
    "along another axis": lambda y, x, c: y * c["token"],
    "along two axes": lambda y, x, c: y * c["both"],
    "made of the image": lambda y, x, c: y * x.mean(axis=2, keepdims=True),
    "the value is the divisor": lambda y, x, c: 1.0 / y,
    "a maximum": lambda y, x, c: jnp.maximum(y, 0.1),
    "a power": lambda y, x, c: y**2,
}


def test_what_is_not_affine_per_channel_with_fixed_operands_is_not_absorbed(normal, traces):
    def apply_fn(params, images):
        made = [
            after(images @ params["w"][name], images, params["c"]).reshape(images.shape[0], -1)
            for name, after in NOT_ABSORBED.items()
        ]
        return jnp.concatenate(made, axis=1)

    shapes = dict(channel=(1, 1, 4), token=(1, 5, 1), both=(1, 5, 4))
    factors = {name: normal(*shape) for name, shape in shapes.items()}
    w = jnp.abs(normal(3, 4)) + 0.1
    params = {"w": dict.fromkeys(NOT_ABSORBED, w), "c": factors}
    network = traces(apply_fn, params, jnp.abs(normal(2, 5, 3)) + 0.1)
    assert [layer.biases for layer in network.layers] == [0] * len(NOT_ABSORBED)
    for layer in network.parameters.layers.values():
        np.testing.assert_array_equal(layer.kernel, w)
    assert {"tanh", "max", "div"} < set(left(network))


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


def test_a_fold_that_is_not_finite_is_refused_by_the_layers_name(normal):
    params = {"stem": {"w": normal(3, 4)}, "variance": jnp.zeros((1, 4))}

    def apply_fn(params, images):
        return images @ params["stem"]["w"] * lax.rsqrt(params["variance"])

    with pytest.raises(InputError, match="layer stem holds NaN or infinity once"):
        trace(apply_fn, params, normal(5, 3))
