"""Numbers and names, against what a person would write."""

import pytest

from afpjax.report import wording


@pytest.mark.parametrize(
    ("fraction", "said"),
    [(0.931, "93.1 %"), (0.0, "0.0 %"), (1, "100.0 %"), (0.99949, "99.9 %"), (0.9996, "100.0 %")],
)
def test_percent(fraction, said):
    assert wording.percent(fraction) == said.replace(" ", "\u00a0")


def test_interval_of_fractions_is_in_percent():
    assert wording.interval([0.92, 0.945]) == "[92.0,\u00a094.5]"
    assert wording.interval([0, 1]) == "[0.0,\u00a0100.0]"


@pytest.mark.parametrize(
    ("fraction", "said"), [(0.031, "3.1"), (-0.031, "−3.1"), (0.0, "0.0"), (-1e-9, "0.0")]
)
def test_points(fraction, said):
    assert wording.points(fraction) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.12257931, "0.123"),
        (1, "1.00"),
        (26.76, "26.8"),
        (9.996, "10.0"),
        (1234.5, "1,234"),
        (-0.5, "−0.500"),
        (0.0012, "0.00120"),
        (0.00012, "1.20×10⁻⁴"),
        (0.000012, "1.20×10⁻⁵"),
        (12_345_678_901, "1.23×10¹⁰"),
    ],
)
def test_number(value, said):
    assert wording.number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.2, "0.2"),
        (0.02, "0.02"),
        (1, "1"),
        (0.125, "0.125"),
        (1e-6, "10⁻⁶"),
        (2.5e-6, "2.5×10⁻⁶"),
        (100, "100"),
    ],
)
def test_rate_is_said_as_it_was_set(value, said):
    assert wording.rate(value) == said


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [(1.04, 1.0, "+4 %"), (0.9, 1.0, "−10 %"), (1.001, 1.0, "0 %"), (2, 1, "+100 %"), (1, 0, "")],
)
def test_change(new, old, said):
    assert wording.change(new, old) == said.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (1.04, 1.0, "4 % more latency"),
        (0.9, 1.0, "10 % less latency"),
        (1.004, 1.0, "0.4 % more latency"),
        (1.0001, 1.0, "about the same latency"),
        (1.0, 1.0, "the same latency"),
        (0, 0, "the same latency"),
        (0.5, 0.0, "more latency"),
        (0, 1, "100 % less latency"),
    ],
)
def test_change_in_words(new, old, said):
    assert wording.change_words(new, old, "latency").replace("\u00a0", " ") == said


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
    ("value", "said"),
    [
        (0, "0"),
        (999, "999"),
        (0.25, "0.250"),
        (1000, "1.00 k"),
        (12_345_678, "12.3 M"),
        (999_999, "1.00 M"),
        (2e9, "2.00 G"),
        (3.21e12, "3.21 T"),
    ],
)
def test_scaled(value, said):
    assert wording.scaled(value) == said.replace(" ", "\u00a0")


def test_size():
    assert wording.size(512) == "512\u00a0B"
    assert wording.size(12_345) == "12.3\u00a0kB"


def test_join():
    assert wording.join(["a"]) == "a"
    assert wording.join(["a", "b"]) == "a and b"
    assert wording.join(["a", "b", "c"]) == "a, b and c"


def test_short_cuts_the_middle():
    assert wording.short("conv1", 8) == "conv1"
    assert wording.short("abcdefghijkl", 8) == "ab…hijkl"


def test_short_names_drop_what_all_share():
    assert wording.short_names(["net.block1.conv", "net.block2.conv"]) == [
        "block1.conv",
        "block2.conv",
    ]
    assert wording.short_names(["features/0", "features/10"]) == ["0", "10"]
    assert wording.short_names(["conv1", "conv2"]) == ["conv1", "conv2"]
    assert wording.short_names(["only.one"]) == ["only.one"]
    assert wording.short_names([]) == []


def test_names_that_differ_where_they_were_cut_stay_apart():
    names = [f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)] + ["conv1"]
    cut = wording.short_names(names, 16)
    assert len(set(cut)) == 4
    assert all(len(name) <= 16 for name in cut)


@pytest.mark.parametrize("count", [50, 120])
def test_names_of_deep_networks_stay_apart(count):
    names = [f"backbone.stage{i // 10}.block{i % 10}.depthwise.conv" for i in range(count)]
    assert len(set(wording.short_names(names, 19))) == count


def test_whole_numbers_from_json_are_numbers_too():
    """JSON has 0 and 1 where Python wrote 0.0 and 1.0; functions for floats refused them."""
    assert wording.scaled(5) == "5"
    assert wording.percent(1) == "100.0\u00a0%"
    assert wording.points(0) == "0.0"
    assert wording.change(3, 2) == "+50\u00a0%"
    assert wording.number(7) == "7.00"
