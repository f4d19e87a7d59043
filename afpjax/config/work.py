"""What a job works with: where rows are kept, and whom it tells how far it is."""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Task", "Work", "counted"]


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


class Work(NamedTuple):
    """Where rows are kept, and who is told how far a job is."""

    memory: MutableMapping[bytes, bytes]  # rows worked out before, and where to keep new ones
    progress: Progress


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
