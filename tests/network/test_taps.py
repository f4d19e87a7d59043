"""A layer's sums with one weight exchanged, against the layer with that weight in its kernel."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.network.interpreter import execute
from afpjax.network.taps import exchange, has_taps
from afpjax.network.trace import trace

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


def conv(layout=NHWC, stride=(1, 1), padding: Any = "SAME", **options):
    return lambda w, x: lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=layout, **options
    )


LAYERS = {
    "3x3": (conv(), (3, 3, 2, 3), (1, 5, 4, 2)),
    "strided": (conv(stride=(2, 3), padding="VALID"), (3, 2, 2, 3), (1, 8, 7, 2)),
    "channels first": (conv(NCHW, (2, 1), [(1, 2), (0, 1)]), (4, 3, 3, 2), (1, 3, 6, 5)),
    "dilated": (conv(padding="SAME", rhs_dilation=(2, 1)), (3, 3, 2, 2), (1, 6, 6, 2)),
    "transposed": (
        conv(padding=[(2, 1), (2, 2)], lhs_dilation=(2, 2)), (3, 3, 2, 3), (1, 3, 4, 2)
    ),
    "cropped": (conv(padding=[(-1, 0), (1, -2)]), (2, 2, 2, 2), (1, 5, 6, 2)),
    "grouped": (conv(feature_group_count=2), (3, 3, 2, 6), (1, 4, 4, 4)),
    "depthwise": (conv(NCHW, feature_group_count=3), (6, 1, 3, 3), (1, 3, 4, 4)),
    "1-d": (conv(("NWC", "WIO", "NWC"), (2,)), (5, 2, 3), (1, 9, 2)),
    "dense": (lambda w, x: x @ w, (6, 4), (1, 6)),
    "tokens": (lambda w, x: x @ w, (3, 5), (1, 4, 3)),
    "kernel first": (lambda w, x: jnp.einsum("ok,nk->no", w, x), (4, 3), (1, 3)),
    "heads": (lambda w, x: jnp.einsum("ntc,chd->nthd", x, w), (4, 2, 3), (1, 5, 4)),
    "by group": (lambda w, x: jnp.einsum("ngc,gcd->ngd", x, w), (2, 3, 4), (1, 2, 3)),
    "two axes": (lambda w, x: jnp.einsum("nhwc,hwcd->nd", x, w), (2, 3, 2, 4), (1, 2, 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_exchanged_weights_give_the_sums_of_a_kernel_that_has_them(name):
    apply_fn, kernel_shape, image_shape = LAYERS[name]
    rng = np.random.default_rng(3)
    kernel = jnp.asarray(rng.integers(-99, 99, kernel_shape), jnp.float32)
    flat = lambda w, x: apply_fn(w, x).reshape(1, -1)  # noqa: E731
    network = trace(flat, kernel, np.ones(image_shape, np.float32))
    (call,) = network.program.calls
    assert has_taps(call)
    kernel = network.parameters.layers[call.layer.name].kernel
    image = jnp.asarray(rng.integers(-99, 99, network.program.image_shape), jnp.float32)

    def run(linear):
        return execute(network.program, network.parameters, image, lambda c, v, _: linear(c, v))

    def changed(element, new):
        other = kernel.reshape(-1).at[element].set(new).reshape(kernel.shape)
        return run(lambda call, value: call.linear(value, other))

    def exchanged(element, new):
        old = kernel.reshape(-1)[element]
        return run(lambda c, v: exchange(c, v, c.linear(v, kernel), element, old, new))

    elements = np.arange(kernel.size, dtype=np.uint32)
    new = jnp.asarray(rng.integers(-99, 99, kernel.size), jnp.float32)
    got = np.asarray(jax.jit(jax.vmap(exchanged))(elements, new))
    one_by_one = jax.jit(lambda *of: lax.map(lambda own: changed(*own), of))
    np.testing.assert_array_equal(got, one_by_one(elements, new))
    clean = np.asarray(run(lambda call, value: call.linear(value, kernel)))
    assert (got != clean).reshape(len(elements), -1).any(axis=1).mean() > 0.9
