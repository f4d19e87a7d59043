"""The devices of a service: processes that are begun, fed, listened to, and that may die.

A device's heart is asked every so often, whatever it is working on. It counts as lost when its
process is gone, or when it has been silent for too long; what is lost is killed, so that it cannot
come back with answers that nobody waits for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from afpjax.deploy.device import Device, Loadable, Pulse, Work
from afpjax.deploy.killer import Process, process_of, strike
from afpjax.inputs.errors import InputError

START_S = 120.0  # for processes to begin, and for a device to load what it runs
_GROUPS = {"work": 1, "pulse": 1}  # threads of a device: a long task does not stop its heart


@dataclass(eq=False)
class Member:
    """One device. Times are seconds of the service's clock; memory is its process's, MB."""

    number: int
    name: str
    actor: Any
    pid: int = 0
    process: Process | None = None  # where it runs on this machine
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

    def heard(self, pulse: Pulse) -> None:
        self.memory_mb = max(self.memory_mb, pulse.memory_mb)


class Members:
    """All devices of a service. Raises `InputError` where they do not come up in time."""

    def __init__(self, ray: Any, names: Sequence[str], start_s: float = START_S) -> None:
        self._ray = ray
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(**options, concurrency_groups=_GROUPS)(Device)
        self.all = [Member(n, name, actor.remote()) for n, name in enumerate(names)]
        first = {self._call(each, "pulse"): each for each in self.all}
        ready, late = ray.wait(list(first), num_returns=len(first), timeout=start_s)
        if late:
            names = [first[ref].name for ref in late]
            self.end()
            raise InputError(f"serve: {', '.join(names)} did not start within {start_s:.0f} s")
        for ref in ready:
            pulse = ray.get(ref)
            here = pulse.node == ray.get_runtime_context().get_node_id()
            first[ref].pid, first[ref].process = pulse.pid, process_of(pulse.pid) if here else None
            first[ref].base_mb = first[ref].memory_mb = pulse.memory_mb

    @property
    def alive(self) -> list[Member]:
        return [each for each in self.all if each.alive]

    @property
    def lost(self) -> frozenset[int]:
        return frozenset(each.number for each in self.all if not each.alive)

    def load(self, member: Member, number: int, part: Loadable) -> Any:
        """A reference to the device's word that it has loaded its part of an export."""
        return self._call(member, "load", number, part, group="work")

    def run(self, member: Member, outputs: int, number: int, work: Work, refs: Any) -> list[Any]:
        """References to what a task of the device gives."""
        method = member.actor.run.options(concurrency_group="work", num_returns=outputs)
        given = method.remote(number, work, *refs)
        return given if outputs > 1 else [given]

    def ping(self, member: Member, now: float) -> None:
        member.pings[self._call(member, "pulse")] = now
        member.asked_at = now

    def kill(self, member: Member, now: float) -> None:
        """Kill the device's process, and tell nobody: they have to find out."""
        member.killed_at = now
        self._strike(member)

    def lose(self, member: Member, how: str, now: float) -> None:
        """The device counts as lost; nothing of it is left running."""
        member.lost_at, member.how = now, how
        member.pings.clear()
        self._strike(member)
        self._ray.kill(member.actor, no_restart=True)

    def pings(self) -> Iterator[tuple[Any, Member]]:
        """What is not answered yet."""
        return ((ref, member) for member in self.alive for ref in member.pings)

    def end(self) -> None:
        """Kill all that are left."""
        for member in self.alive:
            self._ray.kill(member.actor, no_restart=True)
            self._strike(member)

    def _strike(self, member: Member) -> None:
        if member.process is not None:
            strike(member.process)
        elif member.pid:
            self._call(member, "die")

    def _call(self, member: Member, method: str, *args: Any, group: str = "pulse") -> Any:
        return getattr(member.actor, method).options(concurrency_group=group).remote(*args)
