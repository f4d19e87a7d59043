"""Convolutions over images smaller than their window: the matrix form against the convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afpjax.network import small_conv
from afpjax.network.trace import trace

LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NCHW", "HWIO", "NHWC")]


def convolution(layout, options):
    def apply_fn(params, images):
        made = lax.conv_general_dilated(images, params, dimension_numbers=layout, **options)
        return made.reshape(images.shape[0], -1)

    return apply_fn


def integers(layout, sizes, seed):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(-128, 128, [sizes[axis] for axis in layout]), jnp.float32)


def traced(layout, options, size, taps=(3, 3)):
    sizes = dict(N=3, H=size[0], W=size[1], C=4, I=4, O=5)
    images = integers(layout[0], sizes, 0)
    kernel = integers(layout[1], sizes | dict(H=taps[0], W=taps[1]), 1)
    apply_fn = convolution(layout, options)
    return trace(apply_fn, kernel, images), apply_fn, kernel, images


OPTIONS = [
    dict(window_strides=(1, 1), padding="SAME"),
    dict(window_strides=(2, 2), padding=((1, 1), (1, 1))),
    dict(window_strides=(1, 2), padding=((2, 0), (1, 2))),
    dict(window_strides=(1, 1), padding=((2, 2), (2, 2)), rhs_dilation=(1, 2)),
    dict(window_strides=(1, 1), padding=((1, 1), (1, 1)), lhs_dilation=(2, 1)),
]


@pytest.mark.parametrize(
    ("layout", "options"), [*zip([*LAYOUTS, *LAYOUTS[:2]], OPTIONS, strict=True)], ids=str
)
def test_integers_come_out_the_same_in_either_form(layout, options):
    for size in ((1, 2), (3, 2)):
        network, apply_fn, kernel, images = traced(layout, options, size)
        expected = jax.jit(apply_fn)(kernel, images)
        np.testing.assert_array_equal(network(images), expected, err_msg=str(size))


def fits(options, size, taps=(3, 3)):
    network, *_ = traced(LAYOUTS[0], options, size, taps)
    (call,) = network.program.calls
    return small_conv.fits(call.params, call.layer)


def test_the_matrix_form_is_taken_where_the_image_is_smaller_than_its_window():
    same = OPTIONS[0]
    assert fits(same, (2, 2)) and fits(same, (1, 2)) and fits(OPTIONS[1], (2, 2))
    assert not fits(same, (3, 3)) and not fits(same, (8, 8))
    assert not fits(same, (1, 1), taps=(1, 1))


def test_an_infinity_reaches_only_the_outputs_that_the_convolution_lets_it_reach():
    """A struck float may be infinite; a zero of the matrix would make a NaN of it elsewhere."""
    network, apply_fn, kernel, images = traced(LAYOUTS[0], OPTIONS[0], (4, 2))
    assert not fits(OPTIONS[0], (4, 2)), "rows 0 and 3 do not meet"
    images = images.at[:, 3, 0].set(jnp.inf)
    expected = np.asarray(jax.jit(apply_fn)(kernel, images))
    assert np.isfinite(expected).any() and not np.isfinite(expected).all()
    np.testing.assert_array_equal(network(images), expected)
