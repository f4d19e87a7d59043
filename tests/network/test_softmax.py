"""Softmaxes at logits of any size, and networks that end in one judged by their logits."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import afpjax
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults.model import thresholds
from afpjax.network.program import Equation
from afpjax.network.softmax import before_softmax
from afpjax.network.trace import trace

FLOAT = afpjax.QFormat(kind="float32")
NO_FAULTS = afpjax.FaultModel(bits=(0,), weight_rate=(0.0,), activation_rate=(0.0,))


def by_hand(x):
    """As exporters write it out."""
    powers = jnp.exp(x - jnp.max(x, axis=1, keepdims=True))
    return powers / jnp.sum(powers, axis=1, keepdims=True)


def careless(x):
    return jnp.exp(x) / jnp.exp(x).sum(axis=1, keepdims=True)


ENDS = {
    "softmax": jax.nn.softmax,
    "logarithm": jax.nn.log_softmax,
    "by hand": by_hand,
    "careless": careless,
    "reshaped": lambda x: jax.nn.softmax(x[:, :, None, None], axis=1).reshape(len(x), -1),
    "without its first class": lambda x: jax.nn.softmax(x)[:, 1:],
}


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), jnp.float32)


IMAGES = drawn(4, 7, 7, 2)
PARAMS = {"first": drawn(2, 6), "fc": drawn(6, 5)}


def logits_of(params, images):
    """A dense layer, a mean over 49 pixels and another dense layer."""
    return jax.nn.relu(images @ params["first"]).mean((1, 2)) @ params["fc"]


@pytest.fixture(scope="module")
def plain():
    return trace(logits_of, PARAMS, IMAGES)


def ending(end):
    """The same network, then `end`."""
    return trace(lambda params, images: end(logits_of(params, images)), PARAMS, IMAGES)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_network_gives_its_function_s_probabilities_and_is_judged_by_its_logits(end, plain):
    network, logits = ending(end), plain(IMAGES)
    np.testing.assert_allclose(network(IMAGES), end(logits), rtol=1e-5)
    judged = before_softmax(network)
    wanted = logits[:, 1:] if end(logits).shape != logits.shape else logits
    np.testing.assert_allclose(judged(IMAGES), wanted, rtol=1e-6, atol=1e-6)
    names = {s.primitive.name for s in judged.program.steps if isinstance(s, Equation)}
    assert not names & {"exp", "log", "reduce_max"}
    assert before_softmax(judged) is judged and before_softmax(plain) is plain


def test_what_is_no_softmax_over_the_classes_stays():
    for end in (
        lambda x: jax.nn.softmax(x[:, :, None], axis=2)[:, :, 0],
        lambda x: jnp.exp(x) / jnp.exp(2 * x).sum(axis=1, keepdims=True),
        lambda x: x - jax.nn.logsumexp(2 * x, axis=1, keepdims=True),
        lambda x: jax.nn.softmax(x) * 2,
        lambda x: x - x.max(axis=1, keepdims=True),
        jax.nn.sigmoid,
    ):
        network = ending(end)
        assert before_softmax(network) is network


@pytest.fixture(scope="module")
def softmaxed():
    return ending(jax.nn.softmax)


def test_evaluators_keep_logits_of_a_network_that_ends_in_a_softmax(softmaxed, plain):
    found = []
    for each in (softmaxed, plain):
        quantized = afpjax.quantize(each, FLOAT)
        evaluator = Evaluator(quantized, IMAGES, np.zeros(4, np.int32), 0, metric=LOGITS)
        limits = thresholds(NO_FAULTS, quantized, np.zeros((1, 2), np.int32))
        found.append(evaluator.evaluate(NO_FAULTS, limits, (0,))[0, 0])
    np.testing.assert_array_equal(*found)


def test_importance_takes_the_softmax_once(softmaxed, plain):
    """A softmax of probabilities made every divergence of such a network too small."""
    ours, theirs = (afpjax.importance(each, IMAGES) for each in (softmaxed, plain))
    assert max(float(each["jsd"].max()) for each in theirs.values()) > 1e-3
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scale", [1e4, 1e20])
@pytest.mark.parametrize("function", [jax.nn.softmax, jax.nn.log_softmax, by_hand])
def test_logits_of_any_size_give_probabilities(function, scale):
    """A product that runs into the subtraction of its maximum, as XLA fuses them: 1/49 is no
    power of two. The oracle takes the softmax of the logits, in float64."""
    network = ending(lambda x: function(x * jnp.float32(scale) * (jnp.float32(1) / 49)))
    images = jnp.asarray(np.full((3, 7, 7, 2), 1.37, np.float32)) * drawn(3, 1, 1, 1)
    logits = np.asarray(before_softmax(network)(images), np.float64)
    oracle = log_softmax if function is jax.nn.log_softmax else softmax
    wanted = oracle(logits, axis=1)
    got = np.asarray(network(images))
    assert np.isfinite(got).all() and (function is jax.nn.log_softmax or got.max() <= 1)
    if scale <= 1e4:
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * max(1, -wanted.min()))
    np.testing.assert_array_equal(got.argmax(1), wanted.argmax(1))


def test_equal_logits_of_billions_have_equal_probabilities():
    """A mean over 169 places, 1,000 classes alike: what light_squeezenet ends in."""

    def apply_fn(params, images):
        return jax.nn.softmax(jax.nn.relu(images @ params).mean(axis=(1, 2)))

    params = jnp.full((4, 1000), 3.3e8, jnp.float32)
    images = jnp.full((2, 13, 13, 4), 5.05, jnp.float32)
    got = trace(apply_fn, params, images)(images)
    np.testing.assert_allclose(got, np.full((2, 1000), 0.001), rtol=1e-6)


def test_the_gradient_of_a_softmax_is_that_of_its_function():
    """Where a logit is the maximum, a minimum of both would hand half of the gradient away."""
    params, images = {"fc": drawn(6, 5)}, drawn(4, 6)

    def apply_fn(params, images):
        return jax.nn.softmax(images @ params["fc"])

    def loss(parameters):
        return jnp.sum(replace(network, parameters=parameters)(images) ** 2)

    network = trace(apply_fn, params, images)
    got = jax.grad(loss)(network.parameters).layers["fc"].kernel
    wanted = jax.grad(lambda params: jnp.sum(apply_fn(params, images) ** 2))(params)["fc"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
