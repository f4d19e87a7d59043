"""A layer's products on bfloat16 units, against 64-bit integers of NumPy."""

import math
from dataclasses import replace

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from afpjax.network.fixed_point import QFormat
from afpjax.network.program import LayerParameters
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace
from afpjax.network.units import multiply

from .integers import convolve

UNIT = 2.0**-24  # float32's unit roundoff
LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")]


def layer_on_units(apply_fn, kernel_shape, image_shape, bits):
    """(kernel, images) -> the layer's accumulator; codes are the values themselves."""
    network = trace(apply_fn, jnp.ones(kernel_shape), np.ones(image_shape, np.float32))
    (call,) = network.program.calls
    quantized = replace(quantize(network, QFormat(bits=bits, frac=0)), units="bfloat16")

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


CONVOLUTIONS = {
    "strided": dict(stride=(2, 1), padding=((1, 1), (0, 2))),
    "dilated": dict(padding=((2, 2), (1, 1)), dilation=(2, 1)),
    "grouped": dict(padding=((1, 1), (1, 1)), groups=2),
    "depthwise": dict(stride=(2, 2), padding=((1, 0), (1, 0)), groups=4),
}
SIZES = {"usual": (7, 6), "smaller than its window": (2, 2)}


def convolution(layout, case):
    def apply_fn(kernel, images):
        made = lax.conv_general_dilated(
            images,
            kernel,
            case.get("stride", (1, 1)),
            case["padding"],
            rhs_dilation=case.get("dilation", (1, 1)),
            feature_group_count=case.get("groups", 1),
            dimension_numbers=layout,
        )
        return made.reshape(images.shape[0], -1)

    return apply_fn


@pytest.mark.in_ci("strided-NHWC-16", "dilated-NCHW-16", "grouped-NHWC-8", "depthwise-NCHW-12")
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_those_of_integers_bit_for_bit(name, layout, bits):
    case, rng = CONVOLUTIONS[name], np.random.default_rng(bits)
    depth, order = 4 // case.get("groups", 1), [layout[0].index(axis) for axis in "NHWC"]
    for rows, columns in SIZES.values():
        layer = None
        for wide in ("image", "kernel"):
            shapes = (3, rows, columns, 4), (3, 3, depth, 8)
            image, kernel = within(rng, bits, 9 * depth, *shapes, wide)
            expected = np.moveaxis(convolve(image, kernel, **case), range(4), order)
            image = np.moveaxis(image, range(4), order)
            kernel = np.moveaxis(kernel, range(4), [layout[1].index(axis) for axis in "HWIO"])
            if layer is None:
                layer = layer_on_units(convolution(layout, case), kernel.shape, image.shape, bits)
            np.testing.assert_array_equal(layer(kernel, image), expected.reshape(3, -1))


def flat(product):
    return lambda kernel, images: product(kernel, images).reshape(images.shape[0], -1)


DOTS = {  # the product, the shapes of kernel and image, and the fan-in
    "dense": (lambda w, x: x @ w, (6, 5), (6,), 6),
    "tokens": (lambda w, x: x @ w, (6, 5), (4, 6), 6),
    "two axes": (lambda w, x: jnp.tensordot(x, w, 2), (3, 6, 5), (3, 6), 18),
    "kernel first": (lambda w, x: jnp.einsum("of,bf->bo", w, x), (5, 6), (6,), 6),
    "kernel per head": (lambda w, x: jnp.einsum("hfo,bhf->bho", w, x), (3, 6, 5), (3, 6), 6),
}
NUMPY = DOTS | {
    "two axes": (lambda w, x: np.tensordot(x, w, 2),),
    "kernel first": (lambda w, x: x @ w.T,),
    "kernel per head": (lambda w, x: np.einsum("hfo,bhf->bho", w, x),),
}


@pytest.mark.in_ci("dense-16", "tokens-8", "two axes-12", "kernel first-16", "kernel per head-16")
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("name", DOTS)
def test_matrix_products_are_those_of_integers_bit_for_bit(name, bits):
    product, kernel_shape, image_shape, fan_in = DOTS[name]
    rng = np.random.default_rng(bits)
    layer = layer_on_units(flat(product), kernel_shape, (4, *image_shape), bits)
    for wide in ("image", "kernel"):
        image, kernel = within(rng, bits, fan_in, (4, *image_shape), kernel_shape, wide)
        expected = NUMPY[name][0](kernel, image).reshape(4, -1)
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


@pytest.mark.parametrize("fan_in", [513, 4096])
def test_beyond_512_terms_the_sum_is_off_by_no_more_than_stated(fan_in):
    image, kernel, total, _, _, sizes = accumulated(np.random.default_rng(2), fan_in)
    error = np.abs(on_units(kernel, image, 16) - total)
    assert (error <= (fan_in + 2) * UNIT * sizes).all()
    assert error.max() > 0, "the sum was exact after all: the test shows nothing"


def test_codes_of_more_than_sixteen_bits_stay_in_float32():
    image, kernel = jnp.array([[65535.0]]), jnp.array([[255.0]])
    for bits, dtype in ((17, jnp.float32), (16, jnp.bfloat16), (8, jnp.bfloat16)):
        seen = []

        def linear(x, w, seen=seen):
            seen.append(x.dtype)
            return lax.dot(x, w, preferred_element_type=jnp.float32)

        made = multiply(linear, image, kernel, bits=bits, units="bfloat16")
        assert seen == [dtype]
        assert bits != 17 or made == 65535 * 255
