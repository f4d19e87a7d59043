"""Boards: the shipped one loads and is what its comments say, and bad files say how to mend."""

from collections.abc import Callable
from pathlib import Path

import pytest

from afpjax.hardware import load_link
from afpjax.hardware.board import Board, load_board, shipped_boards
from afpjax.inputs.errors import InputError

BOARD = """
name = "mine"
description = "a board"
memory_mb = 4000
base_mb = 20
unfolded_bytes = 4
peak_gmac_s = 100
bandwidth_gb_s = 5.5
launch_ms = 0.1
image_ms = 5
message_ms = 0.2
base_w = 3
compute_w = 2
"""
RATES = ("memory_mb", "peak_gmac_s", "bandwidth_gb_s", "base_w")
COSTS = ("base_mb", "unfolded_bytes", "launch_ms", "image_ms", "message_ms", "compute_w")

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes BOARD, with one line put for the one of the same key, and gives its path."""

    def written(line: str = "") -> str:
        key = line.partition(" ")[0]
        kept = [each for each in BOARD.splitlines() if not key or each.split(" ")[0] != key]
        path = tmp_path / "mine.toml"
        path.write_text("\n".join([*kept, line]))
        return str(path)

    return written


def test_the_shipped_board_is_found_by_name():
    assert shipped_boards() == ("jetson-xavier-nx",)
    board = load_board("jetson-xavier-nx")
    assert board.name == "jetson-xavier-nx"
    assert board.peak_gmac_s == pytest.approx(384 * 2 * 1.1)  # cores x float16 products x GHz
    assert board.memory_mb == pytest.approx(8 * 1024**3 / 1e6, rel=1e-4)
    assert board.bandwidth_gb_s == pytest.approx(0.23 * 51.2, rel=0.005)


def test_a_board_of_ones_own_is_read_from_its_file(write):
    path = write()
    expected = Board("mine", "a board", 4e3, 20.0, 4.0, 100.0, 5.5, 0.1, 5.0, 0.2, 3.0, 2.0)
    assert load_board(path) == load_board(Path(path)) == expected


def test_an_unknown_board_gives_the_nearest_and_all_that_are_shipped():
    with pytest.raises(InputError, match="did you mean `jetson-xavier-nx`\\?; shipped are jetson"):
        load_board("jetson-xavier")
    with pytest.raises(InputError, match="unknown board `pi`; shipped are jetson-xavier-nx; any"):
        load_board("pi")
    with pytest.raises(InputError, match=r"board `none\.toml`: there is no such file; shipped are"):
        load_board("none.toml")


@pytest.mark.parametrize("key", (*RATES, *COSTS))
@pytest.mark.parametrize("value", ["-1", "-0.5", "nan"])
def test_negative_figures_are_refused_with_file_and_key(write, key, value):
    with pytest.raises(InputError, match=rf"mine\.toml: `{key}` is .*: give "):
        load_board(write(f"{key} = {value}"))


@pytest.mark.parametrize("key", RATES)
def test_a_rate_of_nothing_is_refused(write, key):
    with pytest.raises(InputError, match=f"`{key}` is 0.0: give more than zero"):
        load_board(write(f"{key} = 0"))


@pytest.mark.parametrize("key", COSTS)
def test_a_cost_of_nothing_is_a_board_that_does_without(write, key):
    assert getattr(load_board(write(f"{key} = 0")), key) == 0.0


@pytest.mark.parametrize("key", ("memory_mb", "base_w", *COSTS))
def test_what_no_board_has_without_end_is_refused(write, key):
    with pytest.raises(InputError, match=f"`{key}` is inf: give a finite number"):
        load_board(write(f"{key} = inf"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('name = ""', "`name` is empty"),
        ("launch_us = 3", "unknown key `launch_us`, did you mean `launch_ms`"),
        ('base_w = "3"', "`base_w` is '3': give a number"),
        ("base_w = ", "not valid TOML"),
    ],
)
def test_a_file_that_does_not_hold_is_refused(write, line, message):
    with pytest.raises(InputError, match=message) as caught:
        load_board(write(line))
    assert "\n" not in str(caught.value)


def test_a_missing_figure_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(BOARD.replace("compute_w = 2\n", ""))
    with pytest.raises(InputError, match="key `compute_w` is missing"):
        load_board(path)


@pytest.mark.parametrize(("name", "rate"), [("wifi-n", 150.0), ("wifi-ac", 433.3)])
def test_wifi_carries_a_third_of_its_rate_and_radios_work_half_of_the_time(name, rate):
    link = load_link(name)
    assert link.bandwidth_gbit_s == pytest.approx(rate * 2 / 3 / 2 / 1e3, rel=5e-3)
    sent_s = 8 * (1500 + 38) / (link.bandwidth_gbit_s * 1e9)
    assert link.transfer_ms(1500) == pytest.approx(1.0 + 1e3 * sent_s)
    assert link.transfer_mj(1500) == pytest.approx(1e3 * (1.14 + 0.94) / 2 * sent_s)
