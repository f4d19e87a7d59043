"""A quantised network, bit for bit, against a forward pass in 64-bit integers of NumPy.

The oracle shares nothing with the package but the folded float weights: strided, grouped and
dilated convolutions, batch norm (folded), a residual sum, concatenation, pooling, an average over
16 pixels and a dense layer, for every format whose accumulators stay within 2^24.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

from .integers import convolve

SIDE = 16


def network(params, images, see=lambda name, x: x):
    """The float network; `see` is shown what every layer reads."""

    def conv(name, x, stride=1, **options):
        kernel, layout = params[name]["kernel"], ("NHWC", "HWIO", "NHWC")
        made = lax.conv_general_dilated(
            see(name, x), kernel, (stride, stride), "SAME", dimension_numbers=layout, **options
        )
        return made + params[name]["bias"] if "bias" in params[name] else made

    norm = params["norm"]
    stem = conv("stem", images, 2)
    stem = (stem - norm["mean"]) * lax.rsqrt(norm["variance"] + 1e-5) * norm["scale"]
    stem = jax.nn.relu(stem + norm["shift"])
    joined = jax.nn.relu(conv("grouped", stem, feature_group_count=4) + stem)
    both = jnp.concatenate([joined, conv("dilated", joined, rhs_dilation=(2, 2))], axis=3)
    pooled = lax.reduce_window(both, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    pooled = jax.nn.relu(conv("mixed", pooled)).mean((1, 2))
    return see("head", pooled) @ params["head"]["kernel"] + params["head"]["bias"]


def parameters():
    rng = np.random.default_rng(3)

    def normal(scale, *shape):
        return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)

    def uniform(low, high, *shape):
        return jnp.asarray(rng.uniform(low, high, shape), jnp.float32)

    return {
        "stem": {"kernel": normal(0.3, 3, 3, 3, 8)},
        "norm": {
            "mean": normal(0.2, 1, 1, 1, 8),
            "variance": uniform(0.5, 2, 1, 1, 1, 8),
            "scale": uniform(0.5, 2, 1, 1, 1, 8),
            "shift": normal(0.3, 1, 1, 1, 8),
        },
        "grouped": {"kernel": normal(0.25, 3, 3, 2, 8), "bias": normal(0.3, 1, 1, 1, 8)},
        "dilated": {"kernel": normal(0.12, 3, 3, 8, 4)},
        "mixed": {"kernel": normal(0.3, 1, 1, 12, 6), "bias": normal(0.3, 1, 1, 1, 6)},
        "head": {"kernel": normal(0.5, 6, 5), "bias": normal(1.0, 1, 5)},
    }


def pictures(seed, largest=2):
    """Images on a grid of 2^-10, finer than any format here: ties and saturation both occur."""
    codes = np.random.default_rng(seed).integers(
        -largest * 1024, largest * 1024, (4, SIDE, SIDE, 3)
    )
    return (codes / 1024).astype(np.float32)


class Grid(NamedTuple):
    """Integers times 2^exponent, one exponent per channel (the last axis)."""

    codes: np.ndarray
    exponent: np.ndarray

    def __add__(self, other):  # type: ignore[override]
        finer = np.minimum(self.exponent, other.exponent)
        codes = (self.codes << self.exponent - finer) + (other.codes << other.exponent - finer)
        return Grid(codes, finer)

    def relu(self):
        return Grid(np.maximum(self.codes, 0), self.exponent)

    def floats(self):
        values = self.codes * 2.0**self.exponent
        assert (values == values.astype(np.float32)).all(), "beyond float32: no exact claim"
        return values.astype(np.float32)


def requantised(value, exponent, bits):
    """Division by a power of two in integers, half to even, then saturation."""
    down = exponent - value.exponent
    codes, down = value.codes << np.maximum(-down, 0), np.maximum(down, 0)
    floor, rest, half = codes >> down, codes & (1 << down) - 1, (1 << down) >> 1
    up = (down > 0) & ((rest > half) | ((rest == half) & (floor % 2 == 1)))
    return np.clip(floor + up, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def same(image, kernel, stride=1, dilation=1, groups=1):
    """A convolution with "SAME" padding."""
    taps, size = kernel.shape[0], -(-image.shape[1] // stride)
    total = (size - 1) * stride + (taps - 1) * dilation + 1 - image.shape[1]
    pads = ((total // 2, total - total // 2),) * 2
    return convolve(image, kernel, (stride, stride), pads, (dilation, dilation), groups)


class Oracle:
    """The network in integers; `steps` and `layers` are a quantised network's floats."""

    def __init__(self, bits, steps, layers):
        self.bits, self.steps, self.layers = bits, steps, layers

    def layer(self, name, value, **options):
        kernel = np.asarray(self.layers[name].kernel, np.float64)
        bias = np.asarray(0.0 if self.layers[name].bias is None else self.layers[name].bias)
        weights, inputs = (exponent_of(step) for step in self.steps[name])
        image = requantised(value, inputs, self.bits)
        on_grid = Grid(np.rint(kernel * 2.0**40).astype(np.int64), np.full(weights.shape, -40))
        codes = requantised(on_grid, weights, self.bits)
        exponent = weights + inputs
        offset = np.rint(bias.astype(np.float64) / 2.0**exponent).astype(np.int64)
        product = same if kernel.ndim == 4 else np.matmul
        size = product(abs(image), abs(codes), **options).max() + np.max(np.abs(offset))
        assert size <= 2**24, "the accumulator leaves float32's integers: nothing exact to test"
        return Grid(product(image, codes, **options) + offset, exponent)

    def __call__(self, images):
        image = Grid(np.rint(images * 1024.0).astype(np.int64), np.full(3, -10))
        stem = self.layer("stem", image, stride=2).relu()
        joined = (self.layer("grouped", stem, groups=4) + stem).relu()
        dilated = self.layer("dilated", joined, dilation=2)
        both = [np.concatenate(pair, -1) for pair in zip(joined, dilated, strict=True)]
        tiles = both[0].reshape(-1, 4, 2, 4, 2, 12).max((2, 4))
        mixed = self.layer("mixed", Grid(tiles, both[1])).relu()
        averaged = Grid(mixed.codes.sum((1, 2)), mixed.exponent - 4)  # over 16 pixels
        return self.layer("head", averaged).floats()


def exponent_of(step):
    mantissa, exponent = np.frexp(np.asarray(step, np.float64))
    assert (mantissa == 0.5).all(), "no power of two"
    return exponent - 1


FORMATS = [
    QFormat(bits=16, frac=8),
    QFormat(bits=12, frac=6),
    QFormat(bits=8, frac=4),
    QFormat(bits=4, frac=1),
    QFormat(bits=11, scale="tensor"),
    QFormat(bits=8, scale="tensor"),
    QFormat(bits=10, scale="channel"),
    QFormat(bits=8, scale="channel"),
    QFormat(bits=5, scale="channel"),
]


@pytest.fixture(scope="module")
def traced():
    return trace(network, parameters(), pictures(0))


@pytest.mark.in_ci("global-16", "global-4", "tensor-11", "channel-8", "channel-5")
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.scale}-{f.bits}")
def test_quantised_logits_are_those_of_integers_bit_for_bit(traced, fmt):
    quantized = quantize(traced, fmt, pictures(1))
    images = pictures(0, largest=4)  # wider than the calibration: inputs saturate
    expected = Oracle(fmt.bits, quantized.steps, quantized.parameters.layers)(images)
    np.testing.assert_array_equal(quantized(jnp.asarray(images)), expected)
    assert len(np.unique(expected)) > 5, "the example shows nothing"


@pytest.mark.parametrize(("scale", "bits"), [("tensor", 16), ("channel", 8)])
def test_steps_follow_from_the_largest_weight_and_the_largest_input_seen(
    traced, least_power_of_two, scale, bits
):
    seen = {}

    def see(name, x):
        seen[name] = float(jnp.abs(x).max())
        return x

    images = pictures(1)
    network(parameters(), jnp.asarray(images), see)
    quantized = quantize(traced, QFormat(bits=bits, scale=scale), images)
    for name, steps in quantized.steps.items():
        assert steps.inputs == least_power_of_two(seen[name], bits), name
        kernel = np.abs(np.asarray(quantized.parameters.layers[name].kernel))
        channels = kernel.reshape(-1, kernel.shape[-1]).max(0)
        largest = channels if scale == "channel" else np.full_like(channels, channels.max())
        expected = [least_power_of_two(value, bits) for value in largest]
        np.testing.assert_array_equal(steps.weights, expected, err_msg=name)
