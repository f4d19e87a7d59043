"""Boards: the shipped one loads and is what its comments say, and bad files say how to mend."""

import pytest

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


def test_the_shipped_board_is_found_by_name():
    assert shipped_boards() == ("jetson-xavier-nx",)
    board = load_board("jetson-xavier-nx")
    assert board.name == "jetson-xavier-nx"
    assert board.peak_gmac_s == pytest.approx(384 * 2 * 1.1)  # cores x float16 products x GHz
    assert board.memory_mb == pytest.approx(8 * 1024**3 / 1e6, rel=1e-4)
    assert board.bandwidth_gb_s == pytest.approx(0.23 * 51.2, rel=0.005)


def test_a_board_of_ones_own_is_read_from_its_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(BOARD)
    expected = Board("mine", "a board", 4e3, 20.0, 4.0, 100.0, 5.5, 0.1, 5.0, 0.2, 3.0, 2.0)
    assert load_board(path) == load_board(str(path)) == expected


def test_an_unknown_board_gives_the_nearest_and_all_that_are_shipped():
    with pytest.raises(InputError, match="did you mean `jetson-xavier-nx`\\?; shipped are jetson"):
        load_board("jetson-xavier")
    with pytest.raises(InputError, match=r"board `none\.toml`: there is no such file; shipped are"):
        load_board("none.toml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("base_w = -1", "`base_w` is -1: give more than 0"),
        ("base_mb = -0.5", "`base_mb` is -0.5: give 0 or more"),
        ("launch_us = 3", "unknown key `launch_us`; did you mean `launch_ms`"),
    ],
)
def test_a_board_that_cannot_be_is_refused_with_file_and_key(tmp_path, line, message):
    key = line.partition(" ")[0]
    kept = [old for old in BOARD.splitlines() if old.partition(" ")[0] != key]
    (tmp_path / "mine.toml").write_text("\n".join([*kept, line]))
    with pytest.raises(InputError, match=rf"mine\.toml: {message}"):
        load_board(tmp_path / "mine.toml")
