"""Numbers and names, against what a person would write."""

import pytest

from afpjax.report import wording
from afpjax.report.wording import change, change_words, number, percent, points, rate, scaled, size

#: A function, what it is given, and what it says; spaces stand for narrow ones that do not break.
SAID = [
    (percent, (0.931,), "93.1 %"),
    (percent, (0.0,), "0.0 %"),
    (percent, (1,), "100.0 %"),  # JSON has 1 where Python wrote 1.0
    (percent, (0.99949,), "99.9 %"),
    (percent, (0.9996,), "100.0 %"),
    (wording.interval, ([0.92, 0.945],), "[92.0, 94.5]"),
    (wording.interval, ([0, 1],), "[0.0, 100.0]"),
    (points, (0.031,), "3.1"),
    (points, (-0.031,), "−3.1"),
    (points, (0,), "0.0"),
    (points, (-1e-9,), "0.0"),
    (number, (0,), "0"),
    (number, (0.12257931,), "0.123"),
    (number, (7,), "7.00"),
    (number, (26.76,), "26.8"),
    (number, (9.996,), "10.0"),
    (number, (1234.5,), "1,234"),
    (number, (-0.5,), "−0.500"),
    (number, (0.0012,), "0.00120"),
    (number, (0.00012,), "1.20×10⁻⁴"),
    (number, (12_345_678_901,), "1.23×10¹⁰"),
    (rate, (0,), "0"),  # as it was set
    (rate, (0.02,), "0.02"),
    (rate, (1,), "1"),
    (rate, (0.125,), "0.125"),
    (rate, (1e-6,), "10⁻⁶"),
    (rate, (2.5e-6,), "2.5×10⁻⁶"),
    (rate, (100,), "100"),
    (change, (1.04, 1.0), "+4 %"),
    (change, (0.9, 1.0), "−10 %"),
    (change, (1.001, 1.0), "0 %"),
    (change, (3, 2), "+50 %"),
    (change, (1, 0), ""),
    (change_words, (1.04, 1.0, "latency"), "4 % more latency"),
    (change_words, (0.9, 1.0, "latency"), "10 % less latency"),
    (change_words, (1.004, 1.0, "latency"), "0.4 % more latency"),
    (change_words, (1.0001, 1.0, "latency"), "about the same latency"),
    (change_words, (1.0, 1.0, "latency"), "the same latency"),
    (change_words, (0, 0, "latency"), "the same latency"),
    (change_words, (0.5, 0.0, "latency"), "more latency"),
    (change_words, (0, 1, "latency"), "100 % less latency"),
    (scaled, (0,), "0"),
    (scaled, (5,), "5"),
    (scaled, (999,), "999"),
    (scaled, (0.25,), "0.250"),
    (scaled, (1000,), "1.00 k"),
    (scaled, (12_345_678,), "12.3 M"),
    (scaled, (999_999,), "1.00 M"),
    (scaled, (2e9,), "2.00 G"),
    (scaled, (3.21e12,), "3.21 T"),
    (size, (512,), "512 B"),
    (size, (12_345,), "12.3 kB"),
    (wording.join, (["a"],), "a"),
    (wording.join, (["a", "b"],), "a and b"),
    (wording.join, (["a", "b", "c"],), "a, b and c"),
    (wording.short, ("conv1", 8), "conv1"),
    (wording.short, ("abcdefghijkl", 8), "ab…hijkl"),
]


@pytest.mark.parametrize(("function", "given", "said"), SAID)
def test_what_is_said(function, given, said):
    assert function(*given).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ([2.0, 3.0], "the same latency and energy"),
        ([2.2, 3.0], "10 % more latency and the same energy"),
        ([1.8, 3.3], "10 % less latency and 10 % more energy"),
    ],
)
def test_costs_in_words(new, said):
    words = wording.costs_words(new, [2.0, 3.0], ("latency", "energy"))
    assert words.replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["net.block1.conv", "net.block2.conv"], ["block1.conv", "block2.conv"]),
        (["features/0", "features/10"], ["0", "10"]),
        (["conv1", "conv2"], ["conv1", "conv2"]),
        (["only.one"], ["only.one"]),
        ([], []),
    ],
)
def test_short_names_drop_what_all_share(names, short):
    assert wording.short_names(names) == short


@pytest.mark.parametrize(
    ("names", "letters"),
    [
        ([f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)] + ["conv1"], 16),
        ([f"backbone.stage{i // 10}.block{i % 10}.depthwise.conv" for i in range(120)], 19),
    ],
)
def test_names_that_differ_where_they_were_cut_stay_apart(names, letters):
    cut = wording.short_names(names, letters)
    assert len(set(cut)) == len(names)
    assert all(len(name) <= letters for name in cut)
