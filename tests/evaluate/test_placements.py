"""Neurons that devices share out: who is lost gives its substitute, who answers is struck there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults import bits
from afpjax.faults.model import FaultModel, thresholds
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import execute
from afpjax.network.quantized import LayerFaults, layer_on_codes

SIZES = (8, 8, 4)
FORMATS = pytest.mark.parametrize(
    "fmt", [QFormat(), QFormat(kind="float32")], ids=["fixed", "float32"]
)


def logits_of(network, images, **options):
    labels = np.zeros(len(images), np.int32)
    return Evaluator(network, images, labels, 7, metric=LOGITS, **options)


def at_random(network, devices, seed, lost=0.3):
    rng = np.random.default_rng(seed)
    return tuple(
        np.where(rng.random(layer.neurons) < lost, -1, rng.integers(devices, size=layer.neurons))
        for layer in network.layers
    )


def without(network, images, by, substitutes=None):
    """The interpreter with a hook that writes substitutes over the neurons that are lost."""
    names = [layer.name for layer in network.layers]

    def hook(call, value, parameters):
        made = layer_on_codes(network, lambda call: LayerFaults())(call, value, parameters)
        number = names.index(call.layer.name)
        gone = call.per_output(jnp.asarray(by[number] < 0))
        other = np.zeros(len(by[number])) if substitutes is None else substitutes[number]
        return jnp.where(gone, call.per_output(jnp.asarray(other, jnp.float32)), made)

    program, parameters = network.program, network.parameters
    return jax.vmap(lambda image: execute(program, parameters, image, hook))(images)


@FORMATS
def test_nothing_lost_is_the_network_itself_bit_for_bit(network_of, images, fmt):
    network = network_of(fmt)
    evaluator = logits_of(network, images)
    whole = [at_random(network, 4, seed, lost=0) for seed in range(2)]
    got = evaluator.evaluate_placements(whole)
    np.testing.assert_array_equal(got[:, 0], np.stack([network(images)] * 2))
    assert evaluator.evaluations == 1  # who answers makes no difference without bit-flips


@FORMATS
@pytest.mark.parametrize("mean", [False, True], ids=["zero", "substitute"])
def test_lost_neurons_give_their_substitute_before_the_activation(network_of, images, fmt, mean):
    network, rng = network_of(fmt), np.random.default_rng(2)
    given = [rng.normal(size=layer.neurons) for layer in network.layers] if mean else None
    by = [at_random(network, 3, seed) for seed in range(4)]
    got = logits_of(network, images, substitutes=given).evaluate_placements(by)
    for each, made in zip(by, got[:, 0], strict=True):
        expected = without(network, images, each, given)
        np.testing.assert_allclose(made, expected, atol=1e-5 * np.abs(expected).max())
        assert not np.allclose(made, network(images), atol=1e-3)


def test_one_device_that_holds_all_is_struck_like_the_undistributed_network(quantized, images):
    faults = FaultModel(weight_rate=0.3, activation_rate=0.2)
    evaluator = logits_of(quantized, images)
    limits = thresholds(faults, quantized, np.zeros((1, 3), int))
    whole = [tuple(np.zeros(size, int) for size in SIZES)]
    np.testing.assert_array_equal(
        evaluator.evaluate_placements(whole, faults, range(3)),
        evaluator.evaluate(faults, limits, range(3)),
    )


def expected_logits(network, images, by, faults, trial, seed=7):
    """Device by device: a layer on its own struck copies, of which it answers for some neurons."""
    draws, words = faults.spec(), bits.seed_words(seed)
    rates = [jnp.asarray(bits.threshold(faults.rates(t))) for t in ("weight", "activation")]
    names = [layer.name for layer in network.layers]

    def one(image, index):
        def hook(call, value, parameters):
            number = names.index(call.layer.name)
            output = jnp.zeros(())
            for device in range(len(rates[0])):
                where = dict(trial=jnp.uint32(trial), layer=jnp.uint32(number))
                kernel = draws.stream(words, **where, target=bits.WEIGHTS, image=index)
                read = draws.stream(words, **where, target=bits.ACTIVATIONS, image=index)
                read = bits.copy_stream(read, device)
                own = LayerFaults(
                    lambda c, s=kernel, d=device: draws.inject(network.format, c, s, rates[0][d]),
                    lambda c, s=read, d=device: draws.inject(network.format, c, s, rates[1][d]),
                )
                hook = layer_on_codes(network, lambda call, own=own: own)
                made = hook(call, value, parameters)
                mine = call.per_output(jnp.asarray(by[number] == device).reshape(call.channels))
                output = output + jnp.where(mine, made, 0)
            return output

        return execute(network.program, network.parameters, image, hook)

    return jax.jit(jax.vmap(one))(images, jnp.arange(len(images), dtype=jnp.uint32))


@pytest.mark.in_ci("both")
@pytest.mark.parametrize(
    "rates",
    [dict(weight_rate=(0.3, 0.05), activation_rate=0.0),
     dict(weight_rate=(0.1, 0.4), activation_rate=(0.3, 0.02))],
    ids=["weights", "both"],
)  # fmt: skip
def test_every_neuron_is_struck_where_it_is_computed(quantized, images, rates):
    few = images[:6]
    rates = {name: np.broadcast_to(each, 2).tolist() for name, each in rates.items()}
    faults = FaultModel(bits=(0, 5, 9), **rates)
    by = at_random(quantized, 2, 4, lost=0.2)
    got = logits_of(quantized, few).evaluate_placements([by], faults, [0, 3])
    for trial, made in zip((0, 3), got[0], strict=True):
        expected = expected_logits(quantized, few, by, faults, trial)
        np.testing.assert_array_equal(made, expected)


def test_copies_of_the_inputs_are_struck_independently(quantized, images):
    """The same rate on both devices, yet another answer than with one device."""
    faults = FaultModel(weight_rate=0.0, activation_rate=(0.3, 0.3), bits=(8, 9))
    alone = tuple(np.zeros(size, int) for size in SIZES)
    shared = tuple(np.arange(size) % 2 for size in SIZES)
    got = logits_of(quantized, images).evaluate_placements([alone, shared], faults)
    assert not np.array_equal(got[0], got[1])


def test_answers_do_not_depend_on_what_is_asked_with_them(quantized, images):
    faults = FaultModel(weight_rate=(0.2, 0.1, 0.0), activation_rate=(0.1, 0.2, 0.3))
    by = [at_random(quantized, 3, seed) for seed in range(3)]
    together = logits_of(quantized, images).evaluate_placements(by, faults, range(2))
    for place, each in enumerate(by):
        alone = logits_of(quantized, images[:7]).evaluate_placements([each], faults, [1])
        np.testing.assert_array_equal(together[place, 1, :7], alone[0, 0])


def test_what_is_known_is_not_run_again(quantized, images, labels):
    by = [at_random(quantized, 2, seed) for seed in range(3)]
    memory = {}
    first = Evaluator(quantized, images, labels, 0, memory=memory)
    answers = first.evaluate_placements(by)
    again = Evaluator(quantized, images, labels, 0, memory=memory)
    np.testing.assert_array_equal(again.evaluate_placements([*by, by[1]]), answers[[0, 1, 2, 1]])
    assert (first.evaluations, again.evaluations) == (3, 0)


@pytest.mark.parametrize(
    ("faults", "sizes", "said"),
    [
        (FaultModel(budget=3), SIZES, "faults.budget"),
        (FaultModel(kind="lost"), SIZES, "faults.kind"),
        (FaultModel(bits=(16,)), SIZES, "faults.bits"),
        (FaultModel(weight_rate=(0.1, 0.2)), SIZES, "faults.weight_rate"),
        (None, (8, 8), "placement"),
        (None, (8, 8, 5), "placement"),
    ],
)
def test_faults_and_placements_that_do_not_go_with_it_are_refused(
    quantized, images, labels, faults, sizes, said
):
    by = [tuple(np.arange(size) % 3 for size in sizes)]
    with pytest.raises(InputError, match=said):
        Evaluator(quantized, images, labels, 0).evaluate_placements(by, *[faults] * bool(faults))
