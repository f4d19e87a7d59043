"""A layer's products on int8 units of a CPU, against 64-bit integers of NumPy."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.faults.model import FaultModel
from afpjax.network import compiler, int8
from afpjax.network.fixed_point import QFormat
from afpjax.network.layers import Layer
from afpjax.network.quantized import encoded, quantize, run_clean
from afpjax.network.trace import trace
from afpjax.network.units import BY_IMAGES, FEW, MOST_IN_HALVES, bind, multiply, of_layer

from .integers import convolve
from .test_units import PRODUCTS, layer_on_units, within

DOT = {"dimension_numbers": (((1,), (0,)), ((), ())), "out_sharding": None}
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="how a CPU does it")


def every_code(rng, *shape):
    """Codes of 8 bits, both extremes a quarter of them each."""
    drawn = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.5, rng.choice([-128, 127], shape), drawn)


@pytest.mark.parametrize("bits", [4, 8, 9, 16])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_those_of_integers_bit_for_bit(name, bits):
    product, rng = PRODUCTS[name], np.random.default_rng(bits)
    shape = (3, *product.image)
    layer = layer_on_units(
        lambda w, x: product.apply_fn(w, x).reshape(x.shape[0], -1),
        product.kernel,
        shape,
        bits,
        "int8",
    )
    for wide in ("image", "kernel"):
        image, kernel = within(rng, bits, product.fan_in, shape, product.kernel, wide)
        expected = product.integers(kernel, image).reshape(3, -1)
        np.testing.assert_array_equal(layer(kernel, image), expected)


def params_of(function, *arguments):
    (said,) = jax.make_jaxpr(function)(*arguments).eqns
    return said.params


#: (rows and columns, channels in and out), window, and what `conv_general_dilated` is told.
WINDOWS = [
    ((9, 8), (3, 5), (3, 3), dict(padding=((1, 1), (1, 1)))),
    ((9, 7), (16, 3), (3, 3), dict(padding=((0, 2), (2, 0)), window_strides=(2, 1))),
    ((8, 11), (5, 4), (2, 4), dict(padding=((1, 0), (3, 2)), window_strides=(1, 2))),
    ((10, 9), (2, 6), (3, 2), dict(padding=((2, 2), (1, 1)), rhs_dilation=(2, 3))),
    ((7, 12), (6, 2), (1, 3), dict(padding=((0, 0), (0, 0)), window_strides=(3, 3))),
    ((5, 6), (4, 4), (3, 3), dict(padding=((2, 1), (1, 2)), lhs_dilation=(2, 3))),
    ((8, 8), (4, 7), (3, 3), dict(padding=((-1, 1), (-2, -1)))),
    ((6, 5), (129, 3), (3, 3), dict(padding=((1, 1), (1, 1)), window_strides=(1, 2))),
    ((6, 6), (130, 17), (1, 1), dict(padding=((0, 0), (0, 0)), window_strides=(2, 2))),
    ((4, 1), (3, 2), (2, 1), dict(padding=((0, 0), (0, 0)))),
]


@pytest.mark.parametrize("layout", [NHWC, NCHW], ids=str)
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_convolutions_are_those_of_integers_beyond_2_to_the_24_too(case, layout):
    sizes, (inputs, outputs), window, options = case
    rng = np.random.default_rng(sizes[0])
    image, kernel = every_code(rng, 3, *sizes, inputs), every_code(rng, *window, inputs, outputs)
    expected = integers(image, kernel, options)
    if layout is NCHW:
        image, kernel = image.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
        expected = expected.transpose(0, 3, 1, 2)
    image, kernel = jnp.asarray(image, jnp.int8), jnp.asarray(kernel, jnp.int8)
    told = dict(window_strides=(1, 1), dimension_numbers=layout) | options
    params = params_of(lambda a, b: lax.conv_general_dilated(a, b, **told), image, kernel)
    found = jax.jit(lambda a, b: int8.convolve(params, a, b))(image, kernel)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)
    one_by_one = jax.vmap(lambda a: int8.convolve(params, a[None], kernel)[0])(image)
    np.testing.assert_array_equal(one_by_one, expected)


def integers(image, kernel, options):
    """The same by a loop over taps: the image spread out, then padded, cut where that is less."""
    spread = options.get("lhs_dilation", (1, 1))
    rows, columns = ((n - 1) * by + 1 for n, by in zip(image.shape[1:3], spread, strict=True))
    apart = np.zeros((len(image), rows, columns, image.shape[3]), np.int64)
    apart[:, :: spread[0], :: spread[1]] = image
    for axis, (low, high) in enumerate(options["padding"], 1):
        apart = apart.take(range(max(-low, 0), apart.shape[axis] - max(-high, 0)), axis)
    return convolve(
        apart,
        kernel,
        stride=options.get("window_strides", (1, 1)),
        padding=[(max(low, 0), max(high, 0)) for low, high in options["padding"]],
        dilation=options.get("rhs_dilation", (1, 1)),
    )


#: Shapes of both, contracted axes of both, batch axes of both, and NumPy's way to say it.
DOTS = {
    "a vector": ((37,), (37, 9), ((0,), (0,)), ((), ()), "k,kn->n"),
    "to one number": ((5, 37), (37,), ((1,), (0,)), ((), ()), "mk,k->m"),
    "rows": ((11, 37), (37, 9), ((1,), (0,)), ((), ()), "mk,kn->mn"),
    "columns": ((37, 11), (9, 37), ((0,), (1,)), ((), ()), "km,nk->mn"),
    "two axes": ((11, 5, 7), (7, 5, 9), ((1, 2), (1, 0)), ((), ()), "mkj,jkn->mn"),
    "many rows": ((2, 11, 37), (9, 37, 3), ((2,), (1,)), ((), ()), "lmk,nko->lmno"),
    "heads": ((11, 3, 37), (3, 37, 9), ((2,), (1,)), ((1,), (0,)), "mhk,hkn->hmn"),
}


@pytest.mark.parametrize("name", DOTS)
def test_dot_products_are_those_of_integers(name):
    *shapes, inner, batch, text = DOTS[name]
    rng = np.random.default_rng(1)
    left, right = (every_code(rng, *shape) for shape in shapes)
    codes, kernel = (jnp.asarray(each, jnp.int8) for each in (left, right))
    found = int8.dot_general(codes, kernel, (inner, batch))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, np.einsum(text, left, right))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2), (3, None)], ids=str)
def test_batches_of_either_operand_and_of_both_are_those_of_integers(axes):
    """One inside the other, too: kernels of each trial by images."""
    rng, dimensions = np.random.default_rng(2), (((2,), (1,)), ((0,), (0,)))

    def many(shape, axis):
        """An operand, and its six members (the same one six times, where it has no such axis)."""
        if axis is None:
            made = every_code(rng, *shape)
            return made, [made] * 6
        made = every_code(rng, *shape[:axis], 6, *shape[axis:])
        return made, np.moveaxis(made, axis, 0)

    (left, lefts), (right, rights) = many((3, 5, 37), axes[0]), many((3, 37, 4), axes[1])
    expected = np.stack(
        [np.einsum("gmk,gkn->gmn", *pair) for pair in zip(lefts, rights, strict=True)]
    )
    left, right = jnp.asarray(left, jnp.int8), jnp.asarray(right, jnp.int8)
    batched = jax.vmap(lambda a, b: int8.dot_general(a, b, dimensions), in_axes=axes)
    np.testing.assert_array_equal(batched(left, right), expected)
    twice = jax.vmap(batched, in_axes=(None, 0))(left, jnp.stack([right, right[..., ::-1, :]]))
    np.testing.assert_array_equal(twice[0], expected)


def test_the_longest_sums_of_the_largest_codes_do_not_wrap_around():
    terms = int8.MOST_TERMS
    assert 255 * 128 * terms < 2**31
    for left, right in ((-128, -128), (127, -128), (127, 127), (-128, 127)):
        rows, columns = jnp.full((2, terms), left, jnp.int8), jnp.full((terms, 3), right, jnp.int8)
        found = int8.dot_general(rows, columns, (((1,), (0,)), ((), ())))
        np.testing.assert_array_equal(found, np.full((2, 3), left * right * terms))


def test_a_sum_beyond_2_to_the_24_is_the_integer_rounded_once():
    rng = np.random.default_rng(3)
    image, kernel = (rng.integers(100, 128, shape) for shape in ((5, 4099), (4099, 7)))
    total = image @ kernel
    assert (np.float32(total) != total).any()
    found = layer_on_units(lambda w, x: x @ w, kernel.shape, image.shape, 8, "int8")(kernel, image)
    np.testing.assert_array_equal(found, np.float32(total))


def test_every_pair_of_codes_is_multiplied_exactly():
    every = np.arange(-128, 128)
    image, kernel = np.stack([every, every[::-1]], 1), np.stack([every, np.roll(every, 7)])
    found = layer_on_units(lambda w, x: x @ w, kernel.shape, image.shape, 8, "int8")(kernel, image)
    np.testing.assert_array_equal(found, image @ kernel)


def small(params, images):
    """A strided and a grouped convolution, one over few pixels, and a head."""
    for name, stride, groups in (("stem", 2, 1), ("grouped", 1, 2), ("down", 2, 1), ("few", 1, 1)):
        made = lax.conv_general_dilated(
            images,
            params[name],
            (stride, stride),
            "SAME",
            feature_group_count=groups,
            dimension_numbers=NHWC,
        )
        images = jax.nn.relu(made)
    return images.reshape(images.shape[0], -1) @ params["head"]


@pytest.fixture(scope="module")
def either(normal):
    """A network on float32 units and on int8 ones, and images."""
    shapes = dict(
        stem=(3, 3, 3, 8), grouped=(3, 3, 4, 8), down=(3, 3, 8, 6), few=(3, 3, 6, 6), head=(24, 5)
    )
    params = {k: normal(*s) * 1.5 / math.sqrt(math.prod(s[:-1])) for k, s in shapes.items()}
    images = normal(4, 8, 8, 3)
    quantized = quantize(trace(small, params, images), QFormat(bits=8, scale="channel"), images)
    return [replace(quantized, units=units) for units in ("float32", "int8")], images


def test_logits_and_gradients_are_those_of_float32_units(either):
    networks, images = either

    @jax.jit
    def slopes(quantized):
        def loss(images, parameters):
            logits = replace(quantized, parameters=parameters)(images)
            return (logits * jnp.sin(logits)).sum()

        return jax.grad(loss, argnums=(0, 1))(images, quantized.parameters)

    expected, found = (network(images) for network in networks)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 5, "the example shows nothing"
    wanted, got = (jax.tree.leaves(slopes(network)) for network in networks)
    assert all(np.any(slope) for slope in wanted), "a gradient is zero everywhere"
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(one, other)


def test_faulty_logits_of_many_trials_at_once_are_those_of_float32_units(either):
    """Kernels of each trial: the kernel has a batch axis too. Flipped signs give the code -128."""
    networks, images = either
    faults = FaultModel(weight_rate=0.05, activation_rate=0.05, bits=(0, 6, 7))

    def of(network):
        trials = jax.vmap(lambda t: network(images, faults=faults, key=3, trial=t))
        return np.asarray(trials(jnp.arange(3)))

    expected, found = (of(network) for network in networks)
    assert all((struck != np.asarray(networks[0](images))).any() for struck in expected)
    np.testing.assert_array_equal(found, expected)


def test_wider_codes_and_longer_sums_stay_on_float32_units():
    with pytest.raises(AssertionError, match="asked"):
        multiply(asked, jnp.ones(3), jnp.ones(3), bits=8, units="int8")
    found = multiply(asked, jnp.ones(3), jnp.ones(3), bits=17, units="int8")
    assert found.dtype == jnp.float32
    for fan_in, units in ((int8.MOST_TERMS, "int8"), (int8.MOST_TERMS + 1, "float32")):
        assert of_layer("int8", layer(fan_in), 8) == units
        assert of_layer(compiler.BY_LAYER, layer(fan_in), 8) == units


@pytest.mark.parametrize("images", [1, FEW, FEW + 1])
def test_a_dense_layer_of_few_images_is_made_in_float32_and_the_same(images):
    rng = np.random.default_rng(7)
    codes, kernels = rng.integers(90, 128, (images, 3000)), rng.integers(90, 128, (2, 3000, 90))
    expected = np.float32(codes @ kernels)
    assert (expected != codes @ kernels).any()

    def network(codes, kernel):
        def of(one):
            return multiply(as_layers_do, one[None], kernel, bits=8, units=BY_IMAGES)[0]

        return jax.vmap(of)(codes)

    codes, kernels = (jnp.asarray(each, jnp.float32) for each in (codes, kernels))
    trials = jax.jit(jax.vmap(network, in_axes=(None, 0)))
    np.testing.assert_array_equal(trials(codes, kernels), expected)
    told = jax.jit(network).lower(codes, kernels[0]).as_text()
    assert ("xi8>" in told) == (images > FEW)


def test_halves_of_the_largest_codes_are_summed_exactly():
    assert MOST_IN_HALVES * 8 * 128 <= 2**24
    for left, right in ((-128, -128), (127, -128), (-121, 127), (7, -128), (-120, -128)):
        codes = jnp.full((1, MOST_IN_HALVES), left, jnp.float32)
        kernel = jnp.full((MOST_IN_HALVES, 3), right, jnp.float32)
        found = multiply(as_layers_do, codes, kernel, bits=8, units=BY_IMAGES)
        np.testing.assert_array_equal(found, np.full((1, 3), left * right * MOST_IN_HALVES))


def as_layers_do(codes, kernel):
    return bind(lax.dot_general_p, DOT, codes, kernel)


def asked(codes, kernel):
    assert codes.dtype == kernel.dtype == jnp.float32, "asked for other numbers"
    return codes * kernel


def layer(fan_in, neurons=64, window=(3, 3), groups=1, places=64):
    kind = "conv" if window else "dense"
    return Layer(
        "it", kind, (1,), (1,), (1,), neurons, fan_in, fan_in * neurons * places, fan_in * neurons,
        0, window=window, groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("of", "units"),
    [
        (layer(27, 16), "int8"),  # a stem
        (layer(144, 16), "int8"),
        (layer(4608, 512), "int8"),
        (layer(9, groups=64), "float32"),  # depthwise
        (layer(144, groups=4), "float32"),
        (layer(32, 192, (1, 1)), "float32"),
        (layer(256, 256, (1, 1)), "int8"),
        (layer(144, 8), "float32"),
        (layer(64, 10, (), places=1), "float32"),  # a head
        (layer(256, 256, (), places=1), "float32"),
        (layer(4096, 4096, (), places=1), BY_IMAGES),
        (layer(MOST_IN_HALVES + 1, 4096, (), places=1), "int8"),
        (layer(192, 768, (), places=65), "int8"),  # tokens
    ],
)
def test_int8_is_taken_where_it_was_measured_to_be_faster(of, units):
    assert of_layer(compiler.BY_LAYER, of, 8) == of_layer(compiler.BY_LAYER, of, 4) == units
    assert of_layer(compiler.BY_LAYER, of, 16) == "float32"
    assert [of_layer(forced, of, 8) for forced in compiler.UNITS] == list(compiler.UNITS)


@pytest.mark.skipif(not compiler.multiplies_bytes(), reason="this CPU has no such instructions")
def test_a_layer_is_one_product_of_bytes_that_the_library_is_left(either):
    """No byte is widened, and the product, with a row for the kernel's sums, runs nowhere else."""
    networks, images = either
    lowered = run_clean.lower(encoded(networks[1]), images)
    told = lowered.as_text()
    dense = "(tensor<5x24xui8>, tensor<24x5xi8>) -> tensor<5x5xi32>"
    assert dense in told and told.count("stablehlo.convolution") == 1, "the grouped one"
    made = str(lowered.compile(compiler_options=compiler.options()).as_text())
    assert "s32[5,5]{1,0} fusion" in made and "__ynn_fusion" in made


def test_on_a_gpu_convolutions_of_bytes_give_float32_and_products_int32(either, monkeypatch):
    """What cuDNN and cuBLAS have; no GPU is needed to ask."""
    networks, images = either
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    traced = run_clean.trace(networks[1], images)
    told = traced.lower(lowering_platforms=("cuda",)).as_text()
    jax.clear_caches()
    results = re.findall(r"stablehlo\.(convolution|dot_general).*xi8>, .*xi8>\) -> .*x(\w+)>", told)
    assert results == [("convolution", "f32")] * 3 + [("dot_general", "i32")] * 2
