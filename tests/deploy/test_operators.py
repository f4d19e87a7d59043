"""Every primitive that is written as ONNX, and every form of a layer, against JAX itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.deploy.onnx.network import RULES
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.flatten import CALLS, CUSTOM

from .exports import FLOAT, assert_exports, assert_near, drawn, mapped, quantized_of, runner_of

SHAPE = (4, 6, 2)  # of what the functions below are given, one image
TABLE = drawn(10, 3)


def after_a_layer(function):
    """A network that gives `function` one image's [4, 6, 2] after a layer, and a layer after it."""

    def apply_fn(params, images):
        hidden = (images @ params["first"]["w"]).reshape(len(images), *SHAPE)
        made = jax.vmap(function)(hidden)
        flat = jnp.asarray(made).astype(jnp.float32).reshape(len(images), -1)
        return flat @ params["last"]["w"][: flat.shape[1]]

    return apply_fn


PARAMS = {"first": {"w": drawn(5, 48)}, "last": {"w": drawn(200, 7)}}


def pooled(kind, **options):
    reducer = {"max": lax.max, "min": lax.min, "sum": lax.add}[kind]
    start = {"max": -np.inf, "min": np.inf, "sum": 0.0}[kind]
    given = {"window_dimensions": (2, 3, 1), "window_strides": (1, 2, 1), "padding": "SAME"}
    given |= options
    return lambda x: lax.reduce_window(x, np.float32(start), reducer, **given)


def number(x):
    return x.astype(jnp.float32)


def with_own_rules(x):
    @jax.custom_jvp
    def doubled(x):
        return 2 * x

    doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))
    return jax.checkpoint(lambda x: doubled(jnp.sin(x)))(x) + lax.stop_gradient(x)


def looked_up(x):
    return jnp.take(TABLE, jnp.clip((x * 4).astype(jnp.int32), 0, 9)[..., 0], axis=0)


def attention(x):
    scores = jnp.einsum("qsc,ksc->qk", x, x)
    return jnp.einsum("qk,ksc->qsc", jax.nn.softmax(scores), x)


FUNCTIONS = {
    "arithmetic": lambda x: (x + 1.5) * x - x / (2 + x * x) + (-x),
    "extremes": lambda x: jnp.maximum(x, 0.25) + jnp.minimum(x, x[::-1]),
    "exponentials": lambda x: jnp.exp(x) + jnp.log(x * x + 1) + jnp.log1p(x * x) + jnp.expm1(x),
    "squares": lambda x: jnp.square(x) + x**3 + (x + 3) ** -2 + jnp.exp2(x) + (x * x) ** 1.5,
    "roots": lambda x: jnp.sqrt(x * x + 1) + lax.rsqrt(x * x + 1),
    "waves": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.tanh(x) + jnp.arctan(x) + jnp.sinh(x / 4),
    "activations": lambda x: jax.nn.gelu(x, approximate=False) + jax.nn.sigmoid(x) + jax.nn.silu(x),
    "clipped": lambda x: jax.nn.relu6(4 * x) + lax.clamp(-0.5, x, 0.75) + jax.nn.leaky_relu(x),
    "error function": lambda x: lax.erf(x) + lax.erfc(x * 2),
    "signs": lambda x: jnp.sign(x) * jnp.abs(x) + jnp.floor(3 * x) - jnp.ceil(2 * x),
    "halves to even": lambda x: jnp.round(jnp.round(x * 4) / 2),
    "halves away": lambda x: lax.round(jnp.round(x * 4) / 2, lax.RoundingMethod.AWAY_FROM_ZERO),
    "comparisons": lambda x: jnp.where((x > 0.5) | (x <= -0.5) & (x != 0), x, 2 - x),
    "more comparisons": lambda x: number(x >= 0) + number((x < 1) & ((x == x) ^ (x > 2))),
    "choices": lambda x: lax.select_n(jnp.int32(x > 0) + jnp.int32(x > 1), x, 2 * x, 3 * x),
    "finite": lambda x: jnp.where(jnp.isfinite(1 / jnp.maximum(x, 0)), x, 2.0),
    "remainders": lambda x: (
        lax.rem(7 * x, np.float32(2)) + number(lax.rem(jnp.int32(9 * x), np.int32(4)))
    ),
    "integers": lambda x: jnp.int32(8 * x) // 3 * 5 + (jnp.int32(4 * x) & 3 | 8),
    "not": lambda x: number(~(x > 0)) * x + number(~jnp.int32(4 * x)),
    "sums": lambda x: x.sum(axis=1, keepdims=True) + x.mean(axis=(0, 2), keepdims=True),
    "largest": lambda x: x.max(axis=0) - x.min(axis=(0, 1))[None],
    "products": lambda x: (1 + x / 8).prod(axis=1),
    "any and all": lambda x: number((x > 1).any(axis=1)) + 2 * number((x > -1).all(axis=1)),
    "places": lambda x: x.argmax(axis=1) * 2 + x.argmin(axis=1),
    "running sums": lambda x: x.cumsum(axis=1) + lax.cumsum(x, axis=0, reverse=True),
    "shapes": lambda x: x.transpose(2, 0, 1).reshape(6, 8)[:, None, :, None].squeeze(1),
    "broadcasts": lambda x: (
        x + jnp.broadcast_to(x[:, :1], x.shape) + jnp.arange(6.0)[None, :, None]
    ),
    "joined": lambda x: jnp.concatenate([x, jnp.ones((4, 1, 2)), x[:, 2:5]], axis=1),
    "parts": lambda x: jnp.split(x, [1, 4], axis=1)[1] * 2,
    "slices": lambda x: x[1:4:2, ::-1, :1],
    "reversed": lambda x: lax.rev(x, (0, 2)),
    "a slice at a known place": lambda x: lax.dynamic_slice(x, (1, 3, 0), (2, 3, 2)),
    "padded": lambda x: lax.pad(x, np.float32(2), ((1, 0, 0), (-2, 3, 1), (0, -1, 2))),
    "picked": lambda x: x[jnp.array([3, 0, 3]), :, jnp.array([1, 1, 0])],
    "picked outside": lambda x: x.at[jnp.array([1, 9])].get(mode="fill", fill_value=7.0),
    "looked up": looked_up,
    "largest of windows": pooled("max"),
    "windows that are dilated": pooled("max", window_dilation=(2, 1, 1)),
    "windows over dilated images": pooled("max", base_dilation=(2, 1, 1), padding="VALID"),
    "smallest of windows": pooled("min"),
    "sums of windows": pooled("sum"),
    "dilated sums": pooled("sum", window_dilation=(1, 2, 1)),
    "sums over channels": pooled("sum", window_dimensions=(1, 1, 2), window_strides=(1, 1, 1)),
    "the sum of all": pooled("sum", window_dimensions=(4, 6, 1), padding="VALID"),
    "windows in three axes": pooled("max", window_dimensions=(2, 2, 2)),
    "windows that begin at 0": lambda x: lax.reduce_window(
        x, np.float32(0), lax.max, (2, 2, 1), (2, 2, 1), "VALID"
    ),
    "more padding than window": pooled("max", padding=((2, 0), (0, 4), (0, 0))),
    "windows of integers": lambda x: lax.reduce_window(
        jnp.int32(8 * x), np.int32(-(2**31)), lax.max, (2, 2, 1), (1, 1, 1), "VALID"
    ),
    "attention": attention,
    "a convolution of two tensors": lambda x: lax.conv_general_dilated(
        x[None], x[:2, :3, :, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "rules of its own": with_own_rules,
    "a barrier": lambda x: lax.optimization_barrier((x, x + 1))[1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_lies_between_layers(name):
    images = drawn(4, 5, seed=1)
    assert_exports(after_a_layer(FUNCTIONS[name]), PARAMS, images, tolerance=2e-6)


def test_the_functions_above_use_every_primitive_that_is_written():
    found: set[str] = set()

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            found.add(eqn.primitive.name)
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    walk(inner)

    for function in FUNCTIONS.values():
        walk(jax.make_jaxpr(jax.vmap(function))(jnp.zeros((2, *SHAPE))).jaxpr)
    others = {"add_any", "copy", "copy_p", "tan", "cosh", "asin", "acos", "asinh", "acosh", "atanh"}
    assert set(RULES) - found - others == set()
    assert {"custom_jvp_call"} <= found & {*CALLS, *CUSTOM}


def test_an_unknown_primitive_is_named_with_the_layer_near_it():
    quantized = quantized_of(after_a_layer(lambda x: lax.digamma(x + 9)), PARAMS, drawn(2, 5))
    with pytest.raises(InputError, match=r"`digamma` \(near first/digamma\) is no primitive"):
        mapped(quantized, [0, 0])


def test_places_that_depend_on_the_image_are_refused():
    def function(x):
        return lax.dynamic_slice(x, (jnp.int32(x[0, 0, 0]), 0, 0), (2, 6, 2))

    quantized = quantized_of(after_a_layer(function), PARAMS, drawn(2, 5))
    with pytest.raises(InputError, match=r"`(gather|dynamic_slice)` at places that depend on"):
        mapped(quantized, [0, 0])


def convolution(layout, kernel, *, strides=(1, 1), padding: Any = "SAME", **options):
    def apply_fn(params, images):
        made = lax.conv_general_dilated(
            images, params["w"], strides, padding, dimension_numbers=layout, **options
        )
        return made.reshape(len(images), -1)

    return apply_fn, {"w": drawn(*kernel)}


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
CONVOLUTIONS = {
    "usual": (convolution(NHWC, (3, 3, 4, 6)), (7, 5, 4)),
    "channels first": (convolution(NCHW, (6, 4, 3, 3)), (4, 7, 5)),
    "another layout": (convolution(("NHCW", "IHWO", "NWHC"), (4, 3, 2, 6)), (7, 4, 5)),
    "strides and padding": (
        convolution(NHWC, (3, 2, 4, 6), strides=(2, 1), padding=((2, 0), (-1, 3))),
        (7, 5, 4),
    ),
    "dilated": (convolution(NHWC, (3, 3, 4, 6), rhs_dilation=(2, 1)), (7, 7, 4)),
    "transposed": (
        convolution(NHWC, (2, 2, 4, 6), lhs_dilation=(2, 2), padding=((1, 1), (1, 1))),
        (4, 5, 4),
    ),
    "grouped": (convolution(NHWC, (3, 3, 2, 6), feature_group_count=2), (5, 5, 4)),
    "depthwise": (convolution(NHWC, (3, 3, 1, 8), feature_group_count=4), (5, 5, 4)),
    "of a series": (
        (
            lambda p, x: lax.conv_general_dilated(
                x, p["w"], (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
            ).reshape(len(x), -1),
            {"w": drawn(3, 4, 6)},
        ),
        (9, 4),
    ),
}
PRODUCTS = {
    "vectors": (lambda p, x: x @ p["w"], (4, 6), (4,)),
    "rows": (lambda p, x: (x @ p["w"]).reshape(len(x), -1), (4, 6), (3, 4)),
    "the first axis": (
        lambda p, x: jnp.einsum("btc,th->bch", x, p["w"]).reshape(len(x), -1),
        (3, 5),
        (3, 4),
    ),
    "two axes in and out": (
        lambda p, x: jnp.einsum("btc,tchd->bhd", x, p["w"]).reshape(len(x), -1),
        (3, 4, 2, 5),
        (3, 4),
    ),
    "rows of several heads": (
        lambda p, x: jnp.einsum("btc,hcd->bhtd", x, p["w"]).reshape(len(x), -1),
        (2, 4, 5),
        (3, 4),
    ),
    "a product for each row": (
        lambda p, x: jnp.einsum("btc,tcd->btd", x, p["w"]).reshape(len(x), -1),
        (3, 4, 5),
        (3, 4),
    ),
    "kernel on the left": (
        lambda p, x: jnp.einsum("oc,btc->bot", p["w"], x).reshape(len(x), -1),
        (5, 4),
        (3, 4),
    ),
}
LAYERS = {
    **CONVOLUTIONS,
    **{name: ((f, {"w": drawn(*w)}), image) for name, (f, w, image) in PRODUCTS.items()},
}
LAYER_FORMATS = {
    "float32": FLOAT,
    "int8": QFormat(bits=8, frac=4, scale="channel"),
    "int8, one step": QFormat(bits=8, frac=4),
    "int8, steps from maxima": QFormat(bits=8, frac=4, scale="channel", step="maximum"),
    "10 bits": QFormat(bits=10, frac=6, scale="channel"),
    "bfloat16": QFormat(kind="bfloat16"),
}


@pytest.mark.in_ci(
    "usual",
    "channels first",
    "strides and padding",
    "transposed",
    "grouped",
    "vectors",
    "two axes in and out",
    "rows of several heads",
)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_every_form_in_every_format(name):
    (apply_fn, params), shape = LAYERS[name]
    images = drawn(3, *shape)

    def biased(params, images):
        return apply_fn(params, images) + 0.3

    for fmt in LAYER_FORMATS.values():
        quantized = quantized_of(biased, params, images, fmt)
        found = runner_of(mapped(quantized, [0], batch=3))(images)
        assert_near(found, np.asarray(quantized(images)), 1e-6)
