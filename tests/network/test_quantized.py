"""How exact a layer's arithmetic is, what its transformations give, and what is refused."""

import re
from dataclasses import replace
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat, change
from afpjax.network.interpreter import execute
from afpjax.network.quantized import (
    LayerFaults,
    Quantized,
    binary_point,
    calibrated_formats,
    encoded,
    layer_on_codes,
    quantize,
)
from afpjax.network.trace import trace

UNIT = 2.0**-24  # float32's unit roundoff


def dense(params, images):
    logits = images @ params["dense"]["kernel"]
    return logits + params["dense"]["bias"] if "bias" in params["dense"] else logits


def wide_codes(fan_in, *shape):
    """16-bit codes that use all their bits, two thirds of them positive."""
    rng = np.random.default_rng((fan_in, *shape))
    return rng.integers(12000, 32768, shape) * rng.choice([-1, 1, 1], shape)


@pytest.mark.parametrize("fan_in", [2, 64, 4096])
def test_the_accumulator_is_off_by_no_more_than_stated_where_it_is_not_exact(fan_in):
    """Q16.0: codes are the values themselves, so the oracle is a product of 64-bit integers."""
    images, kernel = wide_codes(fan_in, 32, fan_in), wide_codes(fan_in, fan_in, 16)
    bias = wide_codes(fan_in, 1, 16) * 2**9
    sizes = np.abs(images) @ np.abs(kernel) + np.abs(bias)
    assert sizes.min() > 2**24, "nothing here is inexact"
    params = {"dense": {"kernel": jnp.asarray(kernel, jnp.float32)}}
    params["dense"]["bias"] = jnp.asarray(bias, jnp.float32)
    quantized = quantize(trace(dense, params, np.float32(images)), QFormat(bits=16, frac=0))
    got = np.asarray(quantized(np.float32(images)), np.float64)
    error = np.abs(got - (images @ kernel + bias))
    assert (error <= (fan_in + 2) * UNIT * sizes).all()
    assert error.max() > 0, "the accumulator was exact after all: the test shows nothing"


def test_the_accumulator_is_exact_up_to_the_last_integer_of_float32():
    """Σ|x·w| + |bias| = 2^24 at every output, in an order that no one chooses."""
    rng = np.random.default_rng(0)
    terms = rng.multinomial(2**24 - 777, np.full(600, 1 / 600), 50).astype(np.int64)
    images = rng.choice([-1, 1], (50, 600)) * terms
    assert np.abs(images).max() < 2**15
    params = {"dense": {"kernel": jnp.ones((600, 3)), "bias": jnp.full((1, 3), -777.0)}}
    quantized = quantize(trace(dense, params, np.float32(images)), QFormat(bits=16, frac=0))
    expected = np.broadcast_to(images.sum(1, keepdims=True) - 777, (50, 3))
    np.testing.assert_array_equal(quantized(np.float32(images)), expected)


@pytest.mark.parametrize("step", ["power-of-two", "maximum"])
def test_sums_between_layers_are_exact_with_power_of_two_steps_only(step, normal):
    """Two layers with different steps, added: against fractions of the accumulators' codes."""

    def apply_fn(params, images):
        return images @ params["a"] + images @ params["b"]

    params = {"a": normal(6, 40), "b": normal(40, 6).T * 5}
    images = normal(9, 6)
    fmt = QFormat(bits=8, scale="tensor", step=step)
    quantized = quantize(trace(apply_fn, params, images), fmt, images)
    sums = np.zeros((9, 40), object)
    for name, steps in quantized.steps.items():
        of_weights, of_inputs = float(steps.weights[0]), float(steps.inputs)
        codes = np.rint(images * np.float32(1 / of_inputs)).astype(np.int64) @ np.rint(
            params[name] * np.float32(1 / of_weights)
        ).astype(np.int64)
        sums += codes * (Fraction(of_weights) * Fraction(of_inputs))
    got = np.vectorize(Fraction)(np.asarray(quantized(images), np.float64))
    equal = got == sums
    assert equal.all() if step == "power-of-two" else not equal.all()
    np.testing.assert_allclose(got.astype(float), sums.astype(float), atol=1e-5)


def test_the_bias_is_rounded_on_the_accumulators_grid(normal):
    """Steps of 1/4 for both operands: a bias is a multiple of 1/16, half to even."""
    bias = jnp.array([[0.03125, 0.09375, -0.03125, 0.1, 100.06]])
    params = {"dense": {"kernel": jnp.zeros((2, 5)), "bias": bias}}
    quantized = quantize(trace(dense, params, normal(1, 2)), QFormat(bits=8, frac=2))
    np.testing.assert_array_equal(quantized(normal(1, 2)), [[0, 0.125, 0, 0.125, 100.0625]])


def test_float32_is_the_network_itself_and_bfloat16_rounds_its_operands(normal):
    params = {"dense": {"kernel": normal(7, 5), "bias": normal(1, 5)}}
    images = normal(6, 7)
    network = trace(dense, params, images)
    np.testing.assert_array_equal(
        quantize(network, QFormat(kind="float32"))(images), network(images)
    )
    halves = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (images, normal(7, 5))]
    expected = halves[0] @ halves[1] + np.asarray(normal(1, 5), np.float64)
    got = quantize(network, QFormat(kind="bfloat16"))(images)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_faults_strike_the_codes_of_a_layers_own_operands(normal):
    """Masks over weights and inputs against integers: flipped in two's complement, then summed."""
    params = {"dense": {"kernel": normal(3, 4), "bias": normal(1, 4)}}
    image = normal(1, 3)
    quantized = quantize(trace(dense, params, image), QFormat(bits=8, frac=5))
    rng = np.random.default_rng(0)
    weights, inputs = rng.integers(0, 256, (3, 4)), rng.integers(0, 256, (1, 3))
    strikes = LayerFaults(
        lambda codes: change(quantized.format, codes, jnp.asarray(weights, jnp.int32)),
        lambda codes: change(quantized.format, codes, jnp.asarray(inputs, jnp.int32)),
    )

    def struck(values, mask):
        codes = np.clip(np.rint(np.asarray(values) * 32), -128, 127).astype(np.int8)
        return (codes.view(np.uint8) ^ mask.astype(np.uint8)).view(np.int8).astype(np.int64)

    total = struck(image, inputs) @ struck(normal(3, 4), weights)
    expected = (total + np.rint(np.asarray(normal(1, 4)) * 1024)) / 1024
    hook = layer_on_codes(quantized, lambda call: strikes)
    got = execute(quantized.program, quantized.parameters, image[0], hook)
    np.testing.assert_array_equal(got, expected[0])


def test_gradients_are_those_of_the_network_of_rounded_values(normal):
    """Straight through: each operand's gradient is the other operand as it was stored."""
    params = {"dense": {"kernel": normal(3, 4), "bias": normal(1, 4)}}
    images = normal(2, 3).at[0, 0].set(99.0)  # saturates: its gradient stops
    quantized = quantize(trace(dense, params, images), QFormat(bits=8, frac=4))
    to_network = jax.grad(lambda network: network(images).sum())(quantized)
    to_images = jax.grad(lambda images: quantized(images).sum())(images)
    stored = np.clip(np.rint(np.asarray(images) * 16), -128, 127) / 16
    kernel = np.rint(np.asarray(normal(3, 4)) * 16) / 16
    layer = to_network.parameters.layers["dense"]
    np.testing.assert_array_equal(layer.bias, 2)  # though it is rounded
    np.testing.assert_allclose(layer.kernel, np.repeat(stored.sum(0)[:, None], 4, 1), rtol=1e-6)
    expected = np.repeat(kernel.sum(1)[None], 2, 0)
    expected[0, 0] = 0
    np.testing.assert_allclose(to_images, expected, rtol=1e-6)


def convolutional(params, images):
    hidden = images
    for name, groups in (("first", 1), ("depthwise", 4)):
        hidden = lax.conv_general_dilated(
            hidden,
            params[name]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        hidden = jax.nn.relu(hidden)
    return hidden.mean((1, 2)) @ params["head"]["kernel"]


@pytest.fixture
def small(normal) -> Quantized:
    shapes = dict(first=(3, 3, 2, 4), depthwise=(3, 3, 1, 4), head=(4, 5))
    params = {name: {"kernel": normal(*shape)} for name, shape in shapes.items()}
    quantized = quantize(trace(convolutional, params, normal(1, 6, 6, 2)), QFormat())
    return replace(quantized, units="float32")  # the texts below are those of float32 units


def test_a_network_that_is_encoded_already_stays_as_it_is(small, normal):
    once = encoded(small)
    assert encoded(once) is once
    images = normal(3, 6, 6, 2)
    np.testing.assert_array_equal(encoded(once)(images), small(images))


def test_it_jits_and_vmaps(small, normal):
    images = normal(2, 3, 6, 6, 2)
    expected = np.stack([small(batch) for batch in images])
    np.testing.assert_array_equal(jax.jit(jax.vmap(small))(images), expected)
    passed = jax.jit(lambda network, images: network(images))(small, images[0])
    np.testing.assert_array_equal(passed, expected[0])


def test_a_batch_of_images_never_becomes_a_grouped_convolution(small, normal):
    """The vmap trap: with faults of its own in every image, a kernel still has no batch axis."""

    def struck(images, masks):
        def one(image, mask):
            masks = dict(first=mask, depthwise=jnp.repeat(mask, 2, axis=-1))

            def of(call):
                mask = masks.get(call.layer.name)
                struck = None if mask is None else partial(change, small.format, mask=mask)
                return LayerFaults(inputs=struck)

            hook = layer_on_codes(small, of)
            return execute(small.program, small.parameters, image, hook)

        return jax.vmap(one)(images, masks)

    images, masks = normal(8, 6, 6, 2), jnp.zeros((8, 1, 6, 6, 2), jnp.int32)
    text = jax.jit(struck).lower(images, masks).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert [re.findall(r"feature_group_count = (\d+)", line) for line in lines] == [["1"], ["4"]]
    assert [re.findall(r"tensor<(\S+)>", line)[:2] for line in lines] == [
        ["8x6x6x2xf32", "3x3x2x4xf32"],
        ["8x6x6x4xf32", "3x3x1x4xf32"],
    ]
    assert re.search(r"dot_general.*tensor<8x(1x)?4xf32>, tensor<4x5xf32>", text)


def test_a_channel_that_training_shrank_to_nothing_gives_no_nan(normal):
    """A step of 1e-40 is no normal float32: XLA flushes it to zero, and 0 / 0 follows."""
    params = {"dense": {"kernel": normal(3, 4) * jnp.array([[1.0, 1e-40, 0.0, 1e-20]])}}
    params["dense"]["bias"] = jnp.ones((1, 4))
    images = normal(5, 3)
    for step in ("maximum", "power-of-two"):
        fmt = QFormat(bits=8, scale="channel", step=step)
        logits = quantize(trace(dense, params, images), fmt, images)(images)
        np.testing.assert_allclose(logits[:, 1:], 1, rtol=1e-6)


def test_calibration_is_asked_for_and_checked(small, normal):
    network = trace(dense, {"dense": {"kernel": normal(3, 4)}}, normal(1, 3))
    fmt = QFormat(bits=8, scale="tensor")
    with pytest.raises(InputError, match="needs calibration images"):
        quantize(network, fmt, None)
    with pytest.raises(InputError, match="calibration: none given"):
        quantize(network, fmt, np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match=r"shape \(4,\), but the network takes \(3,\)"):
        quantize(network, fmt, normal(2, 4))
    with pytest.raises(InputError, match=r"shape \(5, 5, 2\), but the network takes \(6, 6, 2\)"):
        small(normal(1, 5, 5, 2))


def test_calibration_sees_every_image_whatever_the_batch(normal):
    """130 images are three batches: the largest input lies in the last, incomplete one."""
    network = trace(dense, {"dense": {"kernel": normal(3, 4)}}, normal(1, 3))
    images = np.zeros((130, 3), np.float32)
    images[129, 1] = -254.0
    steps = quantize(network, QFormat(bits=8, scale="tensor", step="maximum"), images).steps
    assert steps["dense"].inputs == 2.0


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("weight", "image"), [(0.3, 3.99), (17.0, 2.5), (1.0, 200.0), (0.1, 0.2)])
def test_the_binary_point_is_the_last_before_something_overflows(bits, weight, image):
    """Held against trying every point, on a network whose layer reads the images themselves."""
    rng = np.random.default_rng(bits)
    kernel = rng.uniform(-weight, weight, (6, 3)).astype(np.float32)
    images = rng.uniform(-image, image, (70, 6)).astype(np.float32)  # more than one batch
    network = trace(dense, {"dense": {"kernel": jnp.asarray(kernel)}}, images)
    values = np.abs(np.concatenate([kernel.ravel(), images.ravel()])).astype(np.float64)
    fits = [frac for frac in range(-16, bits) if (values * 2.0**frac).max() <= 2 ** (bits - 1) - 1]
    assert binary_point(network, bits, images) == max(fits)


def test_other_formats_have_the_same_width_and_leave_out_the_one_there_is():
    images = np.linspace(-3, 3, 12, dtype=np.float32).reshape(2, 6)
    network = trace(dense, {"dense": {"kernel": jnp.ones((6, 3))}}, images)
    tensor, channel = (QFormat(16, scale=scale) for scale in ("tensor", "channel"))
    point = QFormat(16, 13)
    assert calibrated_formats(network, QFormat(16, 8), images) == (
        point,
        *(replace(each, frac=8) for each in (tensor, channel)),
    )
    assert point not in calibrated_formats(network, point, images)
    assert calibrated_formats(network, tensor, images) == (point, channel)
    assert calibrated_formats(network, QFormat(kind="bfloat16"), images) == ()
    # Values that need more than eight bits before the point have no point among them.
    scales = [each.scale for each in calibrated_formats(network, QFormat(8, 3), images * 100)]
    assert scales == ["tensor", "channel"]
