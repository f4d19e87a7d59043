"""What is said of the curve of allowances, whichever way it turned out."""

import pytest

from afpjax.jobs.partition.result import AllowancePoint, CurveResult
from afpjax.jobs.partition.trade_off import part, sentence
from afpjax.jobs.shared.result import Estimate

ACCURACY = Estimate(0.5, 0.4, 0.6)


def curve(shares, *, least=None, helps=None):
    """Shares regained by factor, each 0.1 either way."""
    points = [
        AllowancePoint(
            factor, 0.1 * factor, 0.05 * factor, [0, 1], 1.0, 2.0, ACCURACY,
            None if share is None else Estimate(share, share - 0.1, share + 0.1),
        )
        for factor, share in shares.items()
    ]  # fmt: skip
    return CurveResult(ACCURACY, 0.4, 0.8, points, None, least, helps, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            curve({0.5: 0.3, 1.0: 0.71, 1.5: 0.85}, least=1.5, helps=0.5),
            "+10 % latency and +5 % energy regains 71.0 % of what faults take from the "
            "fault-unaware one; 80 % needs +15 % latency and +7.5 % energy.",
        ),
        (
            curve({1.0: 0.02, 4.0: 0.6, 8.0: 0.7}, helps=4.0),
            "No mapping within +10 % latency and +5 % energy helps beyond chance; +40 % latency "
            "and +20 % energy regains 60.0 % of what faults take; 80 % is not regained up to "
            "+80 % latency and +40 % energy.",
        ),
        (
            curve({1.0: 0.0, 8.0: 0.05}),
            "No mapping within +80 % latency and +40 % energy helps beyond chance; 80 % is not "
            "regained up to +80 % latency and +40 % energy.",
        ),
        (
            curve({1.0: None}),
            "Faults take nothing from the fault-unaware mapping that could be regained.",
        ),
        (None, ""),
    ],
)
def test_one_sentence_says_what_more_buys(given, said):
    assert sentence(given).replace("\u00a0", " ") == said


def test_without_a_curve_there_is_no_part():
    assert part(None, 0.9) == [] and part(curve({1.0: None}), 0.9) == []
    (shown,) = part(curve({0.5: 0.3, 1.0: 0.71}), 0.9)
    assert shown.title == "What more latency and energy buys"
