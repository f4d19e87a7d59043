"""Which mapping of a front is taken: the rules, their ties and their edges."""

import numpy as np
import pytest

from afpjax.search.baselines import least_energy_delay, most_robust_within


def column(*values):
    return np.array(values, np.float32)


def test_the_least_product_of_latency_and_energy_wins():
    assert least_energy_delay(column(2, 3, 1), column(3, 1, 4)) == 1


def test_the_first_of_equal_products_wins():
    assert least_energy_delay(column(5, 2, 3, 1), column(5, 3, 2, 6)) == 1


def test_products_do_not_overflow_float32():
    assert least_energy_delay(column(3e30, 2e30), column(1e30, 1e30)) == 1


def most_robust(latency, energy, drop, latency_cap=1.0, energy_cap=1.0):
    return most_robust_within(
        column(*latency), column(*energy), column(*drop),
        latency_cap=latency_cap, energy_cap=energy_cap,
    )  # fmt: skip


def test_the_least_drop_within_both_caps_wins():
    # The two with less drop are too slow, and cost too much energy.
    assert most_robust([0.5, 0.9, 1.2, 0.1], [0.5, 0.8, 0.1, 1.2], [0.4, 0.2, 0.1, 0.0]) == 1


def test_of_equal_drops_the_least_product_wins():
    assert most_robust([0.9, 0.5, 0.7], [0.5, 0.6, 0.9], [0.2, 0.2, 0.2]) == 1


def test_of_equal_drops_and_products_the_first_wins():
    assert most_robust([0.9, 0.2, 0.3], [0.9, 0.3, 0.2], [0.3, 0.2, 0.2]) == 1


def test_where_none_is_within_the_one_that_exceeds_least_wins():
    """Excess is the larger of the two ratios: 1.5, 1.3 and 1.4; drops and products do not count."""
    assert most_robust([1.5, 1.2, 1.4], [0.1, 1.3, 0.1], [0.0, 0.9, 0.0]) == 1


def test_equal_excesses_are_settled_by_the_drop():
    assert most_robust([1.5, 1.5, 1.5], [0.1, 0.2, 0.3], [0.3, 0.1, 0.2]) == 1


@pytest.mark.parametrize("ulps", [1, 4])
def test_what_is_above_a_cap_by_rounding_is_within(ulps):
    """A cap of + 10 % of a float32 sum, and a sum that is this, but for its last digits."""
    base = np.float32(2.7)
    edge = np.float32(float(base) * 1.1)
    for _ in range(ulps):
        edge = np.nextafter(edge, np.float32(9))
    cap = float(base) * 1.1
    assert float(edge) > cap
    assert most_robust([base, edge], [0.5, 0.5], [0.4, 0.1], latency_cap=cap) == 1
    assert most_robust([0.5, 0.5], [base, edge], [0.4, 0.1], energy_cap=cap) == 1


def test_what_is_above_a_cap_by_a_thousandth_is_not_within():
    assert most_robust([1.0, 1.001], [0.5, 0.5], [0.4, 0.1]) == 0


def test_the_rule_agrees_with_a_loop_over_random_fronts():
    rng = np.random.default_rng(4)
    for _ in range(200):
        latency, energy, drop = np.round(rng.random((3, 7)) * 4 + 1).astype(np.float32) / 4
        got = most_robust(latency, energy, drop)

        def worth(place, latency=latency, energy=energy, drop=drop):
            excess = max(latency[place], energy[place], 1.0) - 1
            return excess, drop[place], latency[place] * energy[place], place

        assert got == min(range(7), key=worth)
