"""A function that mixes the images of a batch is refused; rounding alone never is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network import batch_check
from afpjax.network.trace import trace

rng = np.random.default_rng(0)
PARAMS = {
    "a": rng.normal(size=(16, 8)).astype(np.float32),
    "b": rng.normal(size=(8, 5)).astype(np.float32),
}
ABSTRACT = jax.ShapeDtypeStruct((1, 16), jnp.float32)
REAL = rng.normal(size=(8, 16)).astype(np.float32)


def hidden(params, x):
    return x @ params["a"]


def in_training(params, x):
    """Batch norm by the batch's own statistics."""
    h = hidden(params, x).reshape(-1, 4, 2)
    h = (h - h.mean((0, 1), keepdims=True)) / jnp.sqrt(h.var((0, 1), keepdims=True) + 1e-5)
    return jax.nn.relu(h.reshape(-1, 8)) @ params["b"]


def dropped(params, x):
    """Dropout whose mask is another one for each image of a batch."""
    h = hidden(params, x)
    return jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, h.shape), h, 0) @ params["b"]


def apart(params, x):
    return jax.nn.relu(hidden(params, x)) @ params["b"]


@pytest.mark.parametrize("sample", [ABSTRACT, REAL, REAL[:1]], ids=["abstract", "many", "one"])
@pytest.mark.parametrize("function", [in_training, dropped])
def test_a_network_left_in_training_mode_is_refused(function, sample):
    said = r"batch of 3 images its logits differ by .* inference"
    with pytest.raises(InputError, match=said) as caught:
        trace(function, PARAMS, sample)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_numbers_are_no_other_function(dtype):
    """Twelve layers, each rounded to 8 or 11 bits: the traced network multiplies in float32."""
    kernels = [rng.normal(size=(32, 32)).astype(np.float32) / 4 for _ in range(12)]
    params = [jnp.asarray(kernel, dtype) for kernel in kernels]

    def deep(params, x):
        x = x.astype(dtype)
        for kernel in params:
            x = jax.nn.relu(x @ kernel) * jnp.asarray(0.7, dtype) + jnp.asarray(0.1, dtype)
        return x.astype(jnp.float32)

    trace(deep, params, jax.ShapeDtypeStruct((1, 32), jnp.float32))


def test_a_network_with_steps_is_no_other_function():
    """A sum that rounds the other way moves a logit by a whole step of the quantised values."""

    def stepped(params, x):
        h = hidden(params, x) * jnp.float32(0.3) + jnp.float32(0.5)
        return jnp.round(h * 4) @ params["b"]

    halves = np.round(REAL * 2) / 2  # many sums on the edge of a step
    coarse = {**PARAMS, "a": np.round(PARAMS["a"] * 2) / 2}
    trace(stepped, coarse, halves)


def test_what_is_nearly_equal_may_be_subtracted():
    """Logits a ten-thousandth of the values they are the difference of."""

    def small(params, x):
        h = jnp.float32(3e4) + hidden(params, x)
        return (h - jnp.float32(3e4)) @ params["b"]

    trace(small, PARAMS, ABSTRACT)


def test_a_function_of_one_image_is_held_against_each():
    def lone(params, x):
        return apart(params, x.reshape(1, 16))

    network = trace(lone, PARAMS, ABSTRACT)
    np.testing.assert_allclose(network(REAL), apart(PARAMS, REAL), rtol=1e-5, atol=1e-5)


def test_logits_that_are_not_finite_tell_nothing():
    trace(lambda p, x: jnp.log(hidden(p, x)) @ p["b"], PARAMS, ABSTRACT)


def test_numbers_of_words_stay_numbers_of_words():
    params = {**PARAMS, "table": rng.normal(size=(2, 16)).astype(np.float32)}
    sample = jax.ShapeDtypeStruct((1, 3), jnp.int32)
    assert set(np.unique(batch_check.few_images(sample))) <= {0, 1}
    trace(lambda p, x: apart(p, p["table"][x].mean(1)), params, sample)


def test_the_difference_that_is_said_is_the_largest():
    images = batch_check.few_images(ABSTRACT)
    one_by_one = np.concatenate([in_training(PARAMS, image[None]) for image in images])
    largest = np.abs(np.asarray(in_training(PARAMS, images)) - one_by_one).max()
    with pytest.raises(InputError, match=f"differ by {largest:.3g} ") as caught:
        trace(in_training, PARAMS, ABSTRACT)
    assert "\n" not in str(caught.value)
