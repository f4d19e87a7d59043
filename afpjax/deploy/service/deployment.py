"""Which export the devices have loaded, who computes what of it, and what follows a loss.

A placement of neurons needs nothing but another plan: whoever is left answers. A mapping of layers
that has lost a device is made anew for the others, in a thread beside the service, and loaded.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from afpjax.deploy.service.plan import ExecutionPlan, OutOfMemory, ServedExport
from afpjax.deploy.service.pool import Worker, WorkerPool
from afpjax.deploy.service.requests import DEVICE_ERROR, NO_MAPPING, NO_ROOM
from afpjax.inputs.errors import InputError

#: An export for the devices with these names. Raises `InputError` where they cannot do it, and
#: `OutOfMemory` where that is for want of memory.
Replan = Callable[[tuple[str, ...]], ServedExport]


class Deployment:
    """What runs where, now. `plan` is None while it is made or loaded, or where there is none.

    Where no plan can be made any more, `hopeless` is the reason that requests are refused for, and
    `details` say it at length.
    """

    def __init__(
        self, ray: Any, pool: WorkerPool, export: ServedExport, replan: Replan | None
    ) -> None:
        self._ray, self._pool, self._replan = ray, pool, replan
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replan")
        self._planning: tuple[frozenset[int], Future[ServedExport]] | None = None
        self._loading: dict[Any, Worker] = {}
        self._number = -1
        self.plan: ExecutionPlan | None = None
        self.hopeless, self.details = "", ""
        self.export = export
        self._load(export)

    @property
    def refs(self) -> list[Any]:
        """What devices have been asked to load and have not."""
        return list(self._loading)

    @property
    def is_planning(self) -> bool:
        """Whether a thread is at work that no device tells of."""
        return self._planning is not None

    def hear(self, ready: set[Any]) -> bool:
        """False where loading has failed in a way that a dead device would explain."""
        for ref in self._loading.keys() & ready:
            del self._loading[ref]
            try:
                self._ray.get(ref)
            except self._ray.exceptions.RayActorError:
                return False
            except self._ray.exceptions.RayError as error:
                self._give_up(DEVICE_ERROR, str(getattr(error, "cause", error)))
        return True

    def devices_lost(self) -> None:
        """Another plan, or another mapping, for those that are left."""
        self._loading = {ref: worker for ref, worker in self._loading.items() if worker.alive}
        self.plan = None
        if not self._pool.alive or self.hopeless:
            return
        if self.export.survives(self._pool.lost):
            self._make_plan()
        elif self._replan is None:
            self._give_up(NO_MAPPING, "a device that computes layers is lost")
        else:
            self._start_planning()

    def go_on(self) -> None:
        """Take up a new mapping that has been made, and one that all devices have loaded."""
        if self._planning is not None and self._planning[1].done():
            (lost, future), self._planning = self._planning, None
            if lost == self._pool.lost:
                self._take(future)
            elif self._pool.alive:
                self._start_planning()
        idle = self.plan is None and not self.is_planning and not self.hopeless
        if idle and self.export.survives(self._pool.lost):
            self._make_plan()

    def end(self) -> None:
        """Wait for nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _make_plan(self) -> None:
        if not self._loading:
            self.plan = self.export.plan(self._number, self._pool.lost)

    def _start_planning(self) -> None:
        if self._planning is None and self._replan is not None:
            names = tuple(worker.name for worker in self._pool.alive)
            self._planning = self._pool.lost, self._thread.submit(self._replan, names)

    def _take(self, future: Future[ServedExport]) -> None:
        try:
            self._load(future.result())
        except OutOfMemory as error:
            self._give_up(NO_ROOM, str(error))
        except InputError as error:
            self._give_up(NO_MAPPING, str(error))

    def _load(self, export: ServedExport) -> None:
        """Have every device load its part; the plan follows when all have."""
        self.export, self.plan = export, None
        self._number += 1
        self._loading = {}
        for worker in self._pool.alive:
            part = export.part(worker.number)
            if part is not None:
                self._loading[worker.load(self._number, part)] = worker

    def _give_up(self, reason: str, details: str) -> None:
        self.plan, self.hopeless, self.details = None, reason, details
