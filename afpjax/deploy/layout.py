"""Which export the devices have loaded, who computes what of it, and what follows a loss.

A placement of neurons needs nothing but another plan: whoever is left answers. A mapping of layers
that has lost a device is made anew for the others, in a thread beside the service, and loaded.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from afpjax.deploy.device import Loadable
from afpjax.deploy.flow import Plan
from afpjax.deploy.members import Member, Members
from afpjax.deploy.requests import DEVICE_ERROR, NO_MAPPING, NO_ROOM
from afpjax.inputs.errors import InputError


class NoRoom(InputError):
    """A device has too little memory for its part."""


@runtime_checkable
class Exported(Protocol):
    """An export as the service sees it. Devices are numbers, in the order of `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """All devices of the service, also those that this export has nothing for."""
        ...

    def prepared(self, images: Sequence[UInt8[np.ndarray, "H W C"]]) -> np.ndarray:
        """What the first task takes: one batch, filled up where the images are fewer."""
        ...

    def part(self, device: int) -> Loadable | None:
        """What a device runs, if anything."""
        ...

    def survives(self, lost: Collection[int]) -> bool:
        """Whether the others can answer without these devices."""
        ...

    def plan(self, number: int, lost: Collection[int]) -> Plan:
        """Who works out what without them."""
        ...


#: An export for the devices with these names. Raises `InputError` where they cannot do it, and
#: `NoRoom` where that is for want of memory.
Replan = Callable[[tuple[str, ...]], Exported]


class Layout:
    """What runs where, now. `plan` is None while it is made or loaded, or where there is none."""

    def __init__(
        self, ray: Any, members: Members, exported: Exported, replan: Replan | None
    ) -> None:
        self._ray, self._members, self._replan = ray, members, replan
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="replan")
        self._making: tuple[frozenset[int], Future[Exported]] | None = None
        self._loading: dict[Any, Member] = {}
        self._number = -1
        self.plan: Plan | None = None
        self.hopeless, self.details = "", ""
        self.exported = exported
        self._load(exported)

    @property
    def refs(self) -> list[Any]:
        """What devices have been asked to load and have not."""
        return list(self._loading)

    @property
    def is_loading(self) -> bool:
        return bool(self._loading)

    @property
    def is_busy(self) -> bool:
        """Whether a thread is at work that no device tells of."""
        return self._making is not None

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

    def renew(self) -> None:
        """Devices have been lost: another plan, or another mapping."""
        lost = self._members.lost
        self._loading = {ref: member for ref, member in self._loading.items() if member.alive}
        if not self._members.alive or self.hopeless:
            self.plan = None
        elif self.exported.survives(lost):
            self.plan = None if self._loading else self.exported.plan(self._number, lost)
        elif self._replan is None:
            self._give_up(NO_MAPPING, "a device that computes layers is lost")
        else:
            self.plan = None
            self._make()

    def go_on(self) -> None:
        """Take up a new mapping that has been made, and one that all devices have loaded."""
        if self._making is not None and self._making[1].done():
            (lost, made), self._making = self._making, None
            if lost == self._members.lost:
                self._take(made)
            elif self._members.alive:
                self._make()
        if self.plan is None and not self._loading and not self.is_busy and not self.hopeless:
            lost = self._members.lost
            if self.exported.survives(lost):
                self.plan = self.exported.plan(self._number, lost)

    def end(self) -> None:
        """Wait for nothing more."""
        self._maker.shutdown(wait=False, cancel_futures=True)

    def _make(self) -> None:
        if self._making is None and self._replan is not None:
            names = tuple(member.name for member in self._members.alive)
            self._making = self._members.lost, self._maker.submit(self._replan, names)

    def _take(self, made: Future[Exported]) -> None:
        try:
            self._load(made.result())
        except NoRoom as error:
            self._give_up(NO_ROOM, str(error))
        except InputError as error:
            self._give_up(NO_MAPPING, str(error))

    def _load(self, exported: Exported) -> None:
        """Have every device load its part; the plan follows when all have."""
        self.exported, self.plan = exported, None
        self._number += 1
        self._loading = {}
        for member in self._members.alive:
            part = self.exported.part(member.number)
            if part is not None:
                ref = self._members.load(member, self._number, part)
                self._loading[ref] = member

    def _give_up(self, reason: str, details: str) -> None:
        self.plan, self.hopeless, self.details = None, reason, details
