"""Expected metrics and their gradients by rates, held against all masks of a small network."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import afpjax
from afpjax.evaluate.expected import expected_metric

BITS = (1, 3)
WEIGHTS = np.array([[0.75, -0.5], [-0.25, 1.0]], np.float32)  # Q4.4: 12, -8, -4, 16
HEAD = np.array([[0.5], [-0.75]], np.float32)
IMAGES = np.array([[0.5, 0.25], [-0.375, 0.875], [1.0, -0.5]], np.float32)
RATES = np.array([[0.2, 0.05], [0.1, 0.3]], np.float32)  # [layers, bits]


def apply_fn(params, x):
    return x @ params["hidden"] @ params["head"]


def first_logit(logits, targets):
    return jnp.tanh(logits[:, 0]) * targets


@pytest.fixture(scope="module")
def quantized():
    params = {"hidden": jnp.asarray(WEIGHTS), "head": jnp.asarray(np.hstack([HEAD, -HEAD]))}
    network = afpjax.trace(apply_fn, params, IMAGES[:1])
    return afpjax.quantize(network, afpjax.QFormat(8, 4))


TARGETS = np.array([1.0, -2.0, 0.5], np.float32)


def by_enumeration(rates):
    """E[metric] over all masks of the weights' 8 x 2 faulty bits, in integers and float64."""
    hidden = np.rint(WEIGHTS * 16).astype(int)
    head = np.rint(np.hstack([HEAD, -HEAD]) * 16).astype(int)
    reads = np.rint(IMAGES * 16).astype(int)
    total = 0.0
    masks = [
        sum(1 << b for b, on in zip(BITS, each, strict=True) if on)
        for each in product((0, 1), repeat=2)
    ]
    chance = {
        (layer, mask): np.prod(
            [rates[layer, n] if mask >> b & 1 else 1 - rates[layer, n] for n, b in enumerate(BITS)]
        )
        for layer, mask in product((0, 1), masks)
    }

    def word(code, mask):
        flipped = (code & 255) ^ mask
        return flipped - 256 if flipped > 127 else flipped

    # The first logit reads the head's first column; the second column's faults do not matter.
    for of_hidden in product(masks, repeat=4):
        own = np.vectorize(word)(hidden, np.reshape(of_hidden, (2, 2)))
        sums = reads @ own / 256
        codes = np.clip(np.rint(sums * 16), -128, 127)
        weight = np.prod([chance[0, mask] for mask in of_hidden])
        for of_head in product(masks, repeat=2):
            column = [word(code, mask) for code, mask in zip(head[:, 0], of_head, strict=True)]
            logits = codes @ column / 256
            own_weight = weight * np.prod([chance[1, mask] for mask in of_head])
            total += own_weight * np.mean(np.tanh(logits) * TARGETS)
    return total


def test_value_and_gradient_by_rates_are_those_of_all_masks(quantized):
    trials, batches = 1024, 12

    @jax.jit
    def value_and_gradient(rates, key):
        return jax.value_and_grad(
            lambda r: expected_metric(
                first_logit,
                quantized,
                IMAGES,
                TARGETS,
                weight_rate=r,
                bits=BITS,
                key=key,
                trials=trials,
            )
        )(rates)

    found = [value_and_gradient(RATES, jax.random.key(n)) for n in range(batches)]
    values = np.array([float(value) for value, _ in found])
    gradients = np.array([np.asarray(gradient) for _, gradient in found])
    assert abs(values.mean() - by_enumeration(RATES.astype(float))) < 4 * error_of(values)
    step = 1e-4
    for place in np.ndindex(RATES.shape):
        up, down = RATES.astype(float), RATES.astype(float)
        up[place] += step
        down[place] -= step
        wanted = (by_enumeration(up) - by_enumeration(down)) / (2 * step)
        each = gradients[(slice(None), *place)]
        assert abs(each.mean() - wanted) < 4 * error_of(each), place
        assert error_of(each) < 0.1


def error_of(each):
    return each.std(ddof=1) / len(each) ** 0.5


def test_the_value_is_the_mean_over_the_networks_own_fault_draws(quantized):
    faults = afpjax.FaultModel(bits=BITS, weight_rate=0.25, activation_rate=0.125)
    metric = lambda logits, labels: (logits.argmax(1) == labels).astype(jnp.float32)  # noqa: E731
    labels = np.array([0, 1, 0])
    found = expected_metric(
        metric,
        quantized,
        IMAGES,
        labels,
        weight_rate=0.25,
        activation_rate=jnp.full(2, 0.125),
        bits=BITS,
        key=5,
        trials=20,
    )
    right = [
        (
            np.asarray(quantized(jnp.asarray(IMAGES), faults=faults, key=5, trial=k)).argmax(1)
            == labels
        ).mean()
        for k in range(20)
    ]
    assert float(found) == pytest.approx(np.mean(right), abs=1e-6)


def test_activations_have_a_gradient_of_their_own_images_and_parameters_theirs(quantized):
    """By finite differences of common draws: more flips, more loss; and straight through."""

    def loss(rate, network):
        return expected_metric(
            lambda logits, targets: (logits[:, 0] - targets) ** 2,
            network,
            IMAGES,
            TARGETS,
            activation_rate=rate,
            bits=BITS,
            key=1,
            trials=4096,
        )

    by_rate, by_network = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))(0.2, quantized)
    rise = (loss(0.25, quantized) - loss(0.15, quantized)) / 0.1
    assert float(by_rate) == pytest.approx(float(rise), rel=0.25)
    kernels = [np.asarray(each.kernel) for each in by_network.parameters.layers.values()]
    assert all(np.isfinite(kernel).all() and np.abs(kernel).max() > 0 for kernel in kernels)


def test_a_rate_of_nothing_is_the_clean_network_and_has_no_gradient(quantized):
    def mean(rate):
        return expected_metric(first_logit, quantized, IMAGES, TARGETS, weight_rate=rate, trials=2)

    clean = np.mean(np.tanh(np.asarray(quantized(IMAGES))[:, 0]) * TARGETS)
    value, gradient = jax.value_and_grad(mean)(0.0)
    assert float(value) == pytest.approx(clean, abs=1e-6) and float(gradient) == 0.0
