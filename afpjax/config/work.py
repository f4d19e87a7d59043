"""What a job works with: where rows are kept, and whom it tells how far it is."""

import struct
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable


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
    """Where rows are kept, who is told how far a job is, and what is in memory already."""

    memory: MutableMapping[bytes, bytes]  # rows worked out before, and where to keep new ones
    progress: Progress
    #: A network and images in memory, an `experiment.Given`, instead of those that a file names.
    given: Any = None


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


@contextmanager
def summed(
    memory: MutableMapping[bytes, bytes], name: bytes, now: Callable[[], Sequence[float]]
) -> Iterator[Callable[[], tuple[float, ...]]]:
    """What `now` counts while inside `with`, and with it what earlier attempts of the run counted.

    For times and counts of work, which one attempt of several alone does not know. A store on disk
    keeps the sums with every row that it takes (`RowStore.sums`), so that a process that is killed
    takes nothing along but what it has not kept either.
    """
    known = memory.get(name)
    before = None if known is None else struct.unpack(f"{len(known) // 8}d", known)

    def total() -> tuple[float, ...]:
        mine = now()
        return tuple(map(sum, zip(mine, before or [0.0] * len(mine), strict=True)))

    def packed() -> bytes:
        values = total()
        return struct.pack(f"{len(values)}d", *values)

    sums = getattr(memory, "sums", {})
    sums[name] = packed
    try:
        yield total
    finally:
        del sums[name]
        memory[name] = packed()
