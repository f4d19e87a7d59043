"""The curve of what is regained over what is allowed."""

import pytest

from afpjax.search.curve import between, knee, least, scaled_caps
from afpjax.search.objectives import Caps

FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)


def test_an_allowance_is_so_many_times_the_experiments():
    caps = scaled_caps(Caps(10.0, 4.0), 0.1, 0.05, 2.0)
    assert (caps.latency_ms, caps.energy_mj) == pytest.approx((12.0, 4.4))


@pytest.mark.parametrize(
    ("regained", "found", "following"),
    [
        ((0.1, 0.7, 0.85, 0.9, 1.0), 2.0, 1.5),
        ((0.9, 0.9, 0.9, 0.9, 0.9), 0.5, 0.25),
        ((0.1, 0.2, 0.3, 0.4, 0.8), 8.0, 6.0),
        ((0.0, 0.1, 0.2, 0.3, 0.4), None, None),
    ],
)
def test_the_least_allowance_and_what_is_tried_next(regained, found, following):
    assert least(FACTORS, regained) == found
    assert between(FACTORS, regained) == following


def test_the_knee_is_where_the_curve_bends():
    assert knee(FACTORS, (0.4, 0.8, 0.85, 0.9, 1.0)) == 1.0
    assert knee(FACTORS, [factor / 8 for factor in FACTORS]) is None  # a straight line
    assert knee(FACTORS, (0.0,) * 5) is None
    assert knee((4.0, 1.0, 8.0), (0.95, 0.1, 1.0)) == 4.0  # in any order
