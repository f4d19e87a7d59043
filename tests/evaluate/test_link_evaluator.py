"""Faults of the link in the evaluator: the callable's answers, however the work is cut up."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import engine, sizes
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.evaluate.sensitivity import sensitivity
from afpjax.faults import bits
from afpjax.faults.link import arrived
from afpjax.faults.model import FaultModel, thresholds
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import LayerFaults, layer_on_codes, quantize
from afpjax.network.stages import stages
from afpjax.network.trace import trace

from .together import conv

SHAPES = dict(stem=(3, 3, 3, 4), up=(3, 3, 4, 4), side=(1, 1, 4, 4), out=(8, 5))
KEY, IMAGES, TRIALS = 2, 21, (0, 1, 9)
MAPPINGS = np.array(
    [[0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0], [2, 0, 1, 1]], np.int32
)
FEW: dict[str, Any] = dict(bits=(2, 5), link_rate=0.02)  # each faulty bit takes its time to compile
FAULTS = {
    "bits": FaultModel(**FEW, weight_rate=(0.0, 0.1, 0.0), activation_rate=0.1),
    "zero": FaultModel(weight_rate=0.0, link_rate=0.2, link_kind="zero", packet=5),
    "last": FaultModel(scope="run", link_rate=0.2, link_kind="last", packet=5),
    "image": FaultModel(**FEW, weight_rate=0.1, scope="image"),
    "threefry": FaultModel(**FEW, weight_rate=0.0, generator="threefry"),
}


def forward(p, x):
    """A residual block whose sum crosses, and a concatenation with its input."""
    stem = jax.nn.relu(conv(x, p["stem"]))
    joined = jax.nn.relu(conv(stem, p["up"]) + conv(stem, p["side"]))
    both = jnp.concatenate([joined, stem], axis=3)
    return (both.reshape(-1, 16, 8).sum(1) / 16) @ p["out"]


def make():
    rng = np.random.default_rng(5)
    params = {name: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for name, s in SHAPES.items()}
    images = jnp.asarray(rng.normal(size=(IMAGES, 4, 4, 3)), jnp.float32)
    return quantize(trace(forward, params, images[:1]), QFormat(8, scale="tensor"), images), images


def evaluator_of(network, images):
    return Evaluator(network, images, np.zeros(len(images), np.int32), KEY, metric=LOGITS)


def logits(made, kind):
    network, images = made
    faults = FAULTS[kind]
    limits = thresholds(faults, network, MAPPINGS)
    return evaluator_of(network, images).evaluate(faults, limits, TRIALS)


@pytest.fixture(scope="module")
def given():
    return make()


@pytest.fixture(scope="module")
def here(given):
    return logits(given, "bits")


@pytest.mark.in_ci("bits", "image")
@pytest.mark.parametrize("kind", FAULTS)
def test_the_evaluator_and_the_callable_give_the_same_logits(given, here, kind):
    network, images = given
    got, faults = here if kind == "bits" else logits(given, kind), FAULTS[kind]
    run = jax.jit(lambda m, t: network(images, mapping=m, faults=faults, key=KEY, trial=t))
    for row, mapping in enumerate(MAPPINGS):
        for place, trial in enumerate(TRIALS):
            expected = run(jnp.asarray(mapping), jnp.uint32(trial))
            np.testing.assert_array_equal(got[row, place], expected)
    assert not np.array_equal(got[1], got[0]) and not np.array_equal(got[1], got[3])


def test_the_callable_maps_over_mappings_and_differentiates(given, here):
    network, images = given

    def of(mapping):
        return network(images, mapping=mapping, faults=FAULTS["bits"], key=KEY)

    both = jax.jit(jax.vmap(of))(jnp.asarray(MAPPINGS[:2]))
    np.testing.assert_array_equal(both, here[:2, 0])  # trial 0, mapping by mapping
    linked = FaultModel(**FEW, weight_rate=0.0, activation_rate=0.0)
    total = jax.jit(jax.grad(lambda x: network(x, mapping=MAPPINGS[1], faults=linked).sum()))
    gradient = total(images)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.in_ci("4")
@pytest.mark.parametrize("batch", [4, 50])
def test_answers_do_not_depend_on_batches_or_chunks(given, here, monkeypatch, batch):
    """Four images of a call, or more than there are: several nodes then share a call."""
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(least_images=batch, most_images=batch))
    monkeypatch.setattr(engine, "ROWS", 1 if batch == 4 else 64)
    np.testing.assert_array_equal(logits(given, "bits"), here)


def test_an_image_keeps_its_draw_among_fewer(given, here):
    network, images = given
    np.testing.assert_array_equal(logits((network, images[:7]), "bits"), here[:, :, :7])


def test_rows_share_what_comes_before_the_first_crossing(given, ran, monkeypatch):
    """By stage, in two trials: only what is behind a crossing is there twice."""
    network, images = given
    monkeypatch.setattr(compiler, "workers", lambda: 1)  # or each would have one of the trials
    alone = FaultModel(weight_rate=0.0, activation_rate=0.0, link_rate=0.02)

    def nodes(mapping):
        ran.clear()
        limits = thresholds(alone, network, np.array([mapping]))
        evaluator_of(network, images).evaluate(alone, limits, (0, 1))
        ((_, prepared, _),) = ran
        return sum(len(nodes.rows) for nodes in prepared.plan.stages)

    every = len(stages(network.program))
    assert nodes([1, 1, 1, 1]) == every
    assert nodes([0, 0, 0, 1]) == every + 1  # the last layer alone
    assert nodes([0, 1, 1, 1]) == 2 * every - 2  # all but the image and the stem


def test_answers_without_a_crossing_have_the_names_that_they_had(given):
    network, images = given
    faults = FAULTS["bits"]
    memory = [evaluator_of(network, images) for _ in range(2)]
    plain = replace(faults, link_rate=0.0)
    for evaluator, each in zip(memory, (faults, plain), strict=True):
        evaluator.evaluate(each, thresholds(each, network, MAPPINGS[[0, 0]] + 1), TRIALS)
    assert memory[0].memory == memory[1].memory
    limits = [thresholds(each, network, MAPPINGS[1:2]) for each in (faults, plain)]
    for evaluator, each, limit in zip(memory, (faults, plain), limits, strict=True):
        evaluator.evaluate(each, limit, TRIALS)
    assert len({*memory[0].memory, *memory[1].memory}) == 3 * 3


def test_a_layer_struck_alone_meets_no_link(given):
    network, images = given
    labels = np.asarray(network(images)).argmax(1).astype(np.int32)
    plain = FaultModel(bits=(5,), weight_rate=0.1, activation_rate=0.1)
    linked = replace(plain, link_rate=0.5)
    found = [
        sensitivity(Evaluator(network, images, labels, KEY), each, 1, 2) for each in (plain, linked)
    ]
    np.testing.assert_array_equal(found[0].alone, found[1].alone)
    np.testing.assert_array_equal(found[0].all_but, found[1].all_but)


def test_where_devices_share_out_neurons_every_layer_is_sent_once(given):
    """What layers make is struck, a join of what arrived is not."""
    network, images = given
    faults = FaultModel(**FEW, weight_rate=0.0)
    by = [np.zeros(layer.neurons, int) for layer in network.layers]
    got = evaluator_of(network, images).evaluate_placements([by], faults, TRIALS)
    # A mapping that sends the stem to all, then one stage's value to the next: by hand.
    for place, trial in enumerate(TRIALS):
        expected = sent_to_all(network, images, faults, trial)
        np.testing.assert_array_equal(got[0, place], expected)


def sent_to_all(network, images, faults, trial):
    """The interpreter, with a hook that injects faults in what layers read of one another.

    Between layers are a ReLU, a sum with a ReLU, and a concatenation; `stem` is value 1, `up` and
    `side` are 2 and 3. What crosses is the ReLU of the stem, and both addends.
    """
    seed, draws = bits.seed_words(KEY), faults.spec()
    limit = jnp.asarray(faults.link_threshold)
    reads = thresholds(faults, network, np.zeros(4, np.int32)).activations

    def one(image, index):
        def words(number, target):
            return draws.stream(
                seed, trial=jnp.uint32(trial), layer=jnp.uint32(number), target=target, image=index
            )

        def layer(number, value):
            name = network.layers[number].name
            call = network.program.calls[number]

            def inputs(codes):
                stream = words(number, bits.ACTIVATIONS)
                return draws.inject(network.format, codes, stream, jnp.asarray(reads[number]))

            hook = layer_on_codes(network, lambda call: LayerFaults(None, inputs))
            return hook(call, value, network.parameters.layers[name])

        def sent(number, value, word):
            step = network.steps[network.layers[word].name].inputs
            return arrived(draws, network.format, value, words(number, bits.LINK), limit, step)

        stem = sent(1, jax.nn.relu(layer(0, image[None])), 1)
        up, side = sent(2, layer(1, stem), 3), sent(3, layer(2, stem), 3)
        both = jnp.concatenate([jax.nn.relu(up + side), stem], axis=3)
        return layer(3, both.reshape(-1, 16, 8).sum(1) / 16)[0]

    return jax.jit(jax.vmap(one))(images, jnp.arange(len(images), dtype=jnp.uint32))
