"""Neurons left out in compiled programs, batch by batch, and what is kept of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import sizes
from afpjax.evaluate.metric import LARGEST
from afpjax.inputs.errors import InputError
from afpjax.network.trace import trace
from afpjax.neurons import ablation, scoring
from afpjax.neurons import left_out as module
from afpjax.neurons.importance import jsd, jsd_estimate, taylor
from afpjax.neurons.left_out import left_out
from afpjax.neurons.scoring_data import ScoringData

from .conftest import IMAGES, SHAPES, divergence, name_of


def _every(network):
    return {n: np.arange(layer.neurons) for n, layer in enumerate(network.layers)}


def _subject(case, network=None, memory=None):
    own = case.network if network is None else network
    return ScoringData(own, case.images, case.labels, {} if memory is None else memory)


def test_divergences_and_drops_are_those_of_a_direct_loop(case, absent, monkeypatch):
    """In calls of 3 images, 2 neurons at once, none of which come out even."""
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(most_images=3, least_images=1))
    monkeypatch.setattr(module, "AT_ONCE", 2)
    clean, steps = (absent.whole.argmax(axis=1) == case.labels).mean(), []
    subject = _subject(case)
    found = left_out(subject, _every(case.network), steps.append)
    assert not subject.evaluator.memory, "what was asked for is not kept twice"
    for name, others in absent.without.items():
        lost = found[case.network.graph.names.index(name_of(case.network, name))]
        expected = divergence(absent.whole, others).mean(axis=1)
        np.testing.assert_allclose(lost.divergence, expected, rtol=1e-3, atol=1e-9)
        right = (others.argmax(axis=2) == case.labels).mean(axis=1)
        np.testing.assert_allclose(lost.drop, clean - right, atol=1e-12)
    assert sum(steps) == IMAGES * sum(layer.neurons for layer in case.network.layers)


def test_a_deep_network_has_few_programs(case):
    """Each layer in one run, in order; what is compiled grows with the layers, not their square."""

    def deep(params, images):
        value = images.reshape(len(images), -1)
        for kernel in params:
            value = jnp.tanh(value @ kernel)
        return value

    def products(layers):
        shapes = [(50, 4), *[(4, 4)] * (layers - 1)]
        params = [np.ones(shape, np.float32) for shape in shapes]
        network = trace(deep, params, case.images)
        runs = ablation.runs(network.program)
        assert [place for run in runs for place in run] == list(range(layers))
        assert len(runs) == ablation.RUNS
        text = str(jax.make_jaxpr(lambda images: jsd(network, images))(case.images))
        return text.count("dot_general[")

    assert products(40) < 2.3 * products(20)


def _twins(params, images):
    """Two branches alike in every shape, whose programs must not be taken for one another's."""
    flat = images.reshape(len(images), -1)
    one, other = (jnp.tanh(flat @ params[name]) for name in ("one", "other"))
    return jnp.concatenate([one, other], axis=1) @ params["head"]


def test_branches_of_equal_shape_are_told_apart(case):
    rng = np.random.default_rng(2)
    shapes = {"one": (50, 3), "other": (50, 3), "head": (6, 4)}
    params = {n: jnp.asarray(rng.normal(size=s) / 3, jnp.float32) for n, s in shapes.items()}
    network = trace(_twins, params, case.images)
    found = left_out(_subject(case, network), _every(network))
    whole = np.asarray(_twins(params, jnp.asarray(case.images)))
    for number, name in enumerate(network.graph.names):
        for neuron in range(shapes[name][1]):
            removed = params | {name: params[name].at[:, neuron].set(0)}
            others = np.asarray(_twins(removed, jnp.asarray(case.images)))
            expected = divergence(whole, others).mean()
            assert found[number].divergence[neuron] == pytest.approx(expected, rel=1e-3)


def test_a_neuron_whose_absence_leaves_no_answer_costs_everything(case):
    def fragile(params, images):
        hidden = images.reshape(len(images), -1) @ params["a"]
        return jnp.log(jnp.square(hidden)) @ params["b"]  # the log of nothing is -inf

    rng = np.random.default_rng(4)
    params = {"a": rng.normal(size=(50, 3)), "b": rng.normal(size=(3, 4))}
    params = {name: jnp.asarray(each, jnp.float32) for name, each in params.items()}
    found = left_out(_subject(case, trace(fragile, params, case.images)), {0: np.arange(3)})
    np.testing.assert_allclose(found[0].divergence, LARGEST, rtol=1e-6)
    subject = _subject(case, trace(fragile, params, case.images))
    np.testing.assert_allclose(found[0].drop, subject.right)


def test_only_what_depends_on_a_layer_runs_again(case):
    """Beside a residual's main path the stem is not run, and behind it everything is."""
    network = case.network
    place = {name: network.graph.names.index(name_of(network, name)) for name in SHAPES}
    cut = ablation.cut(network.program)
    for name, behind in (("main", {*SHAPES} - {"stem"}), ("left", {"left", "fc", "head"})):
        numbers = ablation.affected(network.program, (place[name],))
        assert {cut[n].layer for n in numbers} - {None} == {place[each] for each in behind}
    macs = {n: network.layers[place[n]].macs for n in SHAPES}
    share = (macs["fc"] + macs["head"]) / sum(macs.values())
    assert ablation.passes(network.program, (place["left"],)) == pytest.approx(share)
    assert ablation.passes(network.program, (place["head"],)) == 0


def test_what_is_kept_comes_back_bit_for_bit(case):
    memory: dict[bytes, bytes] = {}
    wanted = {1: np.array([0, 3]), 4: np.array([1])}
    first = left_out(_subject(case, memory=memory), wanted)
    assert len(memory) == 2
    steps: list[int] = []
    again = left_out(_subject(case, memory=memory), wanted, steps.append)
    for layer, lost in first.items():
        for one, other in zip(lost, again[layer], strict=True):
            np.testing.assert_array_equal(one, other)
    assert steps == [2 * IMAGES, IMAGES]
    others = left_out(_subject(case, memory=memory), {1: np.array([1, 2])})
    assert (others[1].divergence != first[1].divergence).all() and len(memory) == 3


def test_measured_first_order_scores_are_the_library_s(case, monkeypatch):
    expected = jax.jit(partial(taylor, target="loss"))(case.network, case.images, case.labels)
    guess = jax.jit(partial(jsd_estimate, classes=2))
    estimates, neglected = guess(case.network, case.images)
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(scoring_images=3))
    found = scoring.taylor(_subject(case), "loss")
    about, left = scoring.estimate(_subject(case), 2)
    assert left == pytest.approx(float(neglected), rel=1e-4)
    for name in case.network.graph.names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(about[name], estimates[name], rtol=1e-4, atol=1e-9)


def test_a_network_that_gives_infinity_is_refused(case):
    def broken(params, images):
        return images.reshape(len(images), -1) @ params / jnp.float32(0)

    params = jnp.ones((50, 4))
    with pytest.raises(InputError, match="its logits hold NaN or infinity"):
        _ = _subject(case, trace(broken, params, case.images)).right


def test_an_integer_network_s_images_are_cast_as_it_wants(case):
    """uint8 images go to a network of floats as they do in `Network`."""
    images = (case.images > 0).astype(np.uint8)
    subject = ScoringData(case.network, images, case.labels, {})
    said = np.asarray(case.network(jnp.asarray(images))).argmax(axis=1)
    assert subject.right == pytest.approx((said == case.labels).mean())
    jax.block_until_ready(said)
