"""Bars for slow tasks, nothing for quick ones, silence where nobody watches."""

import io
import re
import sys

from rich.console import Console

from afpjax.command.progress import PATIENCE, Bars, on_stderr
from afpjax.config.work import SILENT, counted


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
    class Bars:
        def __init__(self):
            self.rows = []

        def task(self, description, total):
            self.rows.append([description, total, 0])
            return Bar(self.rows[-1])

    class Bar:
        def __init__(self, row):
            self.row = row

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.row.append("closed")

        def advance(self, amount=1, /):
            self.row[2] += amount

    bars = Bars()
    with counted(bars, "Reading") as progress:
        assert bars.rows == []
        progress(2, 7)
        progress(7, 7)
    assert bars.rows == [["Reading", 7, 7, "closed"]]
    with counted(bars, "Nothing to read"):
        pass
    assert len(bars.rows) == 1
