"""Which devices fail, and what accuracies are made of what is left."""

from itertools import combinations
from math import comb

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import affine, execute
from afpjax.network.quantized import quantize
from afpjax.neurons.distribute import distribute
from afpjax.neurons.failures import every, expected, outcomes, preserved, probable, substitutes


def ten(seed=0, sets=6, draws=1, images=50):
    """Outcomes of which some sets do much harm and others none."""
    rng = np.random.default_rng(seed)
    harm = np.linspace(0, 0.9, sets)[:, None, None]
    return rng.random((sets, draws, images)) > harm


@pytest.mark.parametrize(("devices", "lost"), [(2, 1), (4, 0), (4, 2), (4, 4), (6, 3)])
def test_every_combination_is_there_once_and_equally_likely(devices, lost):
    failures = every(range(devices), lost)
    assert list(failures.sets) == list(combinations(range(devices), lost))
    np.testing.assert_allclose(failures.weights, 1 / comb(devices, lost))
    assert not failures.sampled


def test_too_many_combinations_are_sampled_without_repetition():
    failures = every(range(16), 8, most=100, seed=3)
    assert failures.sampled and len(set(failures.sets)) == 100
    assert all(len(set(each)) == 8 and max(each) < 16 for each in failures.sets)
    assert failures.sets == every(range(16), 8, most=100, seed=3).sets
    assert failures.sets != every(range(16), 8, most=100, seed=4).sets
    counts = np.bincount(np.ravel(every(range(16), 8, most=4000).sets), minlength=16)
    assert abs(counts / 4000 - 0.5).max() < 0.04  # every device in half of the sets


def test_probable_sets_have_the_probability_of_independent_failures():
    failures = probable((0.1, 0.0, 0.5, 1.0))
    assert len(failures.sets) == 4 and failures.weights.sum() == pytest.approx(1)
    found = dict(zip(failures.sets, failures.weights, strict=True))
    assert found[(3,)] == pytest.approx(0.9 * 0.5) and found[(0, 2, 3)] == pytest.approx(0.05)
    assert not failures.sampled


def test_many_unsure_devices_are_sampled_at_their_rates():
    failures = probable([0.2] * 20, most=3000, seed=1)
    assert failures.sampled and len(failures.sets) == 3000
    sizes = np.array([len(each) for each in failures.sets])
    assert abs(sizes.mean() - 4) < 4 * np.sqrt(20 * 0.2 * 0.8 / 3000)


@pytest.mark.parametrize("lost", [-1, 5])
def test_more_losses_than_devices_are_refused(lost):
    with pytest.raises(InputError, match=r"distribute\.lost"):
        every(range(4), lost)


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(InputError, match="probability"):
        probable((0.1, wrong))


def test_the_mean_lies_between_the_worst_and_the_best_set():
    failures, right = every(range(4), 2), ten()
    kept = preserved(failures, right)
    assert kept.worst <= kept.accuracy <= kept.best
    assert kept.accuracy == pytest.approx(right.mean())
    shares = right.mean(axis=(1, 2))
    assert (kept.worst_set, kept.best_set) == tuple(
        failures.sets[place] for place in (shares.argmin(), shares.argmax())
    )
    assert kept.interval[0] < kept.accuracy < kept.interval[1]


def test_the_interval_covers_the_accuracy_over_new_images():
    """Images that differ in how many of the sets they survive."""
    rng, failures, hits = np.random.default_rng(5), every(range(4), 1), 0
    for _ in range(400):
        hardness = rng.beta(0.6, 0.4, size=100)
        right = rng.random((4, 1, 100)) < hardness
        low, high = preserved(failures, right).interval
        hits += low <= 0.6 <= high
    assert stats.binomtest(hits, 400, 0.95, alternative="less").pvalue > 1e-3


def test_expectations_are_those_of_a_direct_sum():
    failures, right = probable((0.1, 0.3, 0.2)), ten(sets=8)
    kept = expected(failures, right)
    shares = right.mean(axis=(1, 2))
    mean = sum(w * a for w, a in zip(failures.weights, shares, strict=True))
    assert kept.accuracy == pytest.approx(mean)
    spread = sum(w * (a - mean) ** 2 for w, a in zip(failures.weights, shares, strict=True))
    assert kept.deviation_run == pytest.approx(spread**0.5)
    assert kept.quantiles["5%"] <= kept.quantiles["50%"] <= kept.quantiles["95%"]


def test_failures_of_their_own_for_every_image_vary_as_a_simulation_does():
    failures, right = probable((0.2, 0.4)), ten(seed=2, sets=4, images=30)
    rng = np.random.default_rng(0)
    drawn = rng.choice(4, size=(20_000, 30), p=failures.weights)
    runs = right[drawn, 0, np.arange(30)].mean(axis=1)
    kept = expected(failures, right)
    assert runs.std() == pytest.approx(kept.deviation_image, rel=0.03)
    assert runs.mean() == pytest.approx(kept.accuracy, abs=4 * runs.std() / 20_000**0.5)
    assert kept.deviation_image < kept.deviation_run  # failures for a whole run vary more


@pytest.fixture(scope="module")
def world(case):
    scores = {
        layer.name: {name: np.random.default_rng(n).random(layer.neurons) for name in ("l1",)}
        for n, layer in enumerate(case.network.layers)
    }

    def place(method, devices=3, **options):
        return distribute(case.network, scores, devices, method=method, names=("l1",), **options)

    network = quantize(case.network, QFormat(kind="float32"))
    return place, Evaluator(network, case.images, case.labels, 0)


def test_outcomes_are_those_of_every_set_alone(world):
    place, evaluator = world
    pairs = [(place("lop"), every(range(3), 1)), (place("robustdice"), every(range(3), 2))]
    found = outcomes(evaluator, pairs)
    for (placement, failures), right in zip(pairs, found, strict=True):
        for failed, each in zip(failures.sets, right, strict=True):
            alone = evaluator.evaluate_placements([placement.answering(failed)])
            np.testing.assert_array_equal(each, alone[0])
    (none,) = outcomes(evaluator, [(place("replication"), every(range(3), 3))])
    assert not none.any(), "no device is left, and one answers"


def test_the_devices_that_are_preferred_answer(world):
    """The unreliable device is asked only where nobody else has the neuron."""
    place, evaluator = world
    faults = FaultModel(bits=(30,), weight_rate=(0.5, 0.0, 0.0), activation_rate=0.0)
    pairs = [(place("replication"), every(range(3), 1))]
    (first,) = outcomes(evaluator, pairs, faults, range(4))
    (last,) = outcomes(evaluator, pairs, faults, range(4), order=(1, 2, 0))
    whole = evaluator.whole()
    assert (last == whole).all()
    assert not (first[1:] == whole).all() and (first[0] == whole).all()


# What stands in for a lost neuron


def by_neuron(call, made):
    """A layer's output [places, neurons]."""
    axes = [axis for axis in range(made.ndim) if axis not in call.output_axes]
    last = jnp.transpose(made, [*axes, *call.output_axes])
    return np.asarray(last).reshape(-1, call.layer.neurons)


def outputs(network, images):
    """Every layer's output of all images, as the interpreter's hook sees it."""
    seen = {layer.name: [] for layer in network.layers}

    def hook(call, value, parameters):
        made = affine(call, value, parameters)
        seen[call.layer.name].append(by_neuron(call, made))
        return made

    for image in images:
        execute(network.program, network.parameters, image, hook)
    return [np.concatenate(each) for each in seen.values()]


@pytest.mark.parametrize("kind", ["zero", "mean", "bias"])
def test_what_stands_in_is_worked_out_from_the_layer_itself(case, kind):
    """Nothing; the mean over images and positions; or what inputs of zero give."""
    network = case.network
    found = substitutes(network, kind, case.images if kind == "mean" else None)
    means = [made.mean(axis=0) for made in outputs(network, jnp.asarray(case.images))]
    for call, mean, each in zip(network.program.calls, means, found, strict=True):
        if kind == "mean":
            expected = mean
        elif kind == "zero":
            expected = np.zeros(call.layer.neurons)
        else:
            nothing = jnp.zeros(call.layer.input_shape, jnp.float32)
            made = affine(call, nothing, network.parameters.layers[call.layer.name])
            expected = by_neuron(call, made)[0]
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-5)
        assert kind != "zero" or not each.any()


@pytest.mark.parametrize(
    ("kind", "images", "said"), [("median", None, "none of"), ("mean", None, "calibration images")]
)
def test_what_cannot_be_is_refused(case, kind, images, said):
    with pytest.raises(InputError, match=said):
        substitutes(case.network, kind, images)
