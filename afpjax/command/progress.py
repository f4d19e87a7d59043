"""Progress bars for whatever takes longer than two seconds; none where nobody watches."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

from rich import progress as rich
from rich.console import Console, RenderableType

from afpjax.config.work import SILENT, Progress, Task

__all__ = ["PATIENCE", "Bars", "on_stderr"]

PATIENCE = 2.0  # seconds that a task may take before it gets a bar


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
