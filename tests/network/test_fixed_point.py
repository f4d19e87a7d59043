"""Codes and bit flips against integers: every width, every scale, every bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import HOW, QFormat, change, encode, round_through

WIDTHS = range(4, 17)
STEPS = ("power-of-two", "maximum")


def half_even(values):
    """Rounding by integers: floor, then up where the rest is above one half, or at it and odd."""
    floor = np.floor(values).astype(np.int64)
    rest = values - floor
    return floor + ((rest > 0.5) | ((rest == 0.5) & (floor % 2 != 0)))


def codes_of(scaled, bits):
    return np.clip(half_even(scaled), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def awkward(bits):
    """Multiples of an eighth of a step: ties of both parities, both ends, and beyond them."""
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])
    near = (ends[:, None] + np.arange(-24, 25) / 8).ravel()
    random = np.random.default_rng(bits).integers(-(2**bits) * 6, 2**bits * 6, 500) / 8
    return np.concatenate([near, random, np.arange(-40, 41) / 8]).astype(np.float32)


@pytest.mark.in_ci("4", "8", "13", "16")
@pytest.mark.parametrize("bits", WIDTHS)
def test_global_codes_are_rounded_half_to_even_and_saturate(bits):
    for frac in (-3, 0, bits - 1):
        fmt, step = QFormat(bits=bits, frac=frac), 2.0**-frac
        (given,) = fmt.step_for(np.ones(1))
        assert given == step
        scaled = awkward(bits)
        codes = encode(fmt, jnp.asarray(scaled * np.float32(step)), jnp.float32(step))
        np.testing.assert_array_equal(codes, codes_of(scaled, bits))


@pytest.mark.in_ci("4", "8", "13", "16")
@pytest.mark.parametrize("bits", WIDTHS)
def test_power_of_two_steps_are_the_least_that_hold_the_tensor(least_power_of_two, bits):
    rng = np.random.default_rng(bits)
    ends = [2.0 ** (bits - 1) - 1, 2.0 ** (bits - 1), 1.0, 0.75, 3e-6]
    largest = np.array([*ends, *rng.uniform(0.01, 9, 20)], np.float32)
    for scale in ("tensor", "channel"):
        steps = QFormat(bits=bits, scale=scale).step_for(largest)
        expected = [least_power_of_two(value, bits) for value in largest]
        np.testing.assert_array_equal(steps, np.array(expected, np.float32))


@pytest.mark.in_ci("power-of-two-4", "power-of-two-16", "maximum-8", "maximum-13")
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("step", STEPS)
def test_calibrated_codes_per_tensor_and_per_channel(bits, step):
    spread = np.float32(10.0) ** np.arange(-2, 3, dtype=np.float32)
    kernel = np.random.default_rng(bits).normal(size=(7, 5)).astype(np.float32) * spread
    for scale, largest in (("tensor", np.abs(kernel).max()), ("channel", np.abs(kernel).max(0))):
        fmt = QFormat(bits=bits, scale=scale, step=step)
        steps = fmt.step_for(np.asarray(largest))
        if step == "maximum":
            exact = largest.astype(np.float64) / (2 ** (bits - 1) - 1)
            np.testing.assert_array_equal(steps, exact.astype(np.float32))
        spread = np.broadcast_to(steps, kernel.shape)
        codes = np.asarray(encode(fmt, jnp.asarray(kernel), jnp.asarray(spread)))
        scaled = (kernel * (np.float32(1) / spread)).astype(np.float64)
        np.testing.assert_array_equal(codes, codes_of(scaled, bits))
        assert np.abs(codes).max() <= fmt.largest
        assert np.abs(codes * spread - kernel).max() <= spread.max() / 2 * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(), (1, 4)])
def test_codes_do_not_depend_on_how_a_program_gets_its_step(shape):
    """XLA turns some divisions into products with the rounded inverse: the two differ at ties."""
    fmt = QFormat(bits=8, scale="tensor", step="maximum")
    step = fmt.step_for(np.full(shape, 0.7))
    values = (np.arange(-126, 126).reshape(-1, 4) + 0.5).astype(np.float32) * step
    product = (values * (np.float32(1) / step)).astype(np.float64)
    quotient = values.astype(np.float64) / step
    assert (codes_of(quotient, 8) != codes_of(product, 8)).any(), "the example shows nothing"
    passed = jax.jit(lambda v, s: encode(fmt, v, s))(jnp.asarray(values), jnp.asarray(step))
    baked = jax.jit(lambda v: encode(fmt, v, jnp.asarray(step)))(jnp.asarray(values))
    np.testing.assert_array_equal(passed, codes_of(product, 8))
    np.testing.assert_array_equal(baked, passed)


def changed(how, words, mask):
    """Words after a fault, in NumPy's integers."""
    return {"flip": words ^ mask, "clear": words & ~mask, "set": words | mask}[how]


@pytest.mark.in_ci("4-flip", "8-flip", "13-clear", "16-set", "16-flip")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("bits", WIDTHS)
def test_changes_are_those_of_twos_complement_memory(bits, how):
    """Every code (beyond 10 bits: ends and a sample), every single bit, and random masks.

    Masks may have bits beyond the format's: there are no such bits in memory.
    """
    rng = np.random.default_rng(bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    codes = np.arange(low, high) if bits <= 10 else rng.integers(low, high, 1000)
    codes = np.concatenate([codes, [low, -1, 0, 1, high - 1]])
    masks = np.concatenate([2 ** np.arange(bits), [0, 2**bits - 1], rng.integers(0, 2**bits, 8)])
    masks = np.concatenate([masks, [-1, 2**bits, 3 * 2 ** (bits - 1)]])
    words = changed(how, codes[:, None] % 2**bits, masks[None, :]) % 2**bits  # unsigned
    expected = np.where(words >= high, words - 2**bits, words)
    struck = change(
        QFormat(bits=bits, frac=2),
        jnp.broadcast_to(jnp.asarray(codes, jnp.float32)[:, None], expected.shape),
        jnp.asarray(masks, jnp.int32)[None, :],
        how,
    )
    assert struck.dtype == jnp.float32
    np.testing.assert_array_equal(struck, expected)
    assert expected.min() == low and expected.max() == high - 1


@pytest.mark.parametrize("how", HOW)
def test_float32_changes_are_those_of_the_stored_word(how):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=50) * 10.0 ** rng.integers(-30, 30, 50), [0.0, -0.0]])
    values = np.concatenate([values, [np.inf, -np.inf, np.nan]]).astype(np.float32)[:, None]
    drawn = rng.integers(-(2**31), 2**31, 9)
    masks = np.concatenate([2 ** np.arange(31), [-(2**31), 0, -1], drawn])
    masks = masks.astype(np.int32)[None, :]
    expected = changed(how, values.view(np.int32), masks)
    coded = jnp.asarray(np.broadcast_to(values, expected.shape))
    struck = change(QFormat(kind="float32"), coded, jnp.asarray(masks), how)
    np.testing.assert_array_equal(np.asarray(struck).view(np.int32), expected)


def upper_half(values):
    """A float32 rounded half to even to its upper 16 bits, by integers (finite values)."""
    words = values.view(np.uint32).astype(np.uint64)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint32)


def as_float32(halves):
    return (halves << 16).astype(np.uint32).view(np.float32)


def bfloat16_values():
    rng = np.random.default_rng(1)
    ties = (np.arange(0x3F80, 0x3FA0, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    spread = rng.normal(size=200) * 10.0 ** rng.integers(-20, 20, 200)
    return np.concatenate([ties, -ties, spread.astype(np.float32), np.zeros(1, np.float32)])


@pytest.mark.parametrize("how", HOW)
def test_bfloat16_values_and_their_changes_are_those_of_the_upper_half_word(how):
    values = bfloat16_values()
    coded = encode(QFormat(kind="bfloat16"), jnp.asarray(values), jnp.float32(1))
    np.testing.assert_array_equal(coded, as_float32(upper_half(values)))
    halves = upper_half(values)[:, None]
    masks = np.concatenate([2 ** np.arange(16), [0, 0xFFFF, 0x8001]]).astype(np.uint32)[None, :]
    expected = as_float32(changed(how, halves, masks))
    coded = jnp.broadcast_to(jnp.asarray(as_float32(halves)), expected.shape)
    struck = change(QFormat(kind="bfloat16"), coded, jnp.asarray(masks, jnp.int32), how)
    np.testing.assert_array_equal(struck, expected)  # NaN at the same places
    np.testing.assert_array_equal(np.signbit(struck), np.signbit(expected))


@pytest.mark.parametrize("step", [0.25, 0.3])
def test_the_gradient_of_a_code_passes_through_and_stops_where_it_saturates(step):
    fmt = QFormat(bits=4, frac=2)
    scaled = jnp.array([-9.0, -0.6, 0.0, 0.5, 6.9, 7.01])
    gradient = jax.grad(lambda v: encode(fmt, v, jnp.float32(step)).sum())(scaled * step)
    inside = np.array([0, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(gradient, inside / step)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["fixed", "float32", "bfloat16"])
def test_a_change_passes_the_gradient_through(kind, how):
    fmt = QFormat(bits=8, frac=4, kind=kind)

    def struck(values):
        return change(fmt, encode(fmt, values, jnp.float32(1)), jnp.int32(5), how).sum()

    np.testing.assert_array_equal(jax.grad(struck)(jnp.array([-3.25, 0.0, 7.5])), 1)


def test_rounding_through_has_no_ends_and_a_gradient():
    values = jnp.array([-(2.0**30), -2.5, -1.5, 0.5, 1.5, 1e9])
    np.testing.assert_array_equal(round_through(values), half_even(np.asarray(values, np.float64)))
    np.testing.assert_array_equal(jax.grad(lambda v: round_through(v).sum())(values), 1)


def test_tensors_of_zeros_have_a_step_and_float_formats_the_step_one():
    for step in STEPS:
        steps = QFormat(bits=8, scale="tensor", step=step).step_for(np.zeros(2))
        assert np.isfinite(steps).all() and (steps > 0).all()
    np.testing.assert_array_equal(QFormat(kind="bfloat16").step_for(np.ones(3)), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bits=3), r"format\.bits: 3 is outside 4 to 16"),
        (dict(frac=33), r"format\.frac: 33 fraction bits"),
        (dict(kind="int8"), r"format\.kind: 'int8' is none of fixed, float32, bfloat16"),
        (dict(scale="layer"), r"format\.scale: 'layer' is none of global, tensor, channel"),
        (dict(step="mean"), r"format\.step: 'mean' is none of power-of-two, maximum"),
    ],
)
def test_formats_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        QFormat(**options)
