"""What a set of fault evaluations has in common: each distinct value once, none longer than needed.

A *node* is one run of one stage: equal nodes have equal stages, have equal faults in their layer
and equal parents, and hold the same values bit for bit. Without faults in its layer a node
does not even depend on the trial, so the clean values that a sweep starts from are there once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from afpjax.faults.sites import FaultSites
from afpjax.network.stages import Stage

Trials = tuple[int, ...]  # one for each device


class StageFaults(NamedTuple):
    """A layer's faults: thresholds (bytes of uint32) or sites; empty where there are none.

    `outputs`: by neuron, the device whose read copy of the inputs it is computed from (bytes of
    int8), -1 where it is lost, on all devices or device by device; empty where there is one copy
    and none is lost. `how`: what faults at sites do to their bits.
    """

    weights: bytes | FaultSites = b""
    inputs: bytes | FaultSites = b""
    outputs: bytes = b""
    how: str = "flip"

    @property
    def drawn(self) -> bool:
        """Whether what happens depends on the trial."""
        return any(isinstance(part, bytes) and part for part in (self.weights, self.inputs))

    @property
    def order(self) -> tuple[bool, bytes, bytes, bytes, str]:
        """A total order, the faulty before the clean.

        Calls of several nodes then begin with those whose parents ran together.
        """
        weights, inputs = (p if isinstance(p, bytes) else p.key for p in self[:2])
        return self == CLEAN, weights, inputs, self.outputs, self.how


CLEAN = StageFaults()


class PlanRow(NamedTuple):
    """One network with one set of faults, in one trial on each device."""

    trials: Trials
    faults: tuple[StageFaults, ...]  # by layer
    #: By stage: thresholds of what it reads from others; none where the link does nothing.
    links: tuple[bytes, ...] = ()


class Node(NamedTuple):
    """One stage of some rows; its number is its place in the plan."""

    stage: int
    faults: StageFaults
    trials: Trials  # none, where nothing in the stage is drawn
    parents: tuple[int, ...]
    links: bytes = b""  # thresholds (uint32) of what it reads across a link; empty: no faults


class Kernel(NamedTuple):
    """A layer's weights as a trial has them."""

    layer: int
    faults: bytes | FaultSites
    trials: Trials
    how: str = "flip"
    image: int = 0  # where every image has a kernel of its own


@dataclass(frozen=True)
class Plan:
    """The nodes that some rows need, parents first, and how often each is read."""

    rows: tuple[PlanRow, ...]
    nodes: tuple[Node, ...]
    logits: tuple[int, ...]  # by row: the node that makes them
    reads: tuple[int, ...]  # by node: how many nodes read it; none the logits'
    kernels: Mapping[Kernel, int]  # how many nodes run with it

    @classmethod
    def of(cls, stages: Sequence[Stage], rows: Sequence[PlanRow]) -> "Plan":
        """Plan for rows in the order of `in_order`, so that what they share lies close together."""
        numbers: dict[Node, int] = {}
        logits = []
        for row in rows:
            own: list[int] = []
            for index, stage in enumerate(stages):
                node = _node(index, stage, row, own)
                own.append(numbers.setdefault(node, len(numbers)))
            logits.append(own[-1])
        nodes = tuple(numbers)
        reads = [0] * len(nodes)
        for node in nodes:
            for parent in set(node.parents):
                reads[parent] += 1
        kernels = Counter(kernel for node in nodes if (kernel := kernel_of(stages, node)))
        return cls(tuple(rows), nodes, tuple(logits), tuple(reads), kernels)


def _node(index: int, stage: Stage, row: PlanRow, parents: Sequence[int]) -> Node:
    faults = CLEAN if stage.layer is None else row.faults[stage.layer]
    links = row.links[index] if row.links else b""
    trials = row.trials if faults.drawn or links else ()
    return Node(index, faults, trials, tuple(parents[parent] for parent in stage.parents), links)


def kernel_of(stages: Sequence[Stage], node: Node) -> Kernel | None:
    """The kernel that a node runs with; None for the network's own, or no layer."""
    layer, faults = stages[node.stage].layer, node.faults.weights
    if layer is None or not faults:
        return None
    at_sites = isinstance(faults, FaultSites)
    return Kernel(layer, faults, () if at_sites else node.trials, node.faults.how)


def in_order(rows: Sequence[PlanRow]) -> list[int]:
    """Numbers of the rows, trial by trial, those with long common beginnings next to each other.

    What crosses a link follows from the devices, and so mostly from the layers' faults.
    """
    keys = [
        (trials, tuple(f.order for f in faults), tuple((not link, link) for link in links))
        for trials, faults, links in rows
    ]
    return sorted(range(len(rows)), key=keys.__getitem__)


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
    calls = []
    for stage, kernel in sorted(alike, key=lambda key: key[0]):
        numbers = alike[stage, kernel]
        for start in range(0, len(numbers), slots):
            part = tuple(numbers[start : start + slots])
            # Too few to be worth a call that costs as much as a full one.
            parts = [part] if len(part) * 4 > slots else [(number,) for number in part]
            calls += [Group(stage, numbers) for numbers in parts]
    return calls


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
        for number in (n for node in call.nodes for n in released(plan, node, left)):
            alive[maker[number]] -= 1
            held -= 0 if alive[maker[number]] else outputs(maker[number])
    return most


def released(plan: Plan, number: int, left: list[int]) -> Iterator[int]:
    """The nodes whose values nobody needs once node `number` has run; counts `left` down.

    A row's logits are measured at once and read by no node.
    """
    if not plan.reads[number]:
        yield number
    for parent in set(plan.nodes[number].parents):
        left[parent] -= 1
        if not left[parent]:
            yield parent
