"""What counts as agreement."""

import numpy as np
import pytest

from benchmarks.agreement import Disagrees, check_equal, check_logits, check_rate

LOGITS = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)


def test_close_logits_agree_and_distant_ones_do_not():
    span = float(np.ptp(LOGITS))
    check_logits(LOGITS, LOGITS + np.float32(0.5e-4 * span))
    with pytest.raises(Disagrees, match="of their range"):
        check_logits(LOGITS, LOGITS + np.float32(2e-4 * span))


def test_exact_means_every_bit():
    check_equal("x", np.array([True, False]), np.array([True, False]))
    with pytest.raises(Disagrees, match=r"x: 50\.0%"):
        check_equal("x", np.array([True, False]), np.array([True, True]))
    nearly = np.nextafter(LOGITS, np.float32(9))
    check_logits(LOGITS, nearly)
    with pytest.raises(Disagrees, match="should be equal"):
        check_logits(LOGITS, nearly, exact=True)


def test_another_class_is_no_agreement_however_close():
    ours = np.array([[1.0, 1.00001, -5.0]], np.float32)
    with pytest.raises(Disagrees, match="1 of 1 images"):
        check_logits(ours, ours[:, [1, 0, 2]])


@pytest.mark.parametrize("bad", [LOGITS[:5], LOGITS * np.nan])
def test_other_shapes_and_nan_do_not_agree(bad):
    with pytest.raises(Disagrees):
        check_logits(LOGITS, bad)


def test_rates_within_and_outside_of_the_binomial_band():
    sites, rate = 1_000_000, 0.2
    deviation = (sites * rate * (1 - rate)) ** 0.5
    check_rate(round(sites * rate + 4.9 * deviation), sites, rate)
    for off in (-5.1, 5.1):
        with pytest.raises(Disagrees, match="standard deviations"):
            check_rate(round(sites * rate + off * deviation), sites, rate)
