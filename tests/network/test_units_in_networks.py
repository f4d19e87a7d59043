"""Whole networks on bfloat16 units: the same numbers as on float32 units, and never TF32."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import affine, execute
from afpjax.network.quantized import quantize, run_clean
from afpjax.network.trace import trace


def network(params, images):
    """A strided, a grouped, a depthwise, a dilated and a small convolution, a sum, two dots."""

    def conv(name, x, stride=1, **options):
        layout = ("NHWC", "HWIO", "NHWC")
        made = lax.conv_general_dilated(
            x, params[name]["kernel"], (stride, stride), "SAME", dimension_numbers=layout, **options
        )
        return jax.nn.relu(made + params[name]["bias"])

    x = conv("stem", images, 2)
    x = conv("grouped", x, feature_group_count=2) + x
    x = conv("depthwise", x, feature_group_count=8)
    x = conv("dilated", x, 2, rhs_dilation=(2, 2))
    x = conv("small", x).reshape(images.shape[0], -1)
    return jax.nn.relu(x @ params["hidden"]["kernel"]) @ params["head"]["kernel"]


SHAPES = dict(
    stem=(3, 3, 3, 8),
    grouped=(3, 3, 4, 8),
    depthwise=(3, 3, 1, 8),
    dilated=(3, 3, 8, 6),
    small=(3, 3, 6, 6),
    hidden=(24, 8),
    head=(8, 5),
)


@pytest.fixture(scope="module")
def traced(normal):
    def layer(shape):
        scale = 1.5 / math.sqrt(math.prod(shape[:-1]))
        return {"kernel": normal(*shape) * scale, "bias": normal(1, 1, 1, shape[-1]) * 0.1}

    params = {name: layer(shape) for name, shape in SHAPES.items()}
    return trace(network, params, normal(4, 8, 8, 3))


def both_units(traced, fmt, images):
    quantized = quantize(traced, fmt, images)
    return [replace(quantized, units=units) for units in ("float32", "bfloat16")]


@jax.jit
def largest_sums(quantized, images):
    """The largest Σ|x·w| of any layer, in codes, before the bias."""

    def one(image):
        found = []

        def hook(call, image, parameters):
            step = quantized.steps[call.layer.name]
            kernel = jnp.round(parameters.kernel / call.per_kernel(step.weights))
            codes = jnp.round(image / step.inputs)
            found.append(call.linear(abs(codes), abs(kernel)).max())
            return affine(call, image, parameters)

        execute(quantized.program, quantized.parameters, image, hook)
        return jnp.stack(found).max()

    return jax.vmap(one)(images).max()


FORMATS = [QFormat(bits=16, frac=8), QFormat(bits=8, scale="channel", step="maximum")]


@pytest.mark.in_ci("global-16")
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: f"{fmt.scale}-{fmt.bits}")
def test_logits_and_gradients_are_the_same_on_either_units(traced, normal, fmt):
    images = normal(4, 8, 8, 3)
    in_float32, in_bfloat16 = both_units(traced, fmt, images)
    assert largest_sums(in_float32, images) < 2**23, "beyond the bound: nothing need be equal"
    expected = in_float32(images)
    np.testing.assert_array_equal(in_bfloat16(images), expected)
    assert len(np.unique(expected)) > 5, "the example shows nothing"

    @jax.jit
    def slopes(quantized):
        def loss(images, parameters):
            logits = replace(quantized, parameters=parameters)(images)
            return (logits * jnp.sin(logits)).sum()

        return jax.grad(loss, argnums=(0, 1))(images, quantized.parameters)

    found = jax.tree.leaves(slopes(in_float32))
    assert all(np.any(slope) for slope in found), "a gradient is zero everywhere"
    for got, wanted in zip(jax.tree.leaves(slopes(in_bfloat16)), found, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_forward_derivatives_are_the_same_on_either_units(traced, normal):
    images = normal(4, 8, 8, 3)
    made = [
        jax.jit(lambda n, x: jax.jvp(n, (x,), (jnp.cos(x),)))(quantized, images)
        for quantized in both_units(traced, FORMATS[0], images)
    ]
    for expected, got in zip(*made, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert np.any(made[0][1])


@pytest.mark.in_ci("global-16")
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: f"{fmt.scale}-{fmt.bits}")
def test_faulty_logits_are_the_same_on_either_units(traced, normal, fmt):
    images = normal(4, 8, 8, 3)
    faults = FaultModel(bits=(0, 1, 2, 5))
    in_float32, in_bfloat16 = both_units(traced, fmt, images)
    expected = in_float32(images, faults=faults, key=3)
    assert (expected != in_float32(images)).any()
    np.testing.assert_array_equal(in_bfloat16(images, faults=faults, key=3), expected)


def products(function, *arguments):
    """(groups, operand dtype, result dtype, precisions, operand shapes) of every product that a
    program asks for on a GPU; no GPU is needed to ask."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    found = []
    for line in text.splitlines():
        if re.search(r"stablehlo\.(convolution|dot_general)", line) is None:
            continue
        *operands, result = re.findall(r"tensor<([\dx]*?)x?([a-z]+\d+)>", line)
        groups = re.search(r"feature_group_count = (\d+)", line)
        precisions = set(re.findall(r"HIGHEST|HIGH\b|DEFAULT", line))
        found.append(
            (int(groups[1]) if groups else 1, operands[0][1], result[1], precisions, operands)
        )
    return found


@pytest.mark.parametrize(("bits", "struck"), [(8, False), (16, True)])
def test_a_part_of_codes_is_one_product_in_bfloat16_summed_in_float32(traced, normal, bits, struck):
    images = normal(4, 8, 8, 3)
    _, quantized = both_units(traced, QFormat(bits=bits, scale="tensor"), images)
    faults = FaultModel() if struck else None
    found = products(lambda n, x: n(x, faults=faults, key=0), quantized, images)
    groups = [layer.groups for layer in quantized.layers]
    groups[4] = 1  # the small convolution, a matrix product
    parts = 2 if bits == 16 else 1
    each_part = [group for group in groups for _ in range(parts)]
    assert [each[0] for each in found] == each_part, "one product per part, and no group more"
    assert {each[1:3] for each in found} == {("bf16", "f32")}
    shapes = [tuple(shape for shape, _ in each[4]) for each in found[: 3 * parts : parts]]
    assert shapes == [
        ("4x8x8x3", f"3x3x3x{8 * parts}"),
        ("4x4x4x8", f"3x3x4x{8 * parts}"),
        ("4x4x4x8", f"3x3x1x{8 * parts}"),
    ]


def test_no_product_is_made_of_a_derivative_that_is_known_to_be_zero(traced, normal):
    """Of the images alone one product per layer; of the kernels alone two, but the first layer.

    Beside the layer's own two, one of each part of its codes.
    """
    images = normal(4, 8, 8, 3)
    _, quantized = both_units(traced, FORMATS[0], images)
    to_images = products(lambda n, x: jax.jvp(n, (x,), (x,)), quantized, images)

    def by_kernels(quantized, images):
        given = (quantized.parameters,)
        return jax.jvp(lambda p: replace(quantized, parameters=p)(images), given, given)

    to_kernels = products(by_kernels, quantized, images)
    for found, wanted in ((to_images, len(SHAPES)), (to_kernels, 2 * len(SHAPES) - 1)):
        dtypes = [each[1] for each in found]
        assert (dtypes.count("bf16"), dtypes.count("f32")) == (2 * len(SHAPES), wanted)


def attention(params, images):
    """Products that are no layers: of two activations, in a custom rule's call and in loops."""
    q, k, v = (images @ params[name]["kernel"] for name in "qkv")
    mixed = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k)) @ v
    mixed = lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ h.mT @ h), mixed)
    mixed = lax.cond(mixed.sum() > 0, lambda h: h @ h.mT @ h, jnp.sin, mixed)
    return mixed.mean(1)


@pytest.fixture(scope="module")
def attending(normal, traces):
    """The highest precision changes no value where float32 on a CPU is all there is."""
    return traces(attention, {name: {"kernel": normal(6, 6) * 0.3} for name in "qkv"}, tokens())


def tokens():
    values = np.random.default_rng(5).normal(size=(3, 4, 6))
    return jnp.asarray(values, jnp.float32)


ALL_FORMATS = [*FORMATS, QFormat(kind="float32"), QFormat(kind="bfloat16")]
OTHERS = 6  # products of `attention` that are no layers


def assert_no_tf32(found, count):
    """XLA on a GPU takes TF32 for float32 unless the highest precision is asked for."""
    assert len(found) == count, "the text was not understood"
    assert {each[2] for each in found} == {"f32"}
    asked = [each[3] for each in found if each[1] == "f32"]
    assert all(precisions == {"HIGHEST"} for precisions in asked), found


@pytest.mark.in_ci("fixed-16-struck", "fixed-8-clean", "float32-16-struck", "bfloat16-16-clean")
@pytest.mark.parametrize("faults", [None, FaultModel(bits=(0, 1))], ids=["clean", "struck"])
@pytest.mark.parametrize("fmt", ALL_FORMATS, ids=lambda fmt: f"{fmt.kind}-{fmt.bits}")
def test_no_product_of_float32_numbers_may_be_one_of_tf32(traced, attending, normal, fmt, faults):
    for model, images, others in (
        (traced, normal(4, 8, 8, 3), 0),
        (attending, tokens(), OTHERS),
    ):
        found = products(type(model).__call__, model, images)
        assert_no_tf32(found, len(model.layers) + others)
        for quantized in both_units(model, fmt, images):
            found = products(lambda n, x: n(x, faults=faults, key=0), quantized, images)
            in_two = quantized.units == "bfloat16" and fmt.kind == "fixed" and fmt.bits > 9
            assert_no_tf32(found, len(model.layers) * (1 + in_two) + others)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_float_formats_are_the_same_program_on_either_units(traced, normal, kind):
    images = normal(4, 8, 8, 3)
    texts = [
        run_clean.lower(quantized, images).as_text()
        for quantized in both_units(traced, QFormat(kind=kind), images)
    ]
    assert texts[0] == texts[1]


def test_other_units_are_refused(traced, normal):
    monstrous = replace(quantize(traced, QFormat()), units="int4")
    with pytest.raises(InputError, match=r"units: 'int4' is none of float32, bfloat16, int8"):
        monstrous(normal(4, 8, 8, 3))
