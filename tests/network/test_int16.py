"""A layer's products of 9 to 16 bits by products of bytes, against 64-bit integers of NumPy."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.faults.model import FaultModel
from afpjax.network import int8, int16
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace
from afpjax.network.units import bind, multiply, of_layer

from .integers import convolve
from .test_int8 import DOTS, NHWC, WINDOWS, integers, layer
from .test_units import codes, layer_on_units

NCHW = ("NCHW", "OIHW", "NCHW")


def every_code(rng, *shape):
    """Codes of 16 bits: both extremes, those beside a change of parts, zeros, and any."""
    some = [-(2**15), 2**15 - 1, 32640, 32639, -129, -128, 127, 128, 255, 256, -1, 0, 0]
    drawn = rng.integers(-(2**15), 2**15, shape)
    return np.where(rng.random(shape) < 0.5, rng.choice(some, shape), drawn)


def product(function, left, right):
    """`function(left, right)`, one convolution or dot product, of codes as int16."""
    left, right = (jnp.asarray(each, jnp.int16) for each in (left, right))
    (said,) = jax.make_jaxpr(function)(left, right).eqns
    return partial(bind, said.primitive, said.params), left, right


def conv(options):
    return lambda a, b: lax.conv_general_dilated(a, b, **options)


@pytest.mark.parametrize("number", range(len(WINDOWS)))
def test_convolutions_are_those_of_integers_rounded_once(number):
    """A batch of images at once, and each by itself under `vmap`."""
    case: Any = WINDOWS[number]
    layout = (NHWC, NCHW)[number % 2]
    sizes, (inputs, outputs), window, options = case
    rng = np.random.default_rng(sizes[0])
    image, kernel = every_code(rng, 3, *sizes, inputs), every_code(rng, *window, inputs, outputs)
    expected = np.asarray(integers(image, kernel, options), np.float32)
    if layout is NCHW:
        image, kernel = image.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
        expected = expected.transpose(0, 3, 1, 2)
    told = dict(window_strides=(1, 1), dimension_numbers=layout) | options
    of, image, kernel = product(conv(told), image, kernel)

    @jax.jit
    def either(image, kernel):
        return of(image, kernel), jax.vmap(lambda a: of(a[None], kernel)[0])(image)

    for found in either(image, kernel):
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_images_and_kernels_of_many_are_those_of_integers(groups):
    """Batches of either operand and of both, one inside the other, in groups too."""
    rng = np.random.default_rng(groups)
    images, kernels = every_code(rng, 2, 3, 7, 6, 4), every_code(rng, 3, 3, 2, 4 // groups, 8)
    case: dict[str, Any] = dict(
        stride=(2, 1), padding=((1, 1), (0, 1)), dilation=(1, 2), groups=groups
    )
    expected = np.asarray([[convolve(a, b, **case) for b in kernels] for a in images], np.float32)
    told = dict(
        window_strides=case["stride"],
        padding=case["padding"],
        rhs_dilation=case["dilation"],
        feature_group_count=groups,
        dimension_numbers=NHWC,
    )
    of, _, _ = product(conv(told), images[0], kernels[0])
    images, kernels = (jnp.asarray(each, jnp.int16) for each in (images, kernels))
    each = jax.vmap(of, in_axes=(None, 0))
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(each, in_axes=(0, None)))(images, kernels), expected
    )
    np.testing.assert_array_equal(jax.vmap(of)(images, kernels[:2]), expected[[0, 1], [0, 1]])


@pytest.mark.parametrize("name", DOTS)
def test_dot_products_are_those_of_integers_rounded_once(name):
    *shapes, inner, batch, text = DOTS[name]
    rng = np.random.default_rng(1)
    left, right = (every_code(rng, *shape) for shape in shapes)
    of, *both = product(partial(lax.dot_general, dimension_numbers=(inner, batch)), left, right)
    np.testing.assert_array_equal(jax.jit(of)(*both), np.float32(np.einsum(text, left, right)))


def test_every_pair_of_a_code_with_an_extreme_one_is_exact():
    """All 65,536 codes by the extremes and the neighbours of where parts change."""
    image = np.arange(-(2**15), 2**15)[:, None]
    edges = np.array([[-(2**15), -32640, -257, -256, -1, 0, 1, 127, 128, 255, 256, 32640, 32767]])
    found = layer_on_units(lambda w, x: x @ w, edges.shape, image.shape, 16, "int8")(edges, image)
    np.testing.assert_array_equal(found, np.float32(image * edges))


@pytest.mark.parametrize("pair", [(-(2**15), -(2**15)), (-(2**15), 2**15 - 1), (-1, -1), (255, -1)])
def test_the_longest_sums_of_the_worst_codes_do_not_wrap_around(pair):
    """Upper bytes of -128, lower ones of 255, and both at once."""
    terms = int16.MOST_TERMS
    assert (2 * 128 * 255 + 255**2 // 256 + 1) * terms < 2**31
    for left, right in (pair, (pair[0] | 255, pair[1] | 255)):
        operands = np.full((2, terms), left), np.full((terms, 3), right)
        of, *both = product(lax.dot, *operands)
        np.testing.assert_array_equal(
            jax.jit(of)(*both), np.full((2, 3), np.float32(left * right * terms))
        )


def test_sums_beside_a_halfway_place_are_rounded_as_the_integer_is():
    """Around 2^40, where what is rounded changes, and beyond: by one more or less than halfway."""
    high = np.array([2**24 - 1, 2**24, 2**24 + 1, 2**24 + 2, 2**24 + 3, 2**25 + 2, 2**29 + 16])
    high = np.concatenate([high, -high, -high - 1])[:, None, None]
    middle, low = np.array([0, 1, 127, 128, 255, -256])[:, None], np.array([0, 1, 255, 256])
    exact = 2**16 * high + 2**8 * middle + low
    parts = (np.broadcast_to(part, exact.shape).astype(np.int32) for part in (high, middle, low))
    np.testing.assert_array_equal(jax.jit(int16._rounded)(*parts), np.float32(exact))


@pytest.mark.parametrize("bits", [9, 10, 13, 16])
def test_a_sum_is_the_integer_rounded_once(bits):
    rng = np.random.default_rng(bits)
    image, kernel = codes(rng, bits, 5, 4099), codes(rng, bits, 4099, 7)
    found = layer_on_units(lambda w, x: x @ w, kernel.shape, image.shape, bits, "int8")
    np.testing.assert_array_equal(found(kernel, image), np.float32(image @ kernel))


def test_sums_of_bytes_in_float32_are_exact_to_1024_terms(monkeypatch):
    """As a GPU's convolutions give them."""
    terms = int16.MOST_IN_FLOAT32
    rng = np.random.default_rng(5)
    image, kernel = every_code(rng, 6, terms), every_code(rng, terms, 8)
    image[0], kernel[:, 0] = -(2**15), -(2**15)

    def in_float32(a, b):
        return lax.dot(a.astype(jnp.float32), b.astype(jnp.float32))

    of, *both = product(lax.dot, image, kernel)
    primitive, params = of.args
    found = jax.jit(partial(int16.multiply, primitive, params, of_bytes=in_float32))(*both)
    np.testing.assert_array_equal(found, np.float32(image @ kernel))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for more, units in ((0, "int8"), (1, "float32")):
        assert of_layer("int8", layer(terms + more), 16) == units
        assert of_layer("int8", layer(terms + more, window=()), 16) == "int8"
        assert of_layer("int8", layer(int16.MOST_TERMS + more, window=()), 16) == units


def test_longer_sums_and_wider_codes_stay_on_float32_units():
    if jax.default_backend() == "cpu":
        for more, units in ((0, "int8"), (1, "float32")):
            assert of_layer("int8", layer(int16.MOST_TERMS + more), 9) == units
    assert int16.MOST_TERMS < int8.MOST_TERMS
    found = multiply(lambda a, b: a * b, jnp.ones(3), jnp.ones(3), bits=17, units="int8")
    assert found.dtype == jnp.float32


def network(params, images):
    """A strided and a grouped convolution, and a head."""
    for name, stride, groups in (("stem", 2, 1), ("grouped", 1, 2)):
        told: dict[str, Any] = dict(
            padding="SAME", feature_group_count=groups, dimension_numbers=NHWC
        )
        made = lax.conv_general_dilated(images, params[name], (stride, stride), **told)
        images = jax.nn.relu(made)
    return images.reshape(images.shape[0], -1) @ params["head"]


def test_logits_faulty_ones_and_gradients_are_those_of_float32_units(normal):
    shapes = dict(stem=(3, 3, 3, 8), grouped=(3, 3, 4, 8), head=(128, 5))
    params = {name: normal(*shape) * 0.2 for name, shape in shapes.items()}
    images = normal(3, 8, 8, 3)
    quantized = quantize(trace(network, params, images), QFormat(bits=16, frac=8))
    faults = FaultModel(weight_rate=0.05, activation_rate=0.05, bits=(0, 3, 7))

    @jax.jit
    def of(quantized):
        def loss(images, parameters):
            logits = replace(quantized, parameters=parameters)(images)
            return (logits * jnp.sin(logits)).sum()

        struck = jax.vmap(lambda t: quantized(images, faults=faults, key=3, trial=t))
        slopes = jax.grad(loss, argnums=(0, 1))(images, quantized.parameters)
        return quantized(images), struck(jnp.arange(2)), slopes

    expected, found = (of(replace(quantized, units=units)) for units in ("float32", "int8"))
    assert (expected[1] != expected[0][None]).any(), "no fault shows"
    assert all(np.any(each) for each in jax.tree.leaves(expected)), "something is zero everywhere"
    for one, other in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_array_equal(one, other)
