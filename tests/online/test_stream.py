"""Canaries and the truth, beside forward runs of the quantised network image by image."""

import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.inputs.errors import InputError
from afpjax.online.environment import nominal_state
from afpjax.online.rate_estimation import RATE_GRID
from afpjax.online.stream import Stream, rate_proportions

BUILT = nominal_state((0.02, 0.2, 0.0), (0.05, 0.3, 0.0))
LOST = BUILT._replace(present=(True, False, True))
MIXED, SAFE = (0, 1, 2, 0, 1), (2,) * 5
DRAWS, HELD_KEY = 8, 3


@pytest.fixture(scope="module")
def stream(evaluator, held, faults):
    return Stream(evaluator, held, faults, DRAWS, 3)


def test_canaries_are_the_images_that_are_right_without_faults(stream, quantized, images, labels):
    right = np.asarray(quantized(images)).argmax(1) == labels
    assert 0 < right.sum() < len(labels)
    np.testing.assert_array_equal(stream.pool, np.flatnonzero(right))
    assert stream.clean_accuracy == pytest.approx(right.mean())


def test_the_truth_is_that_of_other_draws(stream, directly, faults):
    state = BUILT._replace(weight_rate=(0.3, 0.1, 0.0))
    right = directly(state.faults(faults), MIXED, range(3), HELD_KEY)
    assert stream.accuracy(MIXED, state) == pytest.approx(right.mean())
    assert stream.accuracy(SAFE, state) == pytest.approx(stream.clean_accuracy)


def test_a_lost_device_answers_nothing(stream):
    assert not LOST.runs(MIXED) and LOST.runs(SAFE)
    assert stream.accuracy(MIXED, LOST) == 0.0
    assert stream.failing_share(MIXED, LOST, 8, 0, 0) == 1.0
    assert stream.failing_share(SAFE, LOST, 8, 0, 0) == 0.0


def test_a_step_is_a_function_of_seed_and_step(stream):
    def steps(seed):
        return [stream.failing_share(MIXED, BUILT, 8, seed, step) for step in range(40)]

    first = steps(1)
    assert steps(1) == first and steps(2) != first
    assert len(set(first)) > 2 and all(share * 8 == round(share * 8) for share in first)


def test_canaries_fail_as_often_as_images_do(stream, directly, faults):
    """The mean over 500 steps is that over all draws and canaries, within five deviations."""
    trials = range(2**16, 2**16 + DRAWS)
    right = directly(BUILT.faults(faults), MIXED, trials)
    failed = 1 - right[:, stream.pool].mean()
    shares = [stream.failing_share(MIXED, BUILT, 8, 5, step) for step in range(500)]
    assert 0.05 < failed < 0.95
    assert np.mean(shares) == pytest.approx(failed, abs=5 * np.std(shares) / 500**0.5)
    assert stream.expected_failing_share(MIXED, BUILT) == pytest.approx(failed)
    assert stream.expected_failing_share(MIXED, LOST) == 1.0
    assert stream.expected_failing_share(SAFE, LOST) == 0.0


def test_probes_count_what_fails_on_one_device(stream, directly, faults):
    none = stream.probe(2, BUILT, 10, 50, 0, 3)
    assert none.shape == (50,) and not none.any()
    counts = stream.probe(1, BUILT, 10, 400, 0, 3)
    trials = range(2**17, 2**17 + DRAWS)
    right = directly(BUILT.faults(faults), (1,) * 5, trials)
    wanted = 1 - right[:, stream.pool].mean()
    deviation = counts.std() / 400**0.5 / 10
    assert counts.mean() / 10 == pytest.approx(wanted, abs=5 * deviation)
    assert stream.probe(1, BUILT, 10, 3, 1, 3).tolist() != counts[:3].tolist()
    assert stream.probe(1, BUILT, 10, 3, 0, 3).shape == (3,)


def test_a_curve_is_that_of_forward_runs(stream, directly, faults):
    """Weights at half the activations' rate, with a rate beside the grid."""
    made = stream.failure_curve(0.5, 1.0, [0.4])
    assert made.rates.tolist() == sorted({*RATE_GRID, 0.4})
    trials = range(2**18, 2**18 + DRAWS // 2)
    for rate in (0.0, 0.1, 0.4):
        struck = nominal_state((rate / 2,) * 3, (rate,) * 3).faults(faults)
        right = directly(struck, (0,) * 5, trials)[:, stream.pool]
        index = made.rates.tolist().index(rate)
        mean = made.alpha[index] / (made.alpha[index] + made.beta[index])
        assert mean == pytest.approx(((~right).sum() + 0.5) / (right.size + 1))


def test_shares_of_the_larger_rate():
    assert rate_proportions(0.1, 0.2) == (0.5, 1.0) and rate_proportions(0.2, 0.0) == (1.0, 0.0)
    assert rate_proportions(0.0, 0.0) == (1.0, 1.0)


def test_without_a_right_image_there_are_no_canaries(quantized, images, labels, faults):
    wrong = ((np.asarray(quantized(images)).argmax(1) + 1) % 4).astype(np.int32)
    evaluator = Evaluator(quantized, images, wrong, 7)
    with pytest.raises(InputError, match="there are no canaries"):
        Stream(evaluator, evaluator, faults, 4, 2)
