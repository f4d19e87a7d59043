"""What a person sees meanwhile: progress bars, and one line where something is to be said.

Bars are for whatever takes longer than two seconds; there is none where nobody watches. Standard
output and error may be closed, full, or lead nowhere.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import TextIO

from rich import progress as rich
from rich.console import Console, RenderableType

from afpjax.config.work import SILENT, Progress, Task
from afpjax.inputs.errors import InputError

PATIENCE = 2.0  # seconds that a task may take before it gets a bar


def open_all() -> None:
    """Whatever of the three is closed leads to the null device from here on.

    Else the next file that is opened would take its number, and what is said would be written
    into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # what Python makes of one that was closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


@contextmanager
def written() -> Iterator[None]:
    """What is printed inside `with` has been written at its end. `InputError` where it was not."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"standard output cannot be written ({reason}); point it elsewhere"
        ) from error


def say(line: str) -> None:
    """Print to standard error; where that cannot be written, the exit status has to do."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere, so that it is no error at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def on_stderr() -> AbstractContextManager[Progress]:
    """Bars on standard error if it is a terminal, else silence; either for one `with` block."""
    return Bars(Console(stderr=True)) if sys.stderr.isatty() else nullcontext(SILENT)


class Bars:
    """A line with a bar for every task that has run for more than `PATIENCE` seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = _Patient(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(bar_width=24),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            get_time=clock,
            refresh_per_second=4,
        )

    def __enter__(self) -> "Bars":
        self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.stop()

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """A bar of `total` steps, which stays as it is when the `with` block is left."""
        number = self._lines.add_task(description, total=total)
        try:
            yield _Bar(self._lines, number)
        finally:
            self._lines.stop_task(number)


class _Bar:
    def __init__(self, lines: rich.Progress, number: rich.TaskID) -> None:
        self._lines, self._number = lines, number

    def advance(self, amount: int = 1, /) -> None:
        self._lines.advance(self._number, amount)


class _Patient(rich.Progress):
    """Rich's display of tasks, without those that have not tried anyone's patience."""

    def get_renderables(self) -> Iterable[RenderableType]:
        slow = [task for task in self.tasks if (task.elapsed or 0.0) > PATIENCE]
        yield self.make_tasks_table(slow)
