"""Ctrl-C, SIGTERM and SIGHUP: a run that saw one ends with status 130 and one line, in seconds.

Python raises `KeyboardInterrupt` wherever its main thread happens to be. Raised inside a callback
of the garbage collector, a `__del__` or one of C code, it is printed and dropped; inside a long
call of C code it comes when that call is over. So a thread of its own, woken by the C part of
Python's signal handling whatever the main thread does, keeps asking until the run has ended:
where nothing is handling the interrupt any more it is raised again, and a run that has not ended
in time, or that is interrupted once more, is ended there and then. What a run keeps is kept in
transactions, so nothing that was worked out is lost by that.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn

__all__ = ["INTERRUPTED", "Interrupts", "end", "start"]

INTERRUPTED = 130  # the exit status
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = signal.SIGURG  # ignored by default, so that one that comes late does nothing
_AGAIN_S = 0.1  # from one look at whether the main thread handles the interrupt to the next
_SAME_S = 0.1  # `timeout` sends a signal twice: that is no second Ctrl-C
_PATIENCE_S = 3.0  # for the run to end in good order
_SHOW_CURSOR = "\r\x1b[?25h"  # which a bar hides


class Interrupts:
    """Signals raise `KeyboardInterrupt` within a `with` block, again and again until it is handled.

    `seen`: there was one. `line` is what to say then; `_PATIENCE_S` after the first signal, and at
    a second one, the process says it and is gone. Nothing happens outside the main thread.
    """

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        self.seen = False
        self.line = "interrupted before anything was begun"
        self._patience_s = patience_s
        self._raised: list[BaseException] = []
        self._held, self._over = 0, threading.Event()
        self._saying = threading.Lock()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets no other thread handle signals
        self._main = threading.get_ident()
        self._held += 1  # until all is set up
        self._hooks = sys.unraisablehook, threading.excepthook
        sys.unraisablehook, threading.excepthook = map(self._quiet, self._hooks)
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._wakeup = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        for number in (*_SIGNALS, _AGAIN):
            self._before[number] = signal.getsignal(number)
            if number != signal.SIGHUP or self._before[number] != signal.SIG_IGN:  # as by nohup
                signal.signal(number, self._interrupt)
        self._watcher = threading.Thread(target=self._watch, name="interrupts", daemon=True)
        self._watcher.start()
        self._held -= 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        self._over.set()
        late = _all_said if self.seen else _all_done
        for number, handler in self._before.items():
            signal.signal(number, late if handler is _not_begun else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._mouth, b"\0")
        self._watcher.join()
        os.close(self._ear)
        os.close(self._mouth)
        sys.unraisablehook, threading.excepthook = self._hooks

    @contextmanager
    def held(self) -> Iterator[None]:
        """What takes a moment and is better whole: an interrupt is raised before it or after it."""
        self._held += 1
        try:
            self._raise_if_seen()
            yield
        finally:
            self._held -= 1
        self._raise_if_seen()

    def settle(self) -> None:
        """From here on nothing is raised: the run is ending."""
        self._held += 1

    def say(self) -> None:
        """Say `line`, the first time."""
        if self._saying.acquire(blocking=False):
            restored = _SHOW_CURSOR if os.isatty(2) else ""
            with suppress(OSError, ValueError):  # a terminal that is gone
                print(f"{restored}afpjax: {self.line}", file=sys.stderr, flush=True)

    def _raise_if_seen(self) -> None:
        if self.seen:
            self._raised.append(KeyboardInterrupt())
            raise self._raised[-1]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if number != _AGAIN:
            self.seen = True
        waits = self._held or self._over.is_set() or self._is_handled() or _importing(frame)
        if not waits:
            self._raise_if_seen()

    def _is_handled(self) -> bool:
        """Whether the main thread is in an `except`, `finally` or `__exit__` of an interrupt."""
        found = [sys.exception()]
        for error in found:
            for earlier in (error.__cause__, error.__context__) if error else ():
                if earlier not in found:
                    found.append(earlier)
        return any(error in self._raised for error in found)

    def _watch(self) -> None:
        """Hear of signals from Python's C part, and see to it that the run ends."""
        while os.read(self._ear, 1)[0] not in _SIGNALS:
            if self._over.is_set():
                return
        self.seen, first = True, time.monotonic()
        second = threading.Thread(target=self._hear_second, args=(first,), daemon=True)
        second.start()
        while not self._over.wait(_AGAIN_S):
            if time.monotonic() - first > self._patience_s or not second.is_alive():
                self._end_now()
            with suppress(ProcessLookupError):
                signal.pthread_kill(self._main, _AGAIN)
        second.join()

    def _hear_second(self, first: float) -> None:
        while not self._over.is_set():
            if os.read(self._ear, 1)[0] in _SIGNALS and time.monotonic() - first > _SAME_S:
                return

    def _end_now(self) -> NoReturn:
        """Without the main thread, which may be anywhere and may hold any lock of Python's."""
        if self._saying.acquire(blocking=False):
            _tell(self.line)
        os._exit(INTERRUPTED)

    def _quiet(self, hook: Any) -> Any:
        """What goes wrong in callbacks and threads while a run is being ended is no news."""
        return lambda args: None if self.seen else hook(args)


def start() -> None:
    """A process that is the command ends at a signal from now on, until `main` takes over."""
    atexit.register(_be_gone)  # the first of all, and so the last to be called
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _not_begun)


def end(status: int) -> NoReturn:
    """End the process; one that was interrupted waits for no thread that is still at work."""
    if status == INTERRUPTED:
        _leave(status)
    _over.append(status)
    sys.exit(status)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: one in C, interrupted while it sets itself up, crashes.

    The watcher asks again until it is there.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_over: list[int] = []  # the status, once the command is over


def _be_gone() -> None:
    """Python would take all modules apart now, for seconds, deaf to what is said to it."""
    if _over:
        _leave(_over[0])


def _not_begun(number: int, frame: FrameType | None) -> NoReturn:
    _tell("interrupted before anything was begun")
    _leave(INTERRUPTED)


def _all_done(number: int, frame: FrameType | None) -> NoReturn:
    _tell("interrupted when all was done")
    _leave(INTERRUPTED)


def _all_said(number: int, frame: FrameType | None) -> NoReturn:
    _leave(INTERRUPTED)


def _tell(line: str) -> None:
    """By way of the system: Python's own stream may be in use at the moment."""
    restored = _SHOW_CURSOR if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{restored}afpjax: {line}\n".encode())


def _leave(status: int) -> NoReturn:
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: it was just being written
        sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # what came before is handled by now
    os._exit(INTERRUPTED if signal.sigpending() & set(_SIGNALS) else status)
