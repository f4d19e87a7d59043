"""Inference on devices that may die, and no request is lost.

One loop, in the caller's thread: it takes requests, hands tasks to devices, listens to their
hearts, and refuses what is overdue. It never waits for longer than a heartbeat.

When a device is lost, every batch under way is worked out again from the images: an answer comes
from one set of devices throughout, so that its accuracy can be predicted. A placement of neurons
goes on with whoever is left; a mapping of layers is made anew for them, while requests wait.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from afpjax.deploy.service.deployment import Deployment, Replan
from afpjax.deploy.service.kills import Kill
from afpjax.deploy.service.plan import SERVICE, ServedBatch, ServedExport
from afpjax.deploy.service.pool import START_S, HeartbeatMonitor, Worker, WorkerPool
from afpjax.deploy.service.requests import (
    ALL_DEAD,
    DEADLINE,
    DEVICE_ERROR,
    ImageRequest,
    RequestQueue,
    RequestState,
)
from afpjax.deploy.service.worker import MissingTensor, TaskRun, TensorSource
from afpjax.inputs.errors import InputError

_TICK_S = 0.02  # where something may come that no device tells of


class ServiceLimits(NamedTuple):
    """What the service keeps to."""

    in_flight: int
    heartbeat_s: float
    timeout_s: float
    deadline_s: float


class DeviceLoss(NamedTuple):
    """A device that was found lost. Times are seconds from the start of the stream."""

    device: int
    how: str
    at_s: float
    asked: int  # images asked for until then
    redone: int  # images that were under way, and are worked out again
    lost: tuple[int, ...]  # all that are lost now


Pixels = UInt8[np.ndarray, "H W C"]


class Service:
    """Devices that answer requests, for one `with` block; it leaves no process behind.

    `replan` makes an export for the devices that are left, by their names; without one, a mapping
    of which a device is lost has an end. Raises `InputError` where devices do not come up.
    """

    def __init__(
        self,
        ray: Any,
        export: ServedExport,
        limits: ServiceLimits,
        replan: Replan | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ray, self._limits, self._clock = ray, limits, clock
        self.queue, self.losses = RequestQueue(), list[DeviceLoss]()
        self.began = self._clock()
        self.pool = WorkerPool(ray, export.names)
        self.deployment = Deployment(ray, self.pool, export, replan)
        self._monitor = HeartbeatMonitor(ray, self.pool, limits.heartbeat_s, limits.timeout_s)
        self._batches: list[ServedBatch] = []
        self._numbers = count()
        self._reported = 0

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.queue.close(self._clock())
        self.deployment.end()
        self.pool.end()

    def ask(self, image: Pixels, index: int = -1) -> ImageRequest:
        """A request, from any thread."""
        return self.queue.ask(image, self._clock(), index)

    def run(
        self,
        stream: Iterable[Pixels],
        kills: Sequence[Kill] = (),
        *,
        listen_s: float | None = None,
        progress: Callable[[int], Any] = lambda ended: None,
    ) -> None:
        """Answer or refuse every image of the stream; `kills` happen while it is on its way.

        `listen_s`: requests of others are taken too, and for so long after the stream has ended.
        """
        images, due = enumerate(stream), sorted(kills)
        self.began, ended = self._clock(), None
        more = True
        while True:
            more = more and self._feed(images, due)
            self._hand_out()
            self._wait(others=listen_s is not None)
            self._refuse()
            progress(self._newly_ended())
            if more or self.queue.open:
                continue
            ended = self._clock() if ended is None else ended
            if self._clock() - ended >= (listen_s or 0.0):
                return

    def start(self) -> None:
        """Wait until the devices have loaded their parts, or are lost."""
        until = self._clock() + START_S
        while self.deployment.refs:
            self._wait(others=False)
            if self._clock() > until:
                raise InputError(f"serve: devices did not load their parts within {START_S:.0f} s")
        if self.deployment.hopeless and self.pool.alive:
            raise InputError(f"serve: {self.deployment.hopeless}: {self.deployment.details}")

    def status(self) -> dict[str, Any]:
        """How things are, in JSON's types; from any thread."""
        return {
            "answered": self.queue.count(RequestState.ANSWERED),
            "refused": self.queue.count(RequestState.REFUSED),
            "waiting": self.queue.waiting,
            "under_way": self.queue.under_way,
            "devices": [
                {"device": worker.name, "alive": worker.alive, "memory_mb": worker.memory_mb}
                for worker in self.pool.all
            ],
        }

    def _feed(self, images: Iterator[tuple[int, Pixels]], due: list[Kill]) -> bool:
        """Ask for images while there is room for them under way; whether there may be more."""
        self._kill(due, 0)
        while len(self.queue.open) < self._limits.in_flight:
            index, image = next(images, (-1, None))
            if image is None:
                return False
            self.ask(image, index)
            self._hand_out(full=True)
            self._kill(due, index + 1)
        return True

    def _kill(self, due: list[Kill], asked: int) -> None:
        while due and due[0].at <= asked:
            worker = self.pool.all[due.pop(0).device]
            if worker.alive:  # nobody is told: it has to be found out
                worker.killed_at = self._clock()
                worker.kill_process()

    def _hand_out(self, *, full: bool = False) -> None:
        """Begin batches, or only `full` ones, and give devices the tasks that can be done now."""
        plan = self.deployment.plan
        if plan is None or not self._monitor.sure:
            return
        while waiting := self.queue.waiting:
            most = min(plan.batch, self._limits.in_flight)
            size = min(most, waiting)
            if self.queue.under_way + size > self._limits.in_flight or (full and size < most):
                break
            taken = self.queue.take(size)
            images = [request.image for request in taken]
            ref = self._ray.put(self.deployment.export.network_input(images))
            image = TensorSource(plan.image, SERVICE)
            batch = ServedBatch(next(self._numbers), taken, plan, {image: ref})
            self._batches.append(batch)
            self._go_on(batch)

    def _go_on(self, batch: ServedBatch) -> None:
        plan, oldest = batch.plan, self._batches[0].number
        for index, task, needed in batch.ready():
            worker = self.pool.by_name[task.device]
            run = TaskRun(task.task, tuple(needed), plan.lost, batch.number, oldest)
            refs = [batch.refs[source] for source in needed]
            batch.under_way(index, worker.run(plan.number, run, refs, len(task.outputs)))
        batch.drop_unneeded()

    def _wait(self, *, others: bool) -> None:
        """Until a device has something to say, or a heartbeat is due; then see to it."""
        self._monitor.ask(self._clock())
        refs = [ref for batch in self._batches for ref in batch.pending]
        refs += [ref for ref, _ in self.pool.pings()] + self.deployment.refs
        soon = others or self.deployment.is_planning
        timeout = _TICK_S if soon else self._limits.heartbeat_s / 2
        ready: list[Any] = []
        if refs:
            self._ray.wait(refs, num_returns=1, timeout=timeout, fetch_local=False)
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        else:
            time.sleep(timeout)
        self._see_to(set(ready))

    def _see_to(self, ready: set[Any]) -> None:
        for batch in list(self._batches):
            done = batch.pending.keys() & ready
            if done:
                for ref in done:
                    batch.finished(ref)
                self._end(batch) if batch.is_through else self._go_on(batch)
        if not self.deployment.hear(ready):
            self._monitor.doubt(self._clock())
        lost = self._monitor.hear(ready, self._clock())
        for worker, how in lost:
            self._lose(worker, how)
        if lost:
            self.deployment.devices_lost()
        self.deployment.go_on()

    def _end(self, batch: ServedBatch) -> None:
        """Answers, or an error: that of a device, or of one that died."""
        self._batches.remove(batch)
        errors, now = self._ray.exceptions, self._clock()
        dead = errors.RayActorError, errors.ObjectLostError, errors.GetTimeoutError, MissingTensor
        try:
            logits = self._ray.get(batch.refs[batch.plan.final], timeout=self._limits.timeout_s)
        except dead:
            self.queue.put_back(batch.requests)
            self._monitor.doubt(now)
        except errors.RayError as error:
            cause = getattr(error, "cause", error)
            reason = f"{DEVICE_ERROR}: {type(cause).__name__}: {cause}"
            self.queue.refuse(batch.requests, reason, now)
        else:
            lost = [self.pool.by_name[name].number for name in batch.plan.lost]
            for request, row in zip(batch.requests, np.asarray(logits), strict=False):
                self.queue.answer(request, row, lost, now)

    def _lose(self, worker: Worker, how: str) -> None:
        now = self._clock()
        self.pool.lose(worker, how, now)
        under_way = [request for batch in self._batches for request in batch.requests]
        self._batches.clear()
        self.queue.put_back(sorted(under_way, key=lambda request: request.number))
        asked, _ = self.queue.streamed
        lost = tuple(sorted(self.pool.lost))
        at_s = now - self.began
        self.losses.append(DeviceLoss(worker.number, how, at_s, asked, len(under_way), lost))

    def _refuse(self) -> None:
        """What is overdue, and all where nothing is left to answer."""
        now, requests = self._clock(), self.queue.open
        overdue = [r for r in requests if now - r.asked >= self._limits.deadline_s]
        if self.queue.refuse(overdue, DEADLINE, now):
            self._batches = [
                b for b in self._batches if not all(r.done.is_set() for r in b.requests)
            ]
        if not self.pool.alive:
            self.queue.refuse(self.queue.open, ALL_DEAD, now)
        elif self.deployment.hopeless:
            self.queue.refuse(self.queue.open, self.deployment.hopeless, now)

    def _newly_ended(self) -> int:
        """Images of the stream that have ended since this was last asked."""
        _, ended = self.queue.streamed
        new, self._reported = ended - self._reported, ended
        return new
