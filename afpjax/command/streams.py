"""Standard output and error where they are closed, full, or lead nowhere."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from afpjax.inputs.errors import InputError


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
