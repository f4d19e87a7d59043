"""The three scores against slow loops over the original network, and as functions in research."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy.special import softmax

import afpjax
from afpjax.evaluate import sizes
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace
from afpjax.neurons import importance as module
from afpjax.neurons.importance import importance, jsd, jsd_estimate, l1, taylor

from .conftest import (
    BIASED,
    CLASSES,
    IMAGES,
    SHAPES,
    divergence,
    folded,
    logits,
    name_of,
)

TARGETS = ("winner", "label", "loss")
STEP = 1e-4  # of finite differences
estimate = jax.jit(jsd_estimate, static_argnames="classes")


@pytest.fixture(scope="module")
def exact(absent):
    """Divergences by a direct loop: every neuron's parameters zeroed, the whole network run."""
    return {
        layer: divergence(absent.whole, others).mean(axis=1)
        for layer, others in absent.without.items()
    }


def test_every_neuron_of_every_layer_has_three_scores(case, scores):
    assert len(scores) == len(case.network.layers) == len(SHAPES)
    assert list(scores) == list(case.network.graph.names)
    for layer, shape in SHAPES.items():
        own = scores[name_of(case.network, layer)]
        assert sorted(own) == ["jsd", "l1", "taylor"]
        for values in own.values():
            assert values.shape == (shape[-1],) and values.dtype == jnp.float32
            assert (np.asarray(values) >= 0).all()
    assert afpjax.importance is importance


def test_l1_is_the_filter_s_and_the_bias_s_after_folding(case, scores):
    for layer, (filters, bias) in folded(case).items():
        expected = np.abs(filters).sum(axis=1) + (0 if bias is None else np.abs(bias))
        assert (bias is None) == (layer not in BIASED)
        np.testing.assert_allclose(scores[name_of(case.network, layer)]["l1"], expected, rtol=1e-5)


def test_divergence_agrees_with_the_direct_loop(case, scores, exact):
    for layer, expected in exact.items():
        assert expected.max() > 1e-4, "a network where nothing matters shows nothing"
        found = np.asarray(scores[name_of(case.network, layer)]["jsd"])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


@pytest.fixture(scope="module")
def moved(case):
    """Parameters of each layer's last neuron, [P] by layer, and logits [P, B, classes] with each
    of them a little up and down, in float64."""
    values: dict[str, list[float]] = {layer: [] for layer in SHAPES}
    either = []
    with jax.enable_x64(True):
        params = jax.tree.map(lambda each: np.asarray(each, np.float64), case.params)
        for layer in SHAPES:
            for name, array in params[layer].items():
                for place in np.ndindex(array.shape[:-1]):
                    values[layer].append(array[(*place, -1)])
                    for sign in (1, -1):
                        own = np.array(array)
                        own[(*place, -1)] += sign * STEP
                        either.append(params | {layer: params[layer] | {name: own}})
        several = jax.tree.map(lambda *each: np.stack(each), *either)
        images = jnp.asarray(case.images, jnp.float64)
        found = np.asarray(jax.jit(jax.vmap(lambda own: logits(own, images)))(several))
    return values, found[0::2], found[1::2]


@pytest.mark.parametrize("target", TARGETS)
def test_taylor_agrees_with_finite_differences(case, absent, moved, target):
    """A scale folded into a filter changes nothing: ∂y/∂(sw) · sw = ∂y/∂w · w."""
    chosen_of = absent.whole.argmax(axis=1) if target == "winner" else case.labels

    def mean(outputs):
        """y, averaged over the images: the last axes of `outputs` are images and classes."""
        chosen = outputs[..., np.arange(IMAGES), chosen_of]
        if target == "loss":
            chosen = np.log(np.exp(outputs).sum(axis=-1)) - chosen
        return chosen.mean(axis=-1)

    values, up, down = moved
    slopes = (mean(up) - mean(down)) / (2 * STEP)
    scores = taylor(case.network, case.images, case.labels, target=target)
    for layer, own in values.items():
        expected = np.abs(slopes[: len(own)] * own).sum()
        slopes = slopes[len(own) :]
        found = float(scores[name_of(case.network, layer)][-1])
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)
    assert not len(slopes)


def test_batches_change_nothing(case, monkeypatch):
    """Images and neurons some at a time: a last batch that is not full counts what it holds."""
    whole = importance(case.network, case.images)
    small = sizes.CPU._replace(scoring_images=3, scoring_neurons=2)
    monkeypatch.setattr(sizes, "CPU", small)
    module._compiled.cache_clear()
    apart = importance(case.network, case.images)
    module._compiled.cache_clear()
    for layer, own in whole.items():
        for name, values in own.items():
            np.testing.assert_allclose(apart[layer][name], values, rtol=1e-4, atol=1e-8)


def _smooth(params, images):
    """Depthwise convolution and a residual sum between two dense layers."""
    wide = jnp.tanh(images @ params["head"]["kernel"][:2])
    thin = jax.lax.conv_general_dilated(
        wide,
        params["depthwise"]["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )
    pooled = jnp.tanh(thin + params["depthwise"]["bias"][None, None, None]).mean(axis=(1, 2))
    return jnp.tanh(pooled @ params["main"]["kernel"][0, 0]) + pooled


def test_it_can_be_called_while_something_else_is_traced(case):
    """Closed over, with no argument of its own traced, or with the labels alone."""
    tiny = trace(lambda p, x: x.reshape(len(x), -1) @ p, jnp.eye(50, 3), case.images)
    (expected,) = importance(tiny, case.images, case.labels % 3, target="label").values()
    for call in (
        lambda labels: importance(tiny, case.images, case.labels % 3, target="label"),
        lambda labels: importance(tiny, case.images, labels, target="label"),
    ):
        (found,) = jax.jit(call)(case.labels % 3).values()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("score", ["l1", "taylor", "jsd"])
def test_gradients_through_the_scores_are_those_of_finite_differences(case, score):
    """Along a random direction of all parameters, of a random weighting of all neurons.

    With tanh for ReLU, whose slope jumps.
    """
    rng = np.random.default_rng(5)
    network, images = trace(_smooth, case.params, case.images), case.images[:3]
    sizes = {layer.name: layer.neurons for layer in network.layers}
    weights = {name: jnp.asarray(rng.normal(size=n), jnp.float32) for name, n in sizes.items()}
    functions = {
        "l1": l1,
        "taylor": lambda net: taylor(net, images),
        "jsd": lambda net: jsd(net, images),
    }

    def total(network):
        found = functions[score](network)
        return sum(jnp.vdot(weights[name], values) for name, values in found.items())

    leaves, tree = jax.tree.flatten(network)
    way = [jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    slopes = jax.tree.leaves(jax.jit(jax.grad(total))(network))
    expected_slope = sum(float(jnp.vdot(a, b)) for a, b in zip(slopes, way, strict=True))
    value = jax.jit(total)

    def at(step):
        moved = [leaf + jnp.float32(step) * each for leaf, each in zip(leaves, way, strict=True)]
        return float(value(jax.tree.unflatten(tree, moved)))

    step = 2e-3 if score == "jsd" else 5e-4
    found = (at(step) - at(-step)) / (2 * step)
    assert abs(expected_slope) > 1e-3
    assert found == pytest.approx(expected_slope, rel=0.03, abs=2e-3)


def test_no_batch_of_kernels_is_ever_made(case):
    """Neurons are masks on activations: kernels keep their shape, the images' batch grows."""
    jaxpr = jax.make_jaxpr(lambda images: jsd(case.network, images))(case.images)
    shapes = {layer.kernel_shape for layer in case.network.layers}
    found = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    assert len(found) > len(SHAPES)
    assert {each.invars[1].aval.shape for each in found} <= shapes
    groups = {
        each.params["feature_group_count"] * each.params["batch_group_count"] for each in found
    }
    assert groups == {1, 2, 4}  # those of the network


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for each in jaxprs_in_params(eqn.params):
            yield from _equations(each)


@pytest.fixture(scope="module")
def estimates(case):
    return estimate(case.network, case.images)


def test_estimates_follow_the_exact_divergences(case, exact, estimates):
    found, neglected = estimates
    assert float(neglected) == pytest.approx(0, abs=1e-6)
    last = name_of(case.network, "head")  # logits are linear in these: the estimate is exact
    np.testing.assert_allclose(found[last], exact["head"], rtol=1e-3)
    ours = np.concatenate([np.asarray(found[name_of(case.network, each)]) for each in SHAPES])
    theirs = np.concatenate([exact[each] for each in SHAPES])
    assert (
        np.corrcoef(ours.argsort().argsort(), theirs.argsort().argsort())[0, 1] > 0.6
    )  # a few neurons a layer: each is much of it


def test_an_estimate_of_few_classes_says_what_it_neglects(case, absent):
    _, neglected = estimate(case.network, case.images, classes=2)
    expected = np.sort(softmax(absent.whole, axis=1), axis=1)[:, :-2].sum(axis=1).mean()
    assert 0.01 < float(neglected) == pytest.approx(expected, rel=1e-4)


def test_beyond_the_limit_divergences_are_estimated(case, scores, estimates):
    expected, _ = estimates
    found = importance(case.network, case.images, exact_passes=0)
    for layer, own in found.items():
        np.testing.assert_allclose(own["jsd"], expected[layer], rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(own["l1"], scores[layer]["l1"])
    stem = name_of(case.network, "stem")
    assert np.abs(np.asarray(found[stem]["jsd"]) - np.asarray(scores[stem]["jsd"])).max() > 1e-5


def test_a_quantised_network_has_divergences_of_its_own(case, scores):
    coarse = quantize(case.network, QFormat(bits=6, frac=3))
    head = name_of(case.network, "head")
    found = jax.jit(jsd)(coarse, case.images)[head]
    kernel = coarse.parameters.layers[head]
    assert kernel.bias is not None
    removed = kernel._replace(kernel=kernel.kernel.at[:, 2].set(0), bias=kernel.bias.at[2].set(0))
    layers = coarse.parameters.layers | {head: removed}
    without = replace(coarse, parameters=coarse.parameters._replace(layers=layers))(case.images)
    expected = divergence(np.asarray(coarse(case.images)), np.asarray(without)).mean()
    assert float(found[2]) == pytest.approx(expected, rel=1e-3)
    assert abs(expected - float(scores[head]["jsd"][2])) > 1e-6


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.zeros((0, 5, 5, 2), np.float32),), {}, "images: none given"),
        ((np.zeros((2, 5, 4, 2), np.float32),), {}, r"images: of shape \(5, 4, 2\)"),
        ((None,), {"target": "label"}, "labels: none given; target = label needs"),
        ((None,), {"target": "loss"}, "labels: none given; target = loss needs"),
        ((None, np.zeros(3, np.int32)), {}, f"labels: {IMAGES} images but 3 labels"),
        ((None,), {"target": "logit"}, "target: 'logit' is none of winner, label, loss"),
    ],
)
def test_bad_input_is_refused_in_one_line(case, arguments, options, words):
    given = [case.images if each is None else each for each in arguments]
    with pytest.raises(InputError, match=words) as refused:
        importance(case.network, *given, **options)
    assert "\n" not in str(refused.value)
    assert CLASSES == 4
