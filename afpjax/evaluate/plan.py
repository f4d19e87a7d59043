"""What rows have in common: each distinct value once, none kept longer than needed.

A *node* is one run of one stage: equal nodes have equal stages, equal faults in their layer and
equal parents, and hold the same values bit for bit. Without faults in its layer a node does not
even depend on the trial, so the clean values that a sweep starts from are there once.

A *call* runs nodes of one stage and leaves their values in one *table*. Where values are large, a
node is a call (`one_by_one`), row by row, so that few are held at a time and what a call reads is
still in the cache. Where they are small, all of a stage's nodes are one call (`together`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from afpjax.evaluate.rows import FaultRows
from afpjax.network.stages import Stage

_MOST = 2**62


@dataclass(frozen=True, eq=False)
class StageNodes:
    """The distinct runs of one stage, N of them, in the order of the rows that need them first."""

    rows: Int[np.ndarray, "N"]  # a row that has it, the first one
    parents: Int[np.ndarray, "N parents"]  # nodes of the stages that it reads
    kernels: Int[np.ndarray, "N"]  # 0 for the layer's own kernel, k for faulty kernel k - 1
    kernel_rows: Int[np.ndarray, "K"]  # for each faulty kernel, a row that has it


@dataclass(frozen=True, eq=False)
class Plan:
    """The nodes that some rows need, and which of the last stage's every row reads."""

    rows: FaultRows
    stages: tuple[StageNodes, ...]
    of_row: Int[np.ndarray, "R"]

    @classmethod
    def of(cls, stages: Sequence[Stage], rows: FaultRows) -> "Plan":
        """Plan for rows in the order of `in_order`, so that what they share lies close together."""
        nodes: list[StageNodes] = []
        of_rows: list[np.ndarray] = []
        for number, stage in enumerate(stages):
            parents = [of_rows[parent] for parent in stage.parents]
            made, own = _nodes(number, stage, rows, parents)
            nodes.append(made)
            of_rows.append(own)
        return cls(rows, tuple(nodes), of_rows[-1])


def _nodes(
    number: int, stage: Stage, rows: FaultRows, parents: Sequence[Int[np.ndarray, "R"]]
) -> tuple[StageNodes, Int[np.ndarray, "R"]]:
    """The nodes of one stage, and which of them every row has."""
    faults = np.zeros(len(rows), np.int64)
    drawn, kernels = faults.astype(bool), faults
    weights_drawn = False
    if stage.layer is not None:
        faults, table = rows.faults[:, stage.layer], rows.tables[stage.layer]
        drawn = table.drawn[faults]
        kernels = 0 * faults if rows.exchanged else table.of_weights[faults]
        weights_drawn = table.drawn_weights
    links = rows.links[:, number] if rows.links.shape[1] else np.zeros_like(faults)
    trials = rows.trials.astype(np.int64) + 1
    of_row, firsts = _numbers([*parents, faults, links, np.where(drawn | (links > 0), trials, 0)])
    of_kernel, kernel_rows = np.zeros(len(firsts), np.int64), firsts[:0]
    faulty = kernels[firsts] > 0
    if faulty.any():
        own = firsts[faulty]
        of_faulty, first = _numbers([kernels[own], trials[own] if weights_drawn else 0 * own])
        of_kernel[faulty], kernel_rows = 1 + of_faulty, own[first]
    read = np.stack(parents, axis=1)[firsts] if parents else np.zeros((len(firsts), 0), np.int64)
    return StageNodes(firsts, read, of_kernel, kernel_rows), of_row


def _numbers(
    columns: Sequence[Int[np.ndarray, "R"]],
) -> tuple[Int[np.ndarray, "R"], Int[np.ndarray, "N"]]:
    """Equal numbers for rows that agree in all columns, counted as they come, and the first row of
    each number. What stands in the columns is not negative."""
    numbers, values = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        count = int(column.max(initial=0)) + 1
        if values * count > _MOST:  # as few values as there are rows are left of many
            _, numbers = np.unique(numbers, return_inverse=True)
            values = len(numbers)
        numbers, values = numbers * count + column, values * count
    _, first, numbers = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[numbers], first[order]


#: A stage, and the number of the table among those that its calls make.
TableKey = tuple[int, int]


class Call(NamedTuple):
    """Nodes of one stage that run in one call, and the tables that nobody needs after it."""

    key: TableKey
    nodes: np.ndarray  # int [n]
    reads: tuple[TableKey, ...]  # by parent
    places: np.ndarray  # of what each node reads, in these tables, int [n, parents]
    done: tuple[TableKey, ...] = ()

    @property
    def stage(self) -> int:
        return self.key[0]


def one_by_one(plan: Plan, stages: Sequence[Stage]) -> list[Call]:
    """Every node is a call, row by row; it comes with the first row that needs it."""
    counts = [len(nodes.rows) for nodes in plan.stages]
    of_stage = np.repeat(np.arange(len(counts)), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    order = np.lexsort((of_stage, np.concatenate([nodes.rows for nodes in plan.stages])))
    alone = [np.arange(count)[:, None] for count in counts]
    reads = [
        [tuple(zip(stage.parents, own, strict=True)) for own in nodes.parents.tolist()]
        for stage, nodes in zip(stages, plan.stages, strict=True)
    ]
    places = [np.zeros((1, len(stage.parents)), int) for stage in stages]
    return _released(
        [
            Call((stage, node), alone[stage][node], reads[stage][node], places[stage])
            for stage, node in zip(of_stage[order].tolist(), numbers[order].tolist(), strict=True)
        ]
    )


def together(plan: Plan, stages: Sequence[Stage], slots_of: Sequence[np.ndarray]) -> list[Call]:
    """Every stage is a call; `slots_of` says where in its table each node of a stage lies."""
    calls = []
    for number, (stage, nodes) in enumerate(zip(stages, plan.stages, strict=True)):
        lie = [slots_of[parent] for parent in stage.parents]
        places = [own[nodes.parents[:, which]] for which, own in enumerate(lie)]
        reads = tuple((parent, 0) for parent in stage.parents)
        read = np.stack(places, axis=1) if places else nodes.parents
        calls.append(Call((number, 0), np.arange(len(nodes.rows)), reads, read))
    return _released(calls)


def _released(calls: Sequence[Call]) -> list[Call]:
    """With what is needed for the last time in each call; logits are measured at once."""
    last: dict[TableKey, int] = {}
    for place, call in enumerate(calls):
        last[call.key] = place
        for key in call.reads:
            last[key] = place
    done: list[list[TableKey]] = [[] for _ in calls]
    for key, place in last.items():
        done[place].append(key)
    return [Call(*call[:4], tuple(own)) for call, own in zip(calls, done, strict=True)]


def slots(kernels: Int[np.ndarray, "N"], size: int, room: int) -> tuple[Int[np.ndarray, "N"], int]:
    """Where nodes lie, those of one kernel next to each other, and how many go into a tile.

    Tiles of `size` nodes share a kernel each, and the last of a kernel may be part empty; where
    that would not fit in `room` slots, or waste most of them, every node is a tile.
    """
    order = np.argsort(kernels, kind="stable")
    place = np.empty_like(order)
    _, counts = np.unique(kernels, return_counts=True)
    tiles = -(-counts // size)
    if size == 1 or tiles.sum() * size > min(room, 2 * len(kernels)):
        place[order] = np.arange(len(order))
        return place, 1
    starts = np.repeat((np.cumsum(tiles) - tiles) * size, counts)
    within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    place[order] = starts + within
    return place, size


def peak_bytes(
    calls: Sequence[Call], outputs: Callable[[Call], int], temporary: Callable[[Call], int]
) -> int:
    """The most memory, bytes, that tables take at once while calls run."""
    sizes: dict[TableKey, int] = {}
    most = total = 0
    for call in calls:
        sizes[call.key] = outputs(call)
        total += sizes[call.key]
        most = max(most, total + temporary(call))
        for key in call.done:
            total -= sizes.pop(key)
    return most
