"""The devices of a service: processes that are begun, fed, listened to, and that may die.

A device's heart is asked every so often, whatever it is working on. It counts as lost when its
process is gone, or when it has been silent for too long; what is lost is killed, so that it cannot
come back with answers that nobody waits for.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from afpjax.deploy.service.worker import DeviceWorker, Heartbeat, PartFiles, TaskRun
from afpjax.inputs.errors import InputError

START_S = 120.0  # for processes to begin, and for a device to load what it runs
KILLED, DIED, SILENT = "killed", "died", "silent"
_GROUPS = {"work": 1, "heart": 1}  # threads of a device: a long task does not stop its heart


@dataclass(eq=False)
class Worker:
    """One device's process. Times are seconds of the service's clock."""

    number: int
    name: str
    actor: Any
    pid: int = 0
    process: psutil.Process | None = None  # where it runs on this machine
    base_mb: float = 0.0  # before it had anything to run
    memory_mb: float = 0.0  # the most that was seen
    killed_at: float | None = None
    lost_at: float | None = None
    how: str = ""
    asked_at: float = 0.0
    pings: dict[Any, float] = field(default_factory=dict)  # unanswered, and when they were sent

    @property
    def alive(self) -> bool:
        return self.lost_at is None

    def load(self, number: int, part: PartFiles) -> Any:
        """A reference to the device's word that it has loaded its part of an export."""
        return self.actor.load.options(concurrency_group="work").remote(number, part)

    def run(self, number: int, run: TaskRun, refs: Sequence[Any], outputs: int) -> list[Any]:
        """References to the outputs of a task."""
        method = self.actor.run.options(concurrency_group="work", num_returns=outputs)
        made = method.remote(number, run, *refs)
        return made if outputs > 1 else [made]

    def heartbeat(self) -> Any:
        """A reference to a sign of life."""
        return self.actor.heartbeat.options(concurrency_group="heart").remote()

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self.pings[self.heartbeat()] = now
        self.asked_at = now

    def kill_process(self) -> None:
        """SIGKILL: it ends at once, as in a power cut, even where it has been stopped.

        A process that has ended already is let be, also where another has got its number.
        """
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                self.process.kill()
        elif self.pid:
            self.actor.die.options(concurrency_group="heart").remote()


class WorkerPool:
    """All devices of a service. Raises `InputError` where they do not come up in time."""

    def __init__(self, ray: Any, names: Sequence[str], start_s: float = START_S) -> None:
        self._ray = ray
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(**options, concurrency_groups=_GROUPS)(DeviceWorker)
        self.all = [Worker(n, name, actor.remote()) for n, name in enumerate(names)]
        self.by_name = {worker.name: worker for worker in self.all}
        first = {worker.heartbeat(): worker for worker in self.all}
        ready, late = ray.wait(list(first), num_returns=len(first), timeout=start_s)
        if late:
            self.end()
            missing = ", ".join(first[ref].name for ref in late)
            raise InputError(f"serve: {missing} did not start within {start_s:.0f} s")
        for ref in ready:
            worker, heartbeat = first[ref], ray.get(ref)
            worker.pid = heartbeat.pid
            if heartbeat.node == ray.get_runtime_context().get_node_id():
                with suppress(psutil.NoSuchProcess):
                    worker.process = psutil.Process(heartbeat.pid)
            worker.base_mb = worker.memory_mb = heartbeat.memory_mb

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.all if worker.alive]

    @property
    def lost(self) -> frozenset[int]:
        return frozenset(worker.number for worker in self.all if not worker.alive)

    def lose(self, worker: Worker, how: str, now: float) -> None:
        """The device counts as lost; nothing of it is left running."""
        worker.lost_at, worker.how = now, how
        worker.pings.clear()
        worker.kill_process()
        self._ray.kill(worker.actor, no_restart=True)

    def pings(self) -> Iterator[tuple[Any, Worker]]:
        """What is not answered yet."""
        return ((ref, worker) for worker in self.alive for ref in worker.pings)

    def end(self) -> None:
        """Kill all that are left."""
        for worker in self.alive:
            self._ray.kill(worker.actor, no_restart=True)
            worker.kill_process()


class HeartbeatMonitor:
    """Asks every living device for a sign of life, `heartbeat_s` after it was last asked.

    A device is lost whose process is gone, or that leaves a question unanswered for `timeout_s`.
    """

    def __init__(self, ray: Any, pool: WorkerPool, heartbeat_s: float, timeout_s: float) -> None:
        self._ray, self._pool = ray, pool
        self._heartbeat_s, self._timeout_s = heartbeat_s, timeout_s
        self._doubts: set[Any] = set()
        self._last: float | None = None

    @property
    def sure(self) -> bool:
        """Whether all that were doubted have answered, or are lost."""
        self._doubts &= {ref for ref, _ in self._pool.pings()}
        return not self._doubts

    def doubt(self, now: float) -> None:
        """Something went wrong that a dead device would explain: ask all of them, now."""
        for worker in self._pool.alive:
            worker.ping(now)
            self._doubts |= set(worker.pings)

    def ask(self, now: float) -> None:
        """Ask those whose turn it is."""
        self._forgive(now)
        for worker in self._pool.alive:
            if not worker.pings and now - worker.asked_at >= self._heartbeat_s:
                worker.ping(now)

    def hear(self, ready: set[Any], now: float) -> list[tuple[Worker, str]]:
        """The devices that are found lost now, and why: `ready` has been answered or has failed."""
        lost = dict[int, tuple[Worker, str]]()
        for ref, worker in list(self._pool.pings()):
            if ref in ready and not self._answered(ref, worker, now):
                lost[worker.number] = worker, DIED if worker.killed_at is None else KILLED
        for worker in self._pool.alive:
            silent = any(now - sent > self._timeout_s for sent in worker.pings.values())
            if silent and worker.number not in lost:
                lost[worker.number] = worker, SILENT if worker.killed_at is None else KILLED
        return list(lost.values())

    def _answered(self, ref: Any, worker: Worker, now: float) -> bool:
        sent = worker.pings.pop(ref, now)
        try:
            heartbeat: Heartbeat = self._ray.get(ref)
            worker.memory_mb = max(worker.memory_mb, heartbeat.memory_mb)
        except self._ray.exceptions.ActorUnavailableError:  # perhaps for a moment: ask again
            worker.ping(now)
            worker.pings = dict.fromkeys(worker.pings, sent)
        except self._ray.exceptions.RayError:
            return False
        return True

    def _forgive(self, now: float) -> None:
        """Time in which nobody listened, because this process was busy, is no silence."""
        if self._last is not None and (gap := now - self._last) > self._heartbeat_s:
            for worker in self._pool.alive:
                worker.pings = {ref: sent + gap for ref, sent in worker.pings.items()}
        self._last = now
