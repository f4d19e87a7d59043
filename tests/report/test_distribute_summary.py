"""What job `distribute` prints."""

import io

import pytest
from rich.console import Console

from afpjax.jobs.distribute.summary import summary

from .distributions import distribution, near


def printed(result, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(summary(result))
    return out.getvalue()


def test_a_row_for_each_method_and_number_of_devices():
    lines = printed(distribution()).splitlines()
    assert lines[0].split() == [
        "devices",
        "method",
        "memory",
        "1",
        "lost",
        "2",
        "lost",
        "3",
        "lost",
    ]
    assert lines[1].split()[:4] == ["4", "RobustDiCE", "59", "%"]
    assert lines[1].split()[4:7] == ["82.3", "[80,", "84]"]
    assert sum(line.startswith(("4 ", "3 ", "2 ")) for line in lines) == 7 + 7 + 5


@pytest.mark.parametrize("accuracy", [0.05, 0.823, 0.995, 1.0])
def test_nothing_is_cut_at_80_columns(accuracy):
    result = distribution((4, 3))
    for row in result["methods"]:
        row |= {"accuracy": accuracy, "accuracy_interval": near(accuracy, 0.004)}
    lines = printed(result).splitlines()
    assert not any("…" in line or len(line.rstrip()) > 80 for line in lines)
    if accuracy < 1:
        assert sum(f"{100 * accuracy:.1f} [" in line for line in lines) == 14  # on one line each


def test_losses_beyond_the_third_are_said_to_be_in_the_table():
    assert "More than 3 lost (up to 7): methods.csv" in printed(distribution((8,)))
    assert "More than" not in printed(distribution())


def test_notes_say_what_is_counted_and_what_the_search_gained():
    said = " ".join(printed(distribution()).split())
    assert "Per cent of 384 images right" in said
    assert "91.5 with none lost" in said
    assert "at best +14.0 points [11.0, 17.0] against a constant one" in said
    assert "9,312 images x sets of lost devices a second" in said
    assert "Searched" not in printed(distribution(optional=False))


def test_an_unknown_method_has_its_own_name():
    result = distribution((2,))
    result["methods"][0]["method"] = "[new]"
    assert "[new]" in printed(result)
