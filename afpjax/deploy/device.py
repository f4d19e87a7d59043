"""What runs in a device's process: its own part of an exported model, and a heart that beats.

This module is imported in every device's process, so it must stay light: no JAX.
"""

import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import psutil

from afpjax.deploy.flow import Source

_MB = 1e6


class Pulse(NamedTuple):
    """A sign of life: where the process is, and the memory that it takes now."""

    pid: int
    node: str
    memory_mb: float


class Work(NamedTuple):
    """A task of a batch, where each input that is sent was made, and which devices are lost.

    The batches before `oldest` have ended.
    """

    task: str
    sources: tuple[Source, ...]
    lost: frozenset[int]
    batch: int
    oldest: int


class Missing(RuntimeError):
    """A tensor was not sent that the device does not have: the task before has failed."""


@runtime_checkable
class Runnable(Protocol):
    """A part of an export, ready to run. It keeps what tasks of a batch have read and made, whole,
    for those of its tasks that still have to come."""

    def __call__(self, work: Work, values: Sequence[Any]) -> Sequence[Any]:
        """A task's outputs, from the values that its sources gave; may raise `Missing`."""
        ...


@runtime_checkable
class Loadable(Protocol):
    """A part of an export on its way to a device."""

    def open(self) -> Runnable:
        """In the device's process."""
        ...


class Device:
    """One device, a Ray actor. It runs tasks one by one, in the order they come."""

    def __init__(self) -> None:
        self._part: Runnable | None = None
        self._number = -1

    def load(self, number: int, part: Loadable) -> None:
        """From now on this part of export `number` is run, and no other."""
        self._part, self._number = None, number  # its memory is free before the other takes any
        self._part = part.open()

    def run(self, number: int, work: Work, *values: Any) -> Any:
        """The outputs of a task: one array, or as many as it has."""
        if self._part is None or number != self._number:
            raise RuntimeError(f"export {number} was asked for, {self._number} is loaded")
        outputs = self._part(work, values)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def pulse(self) -> Pulse:
        """Answered in a thread of its own, whatever else is going on."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Pulse(os.getpid(), node, psutil.Process().memory_info().rss / _MB)

    def die(self) -> None:
        """As if killed from outside, for devices on other machines."""
        os.kill(os.getpid(), signal.SIGKILL)
