"""What a link carries: the values that stages read from one another, each sent by its maker's home.

A stage with a layer runs on that layer's device. A join runs where its last-computed operand lives,
as in `graph.tensors` and so in the cost model. A value crosses to every other device that one of
its readers runs on; what depends on the network's input alone is wherever it is needed.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from afpjax.network.graph import INPUT
from afpjax.network.program import LayerCall, Program, Value, reads
from afpjax.network.stages import Stage, stages


class Wire(NamedTuple):
    """One value that a stage reads from another; several may carry one value."""

    stage: int  # who reads it
    maker: int  # the layer on whose device it is made; `INPUT` for the network's input
    reader: int  # the layer on whose device it is read
    number: int  # of the value, among all that stages read, as the program makes them
    word: int  # the layer whose input step its word has
    by_layer: bool  # whether its maker's stage has a layer, and is no join


@lru_cache(maxsize=32)
def wires(program: Program) -> tuple[Wire, ...]:
    """What every stage reads, stage by stage in the order of their `inputs`.

    A value crosses as the word of the first layer that reads it, itself or through steps between
    layers; of the last layer, if none does.
    """
    cut = stages(program)
    homes = _homes(cut)
    values = sorted({value for stage in cut for value in stage.inputs})
    numbers = {value: number for number, value in enumerate(values)}
    words = {value: _first_reader(program, value) for value in values}
    return tuple(
        Wire(
            place,
            homes[parent],
            homes[place],
            numbers[value],
            words[value],
            cut[parent].layer is not None,
        )
        for place, stage in enumerate(cut)
        for parent, value in zip(stage.parents, stage.inputs, strict=True)
    )


@lru_cache(maxsize=32)
def ends(program: Program) -> tuple[int, ...]:
    """For every stage, where in `wires` what it reads ends."""
    readers = [wire.stage for wire in wires(program)]
    return tuple(bisect_right(readers, place) for place in range(len(stages(program))))


def _homes(cut: Sequence[Stage]) -> list[int]:
    """The layer on whose device each stage runs: a join's is the latest that its operands have."""
    homes: list[int] = []
    for stage in cut:
        of_operands = max((homes[parent] for parent in stage.parents), default=INPUT)
        homes.append(of_operands if stage.layer is None else stage.layer)
    return homes


def _first_reader(program: Program, value: Value) -> int:
    """The first layer that reads what is made of a value, or else the last layer."""
    made, layer = {value}, 0
    for step in program.steps:
        if made.intersection(reads(step)):
            if isinstance(step, LayerCall):
                return layer
            made.update(step.outputs)
        layer += isinstance(step, LayerCall)
    return layer - 1
