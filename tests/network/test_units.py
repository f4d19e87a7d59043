"""A layer's products on bfloat16 units, against 64-bit integers of NumPy."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from afpjax.network.fixed_point import QFormat
from afpjax.network.program import LayerParameters
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

from .integers import convolve

UNIT = 2.0**-24  # float32's unit roundoff


def layer_on_units(apply_fn, kernel_shape, image_shape, bits, units="bfloat16"):
    """(kernel, images) -> the layer's accumulator; codes are the values themselves."""
    network = trace(apply_fn, jnp.ones(kernel_shape), np.ones(image_shape, np.float32))
    (call,) = network.program.calls
    quantized = replace(quantize(network, QFormat(bits=bits, frac=0)), units=units)

    def run(kernel, images):
        of_layer = LayerParameters(jnp.asarray(kernel, jnp.float32), None)
        parameters = network.parameters._replace(layers={call.layer.name: of_layer})
        return np.asarray(replace(quantized, parameters=parameters)(np.float32(images)), np.float64)

    return run


def on_units(kernel, images, bits):
    """The same for one matrix product."""
    return layer_on_units(lambda w, x: x @ w, kernel.shape, images.shape, bits)(kernel, images)


def codes(rng, bits, *shape, largest=None):
    """Codes of any magnitude alike, both extremes among them."""
    top = 2 ** (bits - 1)
    largest = top if largest is None else max(min(largest, top), 1)
    sizes = np.exp2(rng.uniform(0, math.log2(largest), shape)) * rng.choice([-1, 1], shape)
    made = np.rint(sizes).astype(np.int64)
    made.flat[:2] = -largest, largest
    return np.clip(made, -top, top - 1)


def within(rng, bits, fan_in, image_shape, kernel_shape, wide):
    """Codes for which Σ|x·w| <= 2^24 whatever meets; `wide` is the operand that has all bits."""
    other = 2**24 // (fan_in * 2 ** (bits - 1))
    largest = {"image": (None, other), "kernel": (other, None)}[wide]
    image = codes(rng, bits, *image_shape, largest=largest[0])
    return image, codes(rng, bits, *kernel_shape, largest=largest[1])


class Product(NamedTuple):
    """What a layer computes, in JAX and in NumPy's integers, and the shapes it is tried on."""

    apply_fn: Callable[..., Any]
    integers: Callable[..., Any]
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    fan_in: int


def conv(layout, image, depth, **case):
    """A convolution of 3 x 3 to eight channels; NCHW by OIHW where the layout says so."""
    first = layout[0] == "NCHW"

    def apply_fn(kernel, images):
        return lax.conv_general_dilated(
            images,
            kernel,
            case.get("stride", (1, 1)),
            case["padding"],
            rhs_dilation=case.get("dilation", (1, 1)),
            feature_group_count=case.get("groups", 1),
            dimension_numbers=layout,
        )

    def integers(kernel, images):
        if not first:
            return convolve(images, kernel, **case)
        made = convolve(images.transpose(0, 2, 3, 1), kernel.transpose(2, 3, 1, 0), **case)
        return made.transpose(0, 3, 1, 2)

    image = (4, *image) if first else (*image, 4)
    kernel = (8, depth, 3, 3) if first else (3, 3, depth, 8)
    return Product(apply_fn, integers, image, kernel, 9 * depth)


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
PRODUCTS = {
    "strided": conv(NHWC, (7, 6), 4, stride=(2, 1), padding=((1, 1), (0, 2))),
    "dilated": conv(NCHW, (7, 6), 4, padding=((2, 2), (1, 1)), dilation=(2, 1)),
    "grouped": conv(NHWC, (7, 6), 2, padding=((1, 1), (1, 1)), groups=2),
    "depthwise": conv(NCHW, (7, 6), 1, stride=(2, 2), padding=((1, 0), (1, 0)), groups=4),
    "smaller than its window": conv(NHWC, (2, 2), 4, padding=((1, 1), (0, 2))),
    "tokens": Product(lambda w, x: x @ w, lambda w, x: x @ w, (4, 6), (6, 5), 6),
    "two axes": Product(
        lambda w, x: jnp.tensordot(x, w, 2),
        lambda w, x: np.tensordot(x, w, 2),
        (3, 6),
        (3, 6, 5),
        18,
    ),
    "kernel first": Product(
        lambda w, x: jnp.einsum("of,bf->bo", w, x), lambda w, x: x @ w.T, (6,), (5, 6), 6
    ),
    "kernel per head": Product(
        lambda w, x: jnp.einsum("hfo,bhf->bho", w, x),
        lambda w, x: np.einsum("hfo,bhf->bho", w, x),
        (3, 6),
        (3, 6, 5),
        6,
    ),
}
#: Each product has another width of its codes in CI.
IN_CI = [f"{name}-{bits}" for name, bits in zip(PRODUCTS, [16, 8, 12, 4, 16] * 2, strict=False)]


@pytest.mark.in_ci(*IN_CI)
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_those_of_integers_bit_for_bit(name, bits):
    product, rng = PRODUCTS[name], np.random.default_rng(bits)
    shape = (3, *product.image)
    layer = layer_on_units(
        lambda w, x: product.apply_fn(w, x).reshape(x.shape[0], -1), product.kernel, shape, bits
    )
    for wide in ("image", "kernel"):
        image, kernel = within(rng, bits, product.fan_in, shape, product.kernel, wide)
        expected = product.integers(kernel, image).reshape(3, -1)
        np.testing.assert_array_equal(layer(kernel, image), expected)


def test_every_pair_of_a_code_with_an_extreme_one_is_exact():
    """All 65,536 codes by -2^15, 2^15 - 1 and the neighbours of where parts change."""
    image = np.arange(-(2**15), 2**15)[:, None]
    edges = [-(2**15), 1 - 2**15, -32640, -384, -257, -129, -128, -127, -1, 0]
    edges += [127, 128, 129, 255, 256, 257, 383, 384, 32639, 32640, 2**15 - 1]
    got = on_units(np.array([edges]), image, 16)
    np.testing.assert_array_equal(got, np.float32(image * np.array([edges])))


def test_every_code_of_nine_bits_is_one_bfloat16_number_and_not_every_one_of_ten():
    def held(values):
        return (values.astype(ml_dtypes.bfloat16).astype(np.float32) == values).all()

    assert held(np.arange(-256, 257, dtype=np.float32))
    assert not held(np.array([257], np.float32)) and not held(np.array([32767], np.float32))
    for bits in (9, 10):  # in one part, and in two
        image, kernel = (np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) for _ in range(2))
        got = on_units(kernel[None], image[:, None], bits)
        np.testing.assert_array_equal(got, image[:, None] * kernel)


def test_parts_sum_to_no_more_than_the_codes_allow():
    """Small codes have no high part, though they are negative: 8,192 of them stay within 2^24."""
    rng = np.random.default_rng(0)
    image, kernel = rng.integers(-80, 4, (9, 8192)), rng.integers(-80, 4, (8192, 7))
    assert 2**23 < (abs(image) @ abs(kernel)).max() <= 2**24
    np.testing.assert_array_equal(on_units(kernel, image, 16), image @ kernel)


def test_the_worst_parts_of_512_terms_are_summed_exactly():
    """Low parts of -128 throughout, of -1, and high ones of 128; the sums cancel to 24 bits."""
    signs = np.where(np.arange(512) % 2, 1, -1)
    kernel = np.stack([np.full(512, -32640), np.full(512, 32767), signs * 128 - 256], axis=1)
    image = np.stack([signs * 255, signs * 128, signs * 32640 + 1, np.full(512, -129)])
    expected = image @ kernel
    assert (np.float32(expected) == expected).all() and np.abs(expected).max() > 2**24
    np.testing.assert_array_equal(on_units(kernel, image, 16), expected)


def accumulated(rng, fan_in):
    """16-bit codes that use their bits, and what the statements are about."""

    def draw(*shape):
        return rng.integers(12000, 32768, shape) * rng.choice([-1, 1, 1], shape)

    image, kernel = draw(16, fan_in), draw(fan_in, 12)
    (low, high), (low_w, high_w) = (parts_of(values) for values in (image, kernel))
    sizes = (256 * abs(high) + abs(low)) @ (256 * abs(high_w) + abs(low_w))
    total, of_lows = image @ kernel, low @ low_w
    return image, kernel, total, total - of_lows, abs(low) @ abs(low_w), sizes


def parts_of(values):
    low = (values + 128) % 256 - 128
    return low, (values - low) // 256


def test_up_to_512_terms_the_sum_is_the_integer_rounded_once_or_twice():
    rng, once = np.random.default_rng(1), []
    for fan_in in (3, 64, 512):
        image, kernel, total, upper, of_lows, _ = accumulated(rng, fan_in)
        got = on_units(kernel, image, 16)
        error, rounded = np.abs(got - total), np.abs(upper) <= 2**32
        np.testing.assert_array_equal(got[rounded], np.float32(total[rounded]))
        assert (error <= UNIT * (2 * np.abs(total) + of_lows) * (1 + UNIT)).all()
        once.append(rounded.any() and error.any())
    assert any(once), "nothing here was rounded just once"


def test_beyond_512_terms_the_sum_is_off_by_no_more_than_stated():
    for fan_in in (513, 4096):
        image, kernel, total, _, _, sizes = accumulated(np.random.default_rng(2), fan_in)
        error = np.abs(on_units(kernel, image, 16) - total)
        assert (error <= (fan_in + 2) * UNIT * sizes).all()
        assert error.max() > 0, "the sum was exact after all: the test shows nothing"
