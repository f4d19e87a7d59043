"""Progress bars for whatever takes longer than two seconds; none where nobody watches."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from rich import progress as rich
from rich.console import Console, RenderableType

__all__ = ["PATIENCE", "SILENT", "Bars", "Progress", "Task", "counted", "on_stderr"]

PATIENCE = 2.0  # seconds that a task may take before it gets a bar


@runtime_checkable
class Task(Protocol):
    """A piece of work under way."""

    def advance(self, amount: int = 1, /) -> None:
        """`amount` more steps are done."""
        ...


@runtime_checkable
class Progress(Protocol):
    """What a job tells how far it is; `with progress.task("Training", 30) as task: ...`."""

    def task(self, description: str, total: int) -> AbstractContextManager[Task]:
        """Work of `total` steps, until its `with` block is left."""
        ...


class _Silent:
    """Shows nothing, for use as a library."""

    def task(self, description: str, total: int) -> AbstractContextManager[Task]:
        return nullcontext(self)

    def advance(self, amount: int = 1, /) -> None:
        pass


SILENT: Progress = _Silent()


def on_stderr() -> AbstractContextManager[Progress]:
    """Bars on standard error if it is a terminal, else silence; either for one `with` block."""
    return Bars(Console(stderr=True)) if sys.stderr.isatty() else nullcontext(SILENT)


@contextmanager
def counted(progress: Progress, description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that says `(done, total)`; the total is known at its first word."""
    with ExitStack() as stack:
        bar: list[Any] = [None, 0]

        def told(done: int, total: int) -> None:
            bar[0] = bar[0] or stack.enter_context(progress.task(description, total))
            bar[0].advance(done - bar[1])
            bar[1] = done

        yield told


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
