"""What a set of fault evaluations has in common: each distinct value once, none longer than needed.

A *node* is one run of one stage: equal nodes have equal stages, meet equal faults in their layer
and have equal parents, and hold the same values bit for bit. Without faults in its layer a node
does not even depend on the trial, so the clean values that a sweep starts from are there once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from afpjax.network.stages import Stage

Trials = tuple[int, ...]  # one for each device


class Hits(NamedTuple):
    """Faults at given places of one operand, by device [D, n] or by device and image [D, I, n]."""

    how: str
    places: int  # n
    elements: bytes  # of uint32, beyond the operand where there are fewer places
    words: bytes  # of int32: which bits


class Strike(NamedTuple):
    """What a layer meets: thresholds (bytes of uint32) or places; empty where nothing is struck.

    `outputs`: by neuron, whose read copy of the inputs its answer comes from (bytes of int8), or -1
    where it is lost, on all devices or device by device; empty where there is one copy and none is
    lost.
    """

    weights: bytes | Hits = b""
    inputs: bytes | Hits = b""
    outputs: bytes = b""

    @property
    def drawn(self) -> bool:
        """Whether what happens depends on the trial."""
        return any(isinstance(each, bytes) and each for each in (self.weights, self.inputs))


CLEAN = Strike()


class Row(NamedTuple):
    """One network under one set of faults, in one trial on each device."""

    trials: Trials
    strikes: tuple[Strike, ...]  # by layer
    wires: tuple[
        bytes, ...
    ] = ()  # by stage: thresholds of what it reads from others; none: no link


class Node(NamedTuple):
    """One stage of some rows; its number is its place in the plan."""

    stage: int
    strike: Strike
    trials: Trials  # none, where the stage meets nothing that is drawn
    parents: tuple[int, ...]
    wires: bytes = b""  # thresholds (uint32) of what it reads across a link; empty: nothing struck


class Kernel(NamedTuple):
    """A layer's weights as a trial has them."""

    layer: int
    strike: bytes | Hits
    trials: Trials
    image: int = 0  # where every image has a kernel of its own


@dataclass(frozen=True)
class Plan:
    """The nodes that some rows need, parents first, and how often each is read."""

    rows: tuple[Row, ...]
    nodes: tuple[Node, ...]
    answers: tuple[int, ...]  # by row: the node that makes its logits
    reads: tuple[int, ...]  # by node: how many nodes read it; none that of an answer
    kernels: Mapping[Kernel, int]  # how many nodes run with it

    @classmethod
    def of(cls, stages: Sequence[Stage], rows: Sequence[Row]) -> "Plan":
        """Plan for rows in the order of `in_order`, so that what they share lies close together."""
        numbers: dict[Node, int] = {}
        answers = []
        for row in rows:
            mine: list[int] = []
            for place, stage in enumerate(stages):
                node = _node(place, stage, row, mine)
                mine.append(numbers.setdefault(node, len(numbers)))
            answers.append(mine[-1])
        nodes = tuple(numbers)
        reads = [0] * len(nodes)
        for node in nodes:
            for parent in set(node.parents):
                reads[parent] += 1
        kernels = Counter(kernel for node in nodes if (kernel := kernel_of(stages, node)))
        return cls(tuple(rows), nodes, tuple(answers), tuple(reads), kernels)


def _node(place: int, stage: Stage, row: Row, mine: Sequence[int]) -> Node:
    strike = CLEAN if stage.layer is None else row.strikes[stage.layer]
    parents = tuple(mine[parent] for parent in stage.parents)
    wires = row.wires[place] if row.wires else b""
    return Node(place, strike, row.trials if strike.drawn or wires else (), parents, wires)


def kernel_of(stages: Sequence[Stage], node: Node) -> Kernel | None:
    """The kernel that a node runs with; None for the network's own, or no layer."""
    layer, strike = stages[node.stage].layer, node.strike.weights
    if layer is None or not strike:
        return None
    return Kernel(layer, strike, () if isinstance(strike, Hits) else node.trials)


def in_order(rows: Sequence[Row]) -> list[int]:
    """Places of the rows, trial by trial, those with long common beginnings next to each other.

    What crosses a link follows from the devices, and so mostly from what the layers meet.
    """

    def key(place: int) -> tuple:
        trials, strikes, wires = rows[place]
        # What is struck before what is not: calls of several nodes then begin with those whose
        # parents ran together.
        on_the_way = tuple((not each, each) for each in wires)
        return trials, tuple((each == CLEAN, repr(each)) for each in strikes), on_the_way

    return sorted(range(len(rows)), key=key)


class Group(NamedTuple):
    """Nodes of one stage and kernel that run in one call, each on images of its own."""

    stage: int
    nodes: tuple[int, ...]


def groups(plan: Plan, stages: Sequence[Stage], slots: int) -> list[Group]:
    """The calls that run a plan, in order; one call has room for `slots` nodes.

    With one slot, row by row, so that few values are held at a time. With more, stage by stage:
    nodes that share a kernel run together as far as they fill a call.
    """
    if slots == 1:
        return [Group(node.stage, (number,)) for number, node in enumerate(plan.nodes)]
    alike: dict[tuple[int, Kernel | None], list[int]] = {}
    for number, node in enumerate(plan.nodes):
        alike.setdefault((node.stage, kernel_of(stages, node)), []).append(number)
    found = []
    for stage, kernel in sorted(alike, key=lambda each: each[0]):
        numbers = alike[stage, kernel]
        for start in range(0, len(numbers), slots):
            part = tuple(numbers[start : start + slots])
            # Too few to be worth a call that costs as much as a full one.
            parts = [part] if len(part) * 4 > slots else [(number,) for number in part]
            found += [Group(stage, each) for each in parts]
    return found


def peak_bytes(
    plan: Plan,
    calls: Sequence[Group],
    outputs: Callable[[Group], int],
    temporary: Callable[[Group], int],
) -> int:
    """The most memory, bytes, that the values of a plan take at once while its calls run.

    What one call makes is held until the last of its nodes has been read for the last time.
    """
    left, held, most = list(plan.reads), 0, 0
    maker = {number: call for call in calls for number in call.nodes}
    alive = {call: len(call.nodes) for call in calls}
    for call in calls:
        held += outputs(call)
        most = max(most, held + temporary(call))
        for number in (n for each in call.nodes for n in released(plan, each, left)):
            alive[maker[number]] -= 1
            held -= 0 if alive[maker[number]] else outputs(maker[number])
    return most


def released(plan: Plan, number: int, left: list[int]) -> Iterator[int]:
    """The nodes whose values nobody needs once node `number` has run; counts `left` down.

    What answers a row is judged at once and read by no node.
    """
    if not plan.reads[number]:
        yield number
    for parent in set(plan.nodes[number].parents):
        left[parent] -= 1
        if not left[parent]:
            yield parent
