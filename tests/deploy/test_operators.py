"""Every primitive that is written as ONNX, and every form of a layer, against JAX itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.deploy.onnx.network import RULES
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.flatten import CALLS, CUSTOM

from .exports import FLOAT, assert_near, drawn, mapped, quantized_of, runner_of

SHAPE = (4, 6, 2)  # of what the functions below are given, one image
TABLE = drawn(10, 3)


def after_a_layer(*functions):
    """A network that gives each function one image's [4, 6, 2] after a layer, and has one after it.

    Its logits are seven for each of them.
    """

    def apply_fn(params, images):
        hidden = (images @ params["first"]["w"]).reshape(len(images), *SHAPE)
        logits = []
        for number, function in enumerate(functions):
            made = jnp.asarray(jax.vmap(function)(hidden)).astype(jnp.float32)
            flat = made.reshape(len(images), -1)
            logits.append(flat @ params[f"last {number}"]["w"][: flat.shape[1]])
        return jnp.concatenate(logits, axis=1)

    return apply_fn


TOGETHER = 9  # functions of a network: compiling takes most of the time
PARAMS = {f"last {number}": {"w": drawn(200, 7, seed=number)} for number in range(TOGETHER)}
PARAMS["first"] = {"w": drawn(5, 48)}


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
    "more padding than window": lambda x: jnp.maximum(  # windows of padding alone have -inf
        pooled("max", padding=((2, 0), (0, 4), (0, 0)))(x), -9.0
    ),
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


@pytest.mark.parametrize("first", range(0, len(FUNCTIONS), TOGETHER))
def test_what_lies_between_layers(first):
    images, names = drawn(4, 5, seed=1), list(FUNCTIONS)[first : first + TOGETHER]
    apply_fn = after_a_layer(*(FUNCTIONS[name] for name in names))
    exported = mapped(quantized_of(apply_fn, PARAMS, images), batch=2)
    found, expected = runner_of(exported)(images), jax.jit(apply_fn)(PARAMS, images)
    for number, name in enumerate(names):
        part = slice(7 * number, 7 * number + 7)
        span = np.ptp(expected[:, part])
        assert np.abs(found[:, part] - expected[:, part]).max() <= 2e-6 * span, name


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


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
CONVOLUTIONS = {  # layout, kernel, image, and what is not the default
    "usual": (NHWC, (3, 3, 4, 6), (7, 5, 4), {}),
    "channels first": (NCHW, (6, 4, 3, 3), (4, 7, 5), {}),
    "another layout": (("NHCW", "IHWO", "NWHC"), (4, 3, 2, 6), (7, 4, 5), {}),
    "strided": (NHWC, (3, 2, 4, 6), (7, 5, 4), dict(strides=(2, 1), padding=((2, 0), (-1, 3)))),
    "dilated": (NHWC, (3, 3, 4, 6), (7, 7, 4), dict(rhs_dilation=(2, 1))),
    "transposed": (NHWC, (2, 2, 4, 6), (4, 5, 4), dict(lhs_dilation=(2, 2), padding=((1, 1),) * 2)),
    "grouped": (NHWC, (3, 3, 2, 6), (5, 5, 4), dict(feature_group_count=2)),
    "depthwise": (NHWC, (3, 3, 1, 8), (5, 5, 4), dict(feature_group_count=4)),
    "of a series": (("NWC", "WIO", "NWC"), (3, 4, 6), (9, 4), dict(strides=(2,))),
}
PRODUCTS = {  # of an image and a kernel, or of a kernel and an image
    "vectors": ("bc,cd->bd", (4, 6), (4,)),
    "rows": ("btc,cd->btd", (4, 6), (3, 4)),
    "the first axis": ("btc,th->bch", (3, 5), (3, 4)),
    "two axes in and out": ("btc,tchd->bhd", (3, 4, 2, 5), (3, 4)),
    "rows of several heads": ("btc,hcd->bhtd", (2, 4, 5), (3, 4)),
    "a product for each row": ("btc,tcd->btd", (3, 4, 5), (3, 4)),
    "kernel on the left": ("oc,btc->bot", (5, 4), (3, 4)),
}


def layer_of(name):
    """A network of one biased layer, its kernel, and an image's shape."""
    if name in PRODUCTS:
        equation, kernel, image = PRODUCTS[name]

        def apply_fn(params, x):
            operands = (x, params["w"]) if equation.startswith("b") else (params["w"], x)
            return jnp.einsum(equation, *operands).reshape(len(x), -1) + 0.3

    else:
        layout, kernel, image, changes = CONVOLUTIONS[name]
        options = dict(padding="SAME", dimension_numbers=layout) | changes
        strides = options.pop("strides", (1, 1))

        def apply_fn(params, x):
            made = lax.conv_general_dilated(x, params["w"], strides, **options)
            return made.reshape(len(x), -1) + 0.3

    return apply_fn, {"w": drawn(*kernel)}, drawn(3, *image)


LAYER_FORMATS = {
    "float32": FLOAT,
    "int8": QFormat(bits=8, frac=4, scale="channel"),
    "int8, one step": QFormat(bits=8, frac=4),
    "int8, steps from maxima": QFormat(bits=8, frac=4, scale="channel", step="maximum"),
    "10 bits": QFormat(bits=10, frac=6, scale="channel"),
    "bfloat16": QFormat(kind="bfloat16"),
}


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *PRODUCTS])
def test_layers_of_every_form_in_every_format(name):
    """Every form in two formats, and two forms in all."""
    apply_fn, params, images = layer_of(name)
    few = () if name in ("usual", "vectors") else ("float32", "int8")
    for fmt in few or LAYER_FORMATS:
        quantized = quantized_of(apply_fn, params, images, LAYER_FORMATS[fmt])
        found = runner_of(mapped(quantized, [0], batch=3))(images)
        assert_near(found, np.asarray(quantized(images)), 1e-6)
