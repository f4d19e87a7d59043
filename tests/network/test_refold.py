"""Folded parameters as a differentiable function of the original ones."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.fold import FoldedLayer
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace, trace_with_refold


def close(got: Any, expected: Any, tolerance: float) -> None:
    """Every array within `tolerance` of the expected one's largest magnitude."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), path
        atol = tolerance * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=str(path))


def positive(tree: Any, seed: int = 0) -> Any:
    """Every array drawn anew from 0.2 to 2, kernels of both signs and small."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        drawn = rng.uniform(0.2, 2, leaf.shape)
        if leaf.ndim > 1:
            drawn *= rng.choice([-1, 1], leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree.map(draw, tree)


def conv(images, kernel, layout=("NHWC", "HWIO", "NHWC"), **options):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=layout, **options
    )


def batch_norm(norm, hidden):
    hidden = (hidden - norm["mean"]) * (norm["scale"] * lax.rsqrt(norm["var"] + 1e-5))
    return hidden + norm["bias"]


def wide(vector):
    return vector.reshape(1, -1, 1, 1)


def normalised(params, images):
    """Convolution with bias, batch norm; channels first, as ONNX exports them."""
    hidden = conv(images.transpose(0, 3, 1, 2), params["conv"], ("NCHW", "OIHW", "NCHW"))
    hidden = hidden + wide(params["bias"])
    hidden = jax.nn.relu(batch_norm(jax.tree.map(wide, params["norm"]), hidden))
    return hidden.mean((2, 3)) @ params["head"]


def layer_scale(params, images):
    """ConvNeXt's block: depthwise, LayerNorm (constants outside layers), scale, residual."""
    hidden = conv(images, params["conv"], feature_group_count=3)
    spread = hidden - hidden.mean(-1, keepdims=True)
    hidden = spread * lax.rsqrt((spread**2).mean(-1, keepdims=True) + 1e-6)
    hidden = hidden * params["norm"]["scale"][None, None, None] + params["norm"]["bias"]
    hidden = jnp.tanh(hidden @ params["up"]) @ params["down"]
    return (images + hidden * params["gamma"].reshape(1, 1, 1, -1)).reshape(images.shape[0], -1)


def chain(params, images):
    """neg, sub from both sides, div, scalars, and a sum of parameters alone."""
    c, d = params["c"][None], params["d"][None]
    hidden = (c - images.reshape(images.shape[0], -1) @ params["w"]) / d
    return jnp.tanh(-(hidden * (c + d) - 1.5) / 2.0) @ params["head"] - params["e"][None]


def transposes(params, images):
    """A bias of two channel axes behind a transpose, and one kernel in two layers."""
    tokens = images.reshape(images.shape[0], 16, 3)
    heads = jnp.einsum("btd,dhk->bhtk", tokens, params["heads"])
    heads = jnp.tanh((heads + params["bias"]) * 0.5).mean((1, 2))
    return jnp.tanh(heads @ params["shared"]) @ params["shared"]


NORM = dict(mean=(4,), var=(4,), scale=(4,), bias=(4,))
NETWORKS = {
    "normalised": (normalised, dict(conv=(4, 3, 3, 3), bias=(4,), norm=NORM, head=(4, 5))),
    "layer_scale": (
        layer_scale,
        dict(
            conv=(3, 3, 1, 3),
            norm=dict(scale=(3,), bias=(1, 1, 1, 3)),
            up=(3, 7),
            down=(7, 3),
            gamma=(3,),
        ),
    ),
    "chain": (chain, dict(w=(48, 6), c=(6,), d=(6,), e=(4,), head=(6, 4))),
    "transposes": (transposes, dict(heads=(3, 2, 3), bias=(1, 2, 1, 3), shared=(3, 3))),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request, normal):
    """A function, its parameters and images, its trace and refold."""
    images = normal(3, 4, 4, 3)

    apply_fn, shapes = NETWORKS[request.param]
    arrays = jax.tree.map(
        lambda shape: jnp.zeros(shape), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    params = positive(arrays)
    return apply_fn, params, images, *trace_with_refold(apply_fn, params, images)


def test_refold_of_the_same_and_other_parameters_is_their_trace(case):
    apply_fn, params, images, network, refold = case
    close(jax.jit(refold)(params), network.parameters, 1e-6)
    others = positive(params, seed=1)
    expected = trace(apply_fn, others, images)
    close(refold(others), expected.parameters, 1e-6)


def test_gradients_are_those_of_the_function_itself(case):
    """Of every parameter, batch norm's mean and variance too."""
    apply_fn, params, images, network, refold = case
    quantized = quantize(network, QFormat(kind="float32"))
    cotangent = jnp.asarray(np.random.default_rng(2).normal(size=network(images).shape))

    def through_layers(params):
        logits = replace(quantized, parameters=refold(params))(images)
        return (logits * cotangent.astype(logits.dtype)).sum()

    def direct(params):
        logits: Any = apply_fn(params, images)
        return (logits * cotangent.astype(logits.dtype)).sum()

    (got, gradient) = jax.jit(jax.value_and_grad(through_layers))(params)
    (expected, original) = jax.jit(jax.value_and_grad(direct))(params)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    close(gradient, original, 1e-4)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(original)), "shows nothing"


@pytest.mark.in_ci("transposes", "normalised")
@pytest.mark.parametrize("case", NETWORKS, indirect=True)
def test_gradients_under_faults_are_finite_and_reach_every_parameter(case):
    _, params, images, network, refold = case
    quantized, faults = quantize(network, QFormat()), FaultModel()

    @jax.jit
    @jax.value_and_grad
    def loss(params, trial):
        struck = replace(quantized, parameters=refold(params))
        return (struck(images, faults=faults, key=jax.random.key(7), trial=trial) ** 2).mean()

    values, gradients = zip(*(loss(params, jnp.int32(trial)) for trial in range(2)), strict=True)
    assert values[0] != values[1]
    for gradient in gradients:
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.isfinite(leaf).all() and (leaf != 0).any(), path


def test_arrays_that_a_function_closes_over_stay(normal):
    kernel, shift = np.asarray(normal(4, 3)), normal(1, 3)

    def apply_fn(params, images):
        return jnp.tanh(images @ (kernel * params["gain"]) + shift) + jax.jit(lambda: shift * 2)()

    params = {"gain": normal(1, 3)}
    _, refold = trace_with_refold(apply_fn, params, normal(2, 4))
    others = {"gain": normal(2, 3)[:1]}
    close(refold(others), trace(apply_fn, others, normal(2, 4)).parameters, 1e-6)


def test_a_kernel_that_is_a_broadcast_is_laid_out(normal):
    def apply_fn(params, images):
        return images @ jnp.broadcast_to(params["row"], (4, 3)) + params["shift"]

    params = {"row": normal(3), "shift": normal(1, 1)}
    network, refold = trace_with_refold(apply_fn, params, normal(2, 4))
    expected = np.broadcast_to(params["row"], (4, 3))
    np.testing.assert_array_equal(network.parameters.layers["row"].kernel, expected)
    close(refold(params), network.parameters, 1e-6)
    gradient = jax.grad(lambda p: refold(p).layers["row"].kernel.sum())(params)
    np.testing.assert_array_equal(gradient["row"], 4)


def test_half_precision_parameters_have_gradients_of_their_own_dtype(normal):
    def apply_fn(params, images):
        return (images.astype(jnp.bfloat16) @ params["w"]).astype(jnp.float32) * params["scale"]

    params = {"w": normal(3, 4).astype(jnp.bfloat16), "scale": normal(1, 4)}
    _, refold = trace_with_refold(apply_fn, params, normal(5, 3))
    gradient = jax.grad(lambda p: refold(p).layers["w"].kernel.sum())(params)
    expected = np.broadcast_to(params["scale"], (3, 4)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(gradient["w"], expected)
    total = np.asarray(params["w"], np.float32).sum(0, keepdims=True)
    np.testing.assert_allclose(gradient["scale"], total, rtol=1e-6)


def test_what_is_no_array_stays_as_it_was_traced(normal):
    """A number becomes a tracer under jit, and NumPy's float64 is what JAX makes of it."""
    params = {"w": np.asarray(normal(4, 3), np.float64), "scale": 2}

    def apply_fn(params, images):
        return images @ params["w"] * params["scale"]

    network, refold = trace_with_refold(apply_fn, params, normal(2, 4))
    close(jax.jit(refold)(params), network.parameters, 1e-6)
    np.testing.assert_allclose(refold(params | {"scale": 3}).layers["w"].kernel, params["w"] * 2)


def test_random_keys_and_integers_are_parameters_too(normal):
    def apply_fn(params, images):
        noise = jax.random.uniform(params["key"], (1, 3))
        return jnp.tanh(images @ params["w"][params["rows"]]) + noise

    params = {"w": normal(4, 3), "rows": jnp.array([3, 0, 0, 1]), "key": jax.random.key(3)}
    _, refold = trace_with_refold(apply_fn, params, normal(2, 4))
    others = params | {"rows": jnp.array([1, 1, 2, 0]), "key": jax.random.key(4)}
    close(refold(others), trace(apply_fn, others, normal(2, 4)).parameters, 1e-6)


def test_another_pytree_is_refused_in_one_line(normal):
    params = {"w": normal(4, 3), "b": normal(1, 3)}
    _, refold = trace_with_refold(lambda p, x: x @ p["w"] + p["b"], params, normal(2, 4))
    with pytest.raises(InputError, match=r"other leaves \(b, c\)"):
        refold({"w": params["w"], "c": params["b"]})
    with pytest.raises(InputError, match=r"b is float32\[1, 4\].*traced with float32\[1, 3\]"):
        refold(params | {"b": normal(1, 4)})
    with pytest.raises(InputError, match=r"w is bfloat16\[4, 3\]"):
        jax.jit(refold)(params | {"w": params["w"].astype(jnp.bfloat16)})


def test_refold_is_traced_once(normal, monkeypatch):
    """Called in a loop of Python, it must not run its equations one by one, or compile anew."""
    params = {"w": normal(4, 3), "log": normal(1, 3)}

    def apply_fn(params, images):
        return images @ params["w"] * jnp.exp(params["log"])

    (_, refold), (_, fresh) = (trace_with_refold(apply_fn, params, normal(2, 4)) for _ in range(2))
    first = refold(params)
    monkeypatch.delattr(FoldedLayer, "arrays")
    close(refold(params), first, 0)
    with pytest.raises(AttributeError, match="arrays"):
        fresh(params)
