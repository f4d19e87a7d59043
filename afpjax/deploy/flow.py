"""How a batch of images goes through the devices: which piece of work can be handed out next.

Whoever hands work out moves references to tensors, never the tensors: each device fetches what it
needs from whoever made it, once, and keeps it for its later tasks of the batch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from afpjax.deploy.requests import Request

SENSOR = -1  # where images come from: no device


class Task(NamedTuple):
    """A connected run of work on one device, by the names of the tensors it takes and gives."""

    name: str
    device: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Source(NamedTuple):
    """A tensor, or a device's own piece of one, where it was made."""

    tensor: str
    device: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Who works out what, with some devices lost; a batch is answered under one plan throughout.

    `tasks` are those of the living devices. `sources` has, for each tensor that a task takes or
    that is the answer, what has to be there: one source, or the living devices' pieces. `number`
    tells exports apart: devices refuse tasks of another one than they have loaded.
    """

    number: int
    image: str
    answer: str
    batch: int
    lost: frozenset[int]
    tasks: tuple[Task, ...]
    sources: Mapping[str, tuple[Source, ...]]

    @property
    def final(self) -> Source:
        """Where the answer is made."""
        return self.sources[self.answer][0]


def plan_of(
    tasks: Sequence[Task],
    pieces: Mapping[str, Mapping[int, str]],
    lost: Collection[int],
    *,
    number: int = 0,
    image: str,
    answer: str,
    batch: int,
) -> Plan:
    """A plan without the lost devices.

    `pieces` names, for each tensor that devices share out, the piece that each of them gives. A
    tensor that several living devices make whole is worked out by the first of them alone.
    """
    living = [task for task in tasks if task.device not in lost]
    makers: dict[str, list[Task]] = {}
    for task in living:
        for tensor in task.outputs:
            makers.setdefault(tensor, []).append(task)
    shared = {name for of_device in pieces.values() for name in of_device.values()}
    kept = tuple(
        task
        for task in living
        if any(tensor in shared or makers[tensor][0] is task for tensor in task.outputs)
    )
    sources: dict[str, tuple[Source, ...]] = {image: (Source(image, SENSOR),)}
    for tensor, of_device in pieces.items():
        alive = [device for device in of_device if device not in lost]
        sources[tensor] = tuple(Source(of_device[device], device) for device in alive)
    for tensor, (first, *_) in makers.items():
        if tensor not in shared:
            sources[tensor] = (Source(tensor, first.device),)
    return Plan(number, image, answer, batch, frozenset(lost), kept, sources)


@dataclass(eq=False)
class Batch:
    """Images under way together. `refs` are to tensors that are there, or will be.

    `held` has the tensors, whole, that each device has from its finished tasks; to keep those that
    its other tasks read is its own business (`device.Runnable`).
    """

    number: int
    requests: list[Request]
    plan: Plan
    refs: dict[Source, Any]
    held: dict[int, set[str]] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)  # tasks by their place in the plan
    waiting: dict[Any, int] = field(default_factory=dict)  # reference -> task that will make it

    @property
    def there(self) -> set[Source]:
        """What has been made, or has failed."""
        unmade = {
            Source(tensor, self.plan.tasks[place].device)
            for place in self.waiting.values()
            for tensor in self.plan.tasks[place].outputs
        }
        return set(self.refs) - unmade

    @property
    def is_through(self) -> bool:
        """Whether the answer is there."""
        return self.plan.final in self.there

    def ready(self) -> Iterator[tuple[int, Task, list[Source]]]:
        """Tasks whose inputs are all there, with those to be sent; each is given out once."""
        there = self.there
        for place, task in enumerate(self.plan.tasks):
            if place in self.begun:
                continue
            needed = self._to_send(task)
            if there.issuperset(needed):
                self.begun.add(place)
                yield place, task, needed

    def give_out(self, place: int, refs: Sequence[Any]) -> None:
        """The task is under way; these will hold its outputs."""
        task = self.plan.tasks[place]
        sources = [Source(tensor, task.device) for tensor in task.outputs]
        self.refs.update(zip(sources, refs, strict=True))
        self.waiting[refs[0]] = place

    def finished(self, ref: Any) -> None:
        """A task has been done, or has failed: its device has what it read and made."""
        task = self.plan.tasks[self.waiting.pop(ref)]
        whole = {tensor for tensor in task.outputs if tensor in self.plan.sources}
        self.held.setdefault(task.device, set()).update(task.inputs, whole)

    def forget(self) -> None:
        """Let go of what no task reads any more: where it lies, its memory is free again."""
        waited = (t for place, t in enumerate(self.plan.tasks) if place not in self.begun)
        needed = {source for task in waited for source in self._to_send(task)}
        self.refs = {s: r for s, r in self.refs.items() if s in needed or s == self.plan.final}

    def _to_send(self, task: Task) -> list[Source]:
        """What a task reads and its device has not got yet."""
        missing = (tensor for tensor in task.inputs if tensor not in self.held.get(task.device, ()))
        return [each for tensor in missing for each in self.plan.sources[tensor]]
