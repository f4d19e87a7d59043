"""Bars for slow tasks, silence where nobody watches; streams that are closed or full."""

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from afpjax.command.terminal import PATIENCE, Bars, on_stderr
from afpjax.config.work import SILENT, counted

from ..jobs.conftest import Counted


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def bars():
    """Bars on a terminal of 80 columns, whose time is the clock's; the display never refreshes by
    itself within a test, so what is seen is what stands there at the end."""
    screen, clock = Terminal(), Clock()
    console = Console(file=screen, width=80, force_terminal=True)
    return Bars(console, clock), screen, clock


def last_frame(screen):
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_a_quick_task_shows_nothing():
    shown, screen, clock = bars()
    with shown as progress, progress.task("Quick", 3) as task:
        clock.now += PATIENCE
        task.advance(3)
    assert last_frame(screen) == []


def test_a_slow_task_has_one_line_with_its_count_and_time():
    shown, screen, clock = bars()
    with shown as progress, progress.task("Slow", 4) as task:
        for _ in range(3):
            clock.now += 10
            task.advance()
    lines = set(last_frame(screen))
    assert lines and all(line.startswith("Slow") for line in lines)
    final = last_frame(screen)[-1]
    assert "3/4" in final and "00:10" in final  # ten seconds left, at ten seconds a step
    assert len(final) <= 80


def test_a_task_left_by_an_error_lets_it_through_and_the_cursor_comes_back():
    shown, screen, _ = bars()
    try:
        with shown as progress, progress.task("Slow", 4):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert screen.getvalue().endswith("\x1b[?25h")


def test_nothing_is_written_where_no_terminal_is(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with on_stderr() as progress, progress.task("Slow", 4) as task:
        task.advance()
        task.advance(2)
    assert progress is SILENT
    assert stream.getvalue() == ""


def test_a_terminal_gets_bars(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with on_stderr() as progress:
        assert isinstance(progress, Bars)
    assert "\x1b" in stream.getvalue()


def test_a_bar_begins_with_the_readers_first_word():
    bars = Counted()
    with counted(bars, "Reading") as progress:
        assert bars.tasks == []
        progress(2, 7)
        progress(7, 7)
    with counted(bars, "Nothing to read"):
        pass
    assert bars.tasks == [["Reading", 7, 7]]


VERSION = "--version"
BAD = "profile --no.such 3"  # refused before anything is loaded


def told(tmp_path, words: str, redirection: str) -> tuple[int, str]:
    """Status and standard error of the command, run by a shell."""
    command = f'"{sys.executable}" -m afpjax.run {words} --out run {redirection}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert [path.name for path in tmp_path.iterdir()] == []
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "redirection", "status", "said"),
    [
        (VERSION, ">/dev/full", 2, "afpjax: error: standard output cannot be written (No space"),
        (VERSION, ">&-", 0, ""),
        (BAD, "2>/dev/full", 2, ""),
        (BAD, ">&- 2>&-", 2, ""),
    ],
)
def test_streams_that_take_nothing_leave_the_status(tmp_path, words, redirection, status, said):
    found = told(tmp_path, words, redirection)
    assert found[0] == status and found[1].startswith(said)
    assert found[1].count("\n") == bool(said)


def test_a_current_folder_that_is_gone_is_refused(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'rmdir ../gone; "{sys.executable}" -m afpjax.run profile'
    done = subprocess.run(["bash", "-c", command], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("afpjax: error: the current folder is no more")
    assert done.stderr.count("\n") == 1
