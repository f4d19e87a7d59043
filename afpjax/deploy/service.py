"""Inference on devices that may die, and no request is lost.

One loop, in the caller's thread: it takes requests, hands tasks to devices, listens to their
hearts, and refuses what is overdue. It never waits for longer than a heartbeat.

When a device is lost, every batch under way is worked out again from the images: an answer comes
from one set of devices throughout, so that its accuracy can be foretold. A placement of neurons
goes on with whoever is left; a mapping of layers is made anew for them, while requests wait.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from afpjax.deploy.device import Missing, Work
from afpjax.deploy.flow import SENSOR, Batch, Source
from afpjax.deploy.killer import Kill
from afpjax.deploy.layout import Exported, Layout, Replan
from afpjax.deploy.members import START_S, Member, Members
from afpjax.deploy.requests import ALL_DEAD, DEADLINE, DEVICE_ERROR, Ledger, Request, State
from afpjax.deploy.watch import Watch
from afpjax.inputs.errors import InputError

_TICK_S = 0.02  # where something may come that no device tells of


class Limits(NamedTuple):
    """What the service keeps to."""

    in_flight: int
    heartbeat_s: float
    timeout_s: float
    deadline_s: float


class Loss(NamedTuple):
    """A device that was found lost. Times are seconds from the start of the stream."""

    device: int
    how: str
    at_s: float
    asked: int  # images asked for until then
    redone: int  # images that were under way, and are worked out again
    lost: tuple[int, ...]  # all that are lost now


Image = UInt8[np.ndarray, "H W C"]


class Service:
    """Devices that answer requests, for one `with` block; it leaves no process behind.

    `replan` makes an export for the devices that are left, by their names; without one, a mapping
    of which a device is lost has an end. Raises `InputError` where devices do not come up.
    """

    def __init__(
        self,
        ray: Any,
        exported: Exported,
        limits: Limits,
        replan: Replan | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ray, self._limits, self._clock = ray, limits, clock
        self.ledger, self.losses = Ledger(), list[Loss]()
        self.began = self._clock()
        self.members = Members(ray, exported.names)
        self.layout = Layout(ray, self.members, exported, replan)
        self._watch = Watch(ray, self.members, limits.heartbeat_s, limits.timeout_s)
        self._batches: list[Batch] = []
        self._numbers = count()
        self._told = 0

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close(self._clock())
        self.layout.end()
        self.members.end()

    def ask(self, image: Image, place: int = -1) -> Request:
        """A request, from any thread."""
        return self.ledger.ask(image, self._clock(), place)

    def run(
        self,
        stream: Iterable[Image],
        kills: Sequence[Kill] = (),
        *,
        listen_s: float | None = None,
        progress: Callable[[int], Any] = lambda ended: None,
    ) -> None:
        """Answer or refuse every image of the stream; `kills` strike while it is on its way.

        `listen_s`: requests of others are taken too, and for so long after the stream has ended.
        """
        source, due = enumerate(stream), sorted(kills)
        self.began, ended = self._clock(), None
        more = True
        while True:
            more = more and self._feed(source, due)
            self._hand_out()
            self._wait(others=listen_s is not None)
            self._refuse()
            progress(self._ended())
            if more or self.ledger.open:
                continue
            ended = self._clock() if ended is None else ended
            if self._clock() - ended >= (listen_s or 0.0):
                return

    def start(self) -> None:
        """Wait until the devices have loaded their parts, or are lost."""
        until = self._clock() + START_S
        while self.layout.is_loading:
            self._wait(others=False)
            if self._clock() > until:
                raise InputError(f"serve: devices did not load their parts within {START_S:.0f} s")
        if self.layout.hopeless and self.members.alive:
            raise InputError(f"serve: {self.layout.hopeless}: {self.layout.details}")

    def status(self) -> dict[str, Any]:
        """How things are, in JSON's types; from any thread."""
        ledger = self.ledger
        return {
            "answered": ledger.count(State.ANSWERED),
            "refused": ledger.count(State.REFUSED),
            "waiting": ledger.waiting,
            "under_way": ledger.under_way,
            "devices": [
                {"device": each.name, "alive": each.alive, "memory_mb": each.memory_mb}
                for each in self.members.all
            ],
        }

    def _feed(self, source: Iterator[tuple[int, Image]], due: list[Kill]) -> bool:
        """Ask for images while there is room for them under way; whether there may be more."""
        self._strike(due, 0)
        while len(self.ledger.open) < self._limits.in_flight:
            place, image = next(source, (-1, None))
            if image is None:
                return False
            self.ask(image, place)
            self._hand_out(full=True)
            self._strike(due, place + 1)
        return True

    def _strike(self, due: list[Kill], asked: int) -> None:
        while due and due[0].at <= asked:
            member = self.members.all[due.pop(0).device]
            if member.alive:
                self.members.kill(member, self._clock())

    def _hand_out(self, *, full: bool = False) -> None:
        """Begin batches, or only `full` ones, and give devices the tasks that can be done now."""
        plan = self.layout.plan
        if plan is None or not self._watch.sure:
            return
        while waiting := self.ledger.waiting:
            most = min(plan.batch, self._limits.in_flight)
            size = min(most, waiting)
            if self.ledger.under_way + size > self._limits.in_flight or (full and size < most):
                break
            taken = self.ledger.take(size)
            images = self._ray.put(self.layout.exported.prepared([each.image for each in taken]))
            number = next(self._numbers)
            batch = Batch(number, taken, plan, {Source(plan.image, SENSOR): images})
            self._batches.append(batch)
            self._go_on(batch)

    def _go_on(self, batch: Batch) -> None:
        oldest = self._batches[0].number
        for place, task, needed in batch.ready():
            plan, member = batch.plan, self.members.all[task.device]
            work = Work(task.name, tuple(needed), plan.lost, batch.number, oldest)
            refs = [batch.refs[source] for source in needed]
            given = self.members.run(member, len(task.outputs), plan.number, work, refs)
            batch.give_out(place, given)
        batch.forget()

    def _wait(self, *, others: bool) -> None:
        """Until a device has something to say, or a heartbeat is due; then see to it."""
        self._watch.ask(self._clock())
        refs = [ref for batch in self._batches for ref in batch.waiting]
        refs += [ref for ref, _ in self.members.pings()] + self.layout.refs
        soon = _TICK_S if others or self.layout.is_busy else self._limits.heartbeat_s / 2
        if refs:
            self._ray.wait(refs, num_returns=1, timeout=soon, fetch_local=False)
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        else:
            time.sleep(soon)
            ready = []
        self._see_to(set(ready))

    def _see_to(self, ready: set[Any]) -> None:
        for batch in list(self._batches):
            done = batch.waiting.keys() & ready
            if done:
                for ref in done:
                    batch.finished(ref)
                self._end(batch) if batch.is_through else self._go_on(batch)
        if not self.layout.hear(ready):
            self._watch.doubt(self._clock())
        lost = self._watch.hear(ready, self._clock())
        for member, how in lost:
            self._lose(member, how)
        if lost:
            self.layout.renew()
        self.layout.go_on()

    def _end(self, batch: Batch) -> None:
        """Answers, or an error: that of a device, or of one that died."""
        self._batches.remove(batch)
        errors, now = self._ray.exceptions, self._clock()
        try:
            logits = self._ray.get(batch.refs[batch.plan.final], timeout=self._limits.timeout_s)
        except (errors.RayActorError, errors.ObjectLostError, errors.GetTimeoutError, Missing):
            self.ledger.put_back(batch.requests)
            self._watch.doubt(now)
        except errors.RayError as error:
            cause = getattr(error, "cause", error)
            reason = f"{DEVICE_ERROR}: {type(cause).__name__}: {cause}"
            self.ledger.refuse(batch.requests, reason, now)
        else:
            for request, row in zip(batch.requests, np.asarray(logits), strict=False):
                self.ledger.answer(request, row, batch.plan.lost, now)

    def _lose(self, member: Member, how: str) -> None:
        now = self._clock()
        self.members.lose(member, how, now)
        again = sorted((each for b in self._batches for each in b.requests), key=lambda r: r.number)
        self._batches.clear()
        self.ledger.put_back(again)
        asked, _ = self.ledger.streamed
        lost = tuple(sorted(self.members.lost))
        self.losses.append(Loss(member.number, how, now - self.began, asked, len(again), lost))

    def _refuse(self) -> None:
        """What is overdue, and all where nothing is left to answer."""
        now = self._clock()
        overdue = [each for each in self.ledger.open if now - each.asked >= self._limits.deadline_s]
        if self.ledger.refuse(overdue, DEADLINE, now):
            self._batches = [
                b for b in self._batches if not all(r.done.is_set() for r in b.requests)
            ]
        if not self.members.alive:
            self.ledger.refuse(self.ledger.open, ALL_DEAD, now)
        elif self.layout.hopeless:
            self.ledger.refuse(self.ledger.open, self.layout.hopeless, now)

    def _ended(self) -> int:
        """Images of the stream that have ended since this was last asked."""
        _, ended = self.ledger.streamed
        new, self._told = ended - self._told, ended
        return new
