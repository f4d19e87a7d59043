"""A program cut into stages, where each runs, and what passes between them.

Two runs that treat the same layers alike hold the same values wherever only these layers came
before. So steps that depend on the same set of layers form one stage: a layer with what follows it
alone (its bias, ReLU, pooling), or a join (a residual sum, a concatenation) of branches that know
nothing of each other. A value then depends on its stage and on what happened to its ancestors, and
a branch beside a layer is never run again because of it.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import prod
from operator import or_
from typing import NamedTuple

from afpjax.network.layers import INPUT, Tensor
from afpjax.network.program import LayerCall, Program, Step, Value, reads


def home_layers(steps: Sequence[Step], image: Value) -> dict[Value, int]:
    """The layer on whose device each value is made, for all that depends on the image.

    The one rule of where a step runs: with the last layer that it depends on. So what follows a
    layer runs on that layer's device, a join (residual sum, concatenation) where its last-computed
    operand is, and what no layer comes before has the home `INPUT`: it is wherever it is needed.
    """
    home, layer = {image: INPUT}, INPUT
    for step in steps:
        operands = [home[value] for value in reads(step) if value in home]
        if isinstance(step, LayerCall):
            layer += 1
            home[step.output] = layer
        elif operands:  # otherwise made of parameters alone: the same everywhere
            home.update(dict.fromkeys(step.outputs, max(operands)))
    return home


def tensors(
    steps: Sequence[Step], image: Value, shapes: Mapping[Value, tuple[int, ...]]
) -> tuple[Tensor, ...]:
    """The tensors between layers, in the order they are made, by the rule of `home_layers`."""
    home = home_layers(steps, image)
    consumers: dict[Value, set[int]] = {}
    for step in steps:
        if (here := home.get(step.outputs[0])) is not None:
            for value in reads(step):
                if value in home:
                    consumers.setdefault(value, set()).add(here)
    sent = ((value, users - {home[value]}) for value, users in consumers.items())
    return tuple(
        Tensor(home[value], tuple(sorted(users)), prod(shapes[value]))
        for value, users in sorted(sent)
        if users
    )


@dataclass(frozen=True, eq=False)
class Stage:
    """Steps that run together; hashed by identity, so a static argument."""

    steps: tuple[Step, ...]
    layer: int | None  # its place among the program's layers; None for a join and the first stage
    parents: tuple[int, ...]  # the stages that make `inputs`, in the order of `inputs`
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]  # what later stages, or whoever wants the logits, read
    constants: tuple[Value, ...]  # of the program's, those that these steps read


def stages(program: Program) -> tuple[Stage, ...]:
    """The stages of a program without dead steps (`trace` leaves none), each after its parents.

    The first takes the image. The last has the logits, the program's output, among its outputs.
    """
    ancestors = _ancestors(program)
    groups: dict[int, list[Step]] = {0: []}
    for step in program.steps:
        if (layers := ancestors.get(step.outputs[0])) is not None:
            groups.setdefault(layers, []).append(step)
    order = _in_order(groups, ancestors)
    return tuple(_stage(program, groups, ancestors, order, layers) for layers in order)


def _ancestors(program: Program) -> dict[Value, int]:
    """For every value that depends on the image, the set of layers that it depends on (bits)."""
    ancestors, number = {program.image: 0}, 0
    for step in program.steps:
        known = [ancestors[value] for value in reads(step) if value in ancestors]
        if known:  # else parameters alone: the same everywhere
            layers = reduce(or_, known)
            if isinstance(step, LayerCall):
                layers, number = layers | 1 << number, number + 1
            ancestors.update(dict.fromkeys(step.outputs, layers))
    return ancestors


def _in_order(groups: Mapping[int, list[Step]], ancestors: Mapping[Value, int]) -> list[int]:
    """The groups, parents first; otherwise as the program begins them.

    The logits' is the last: every step of a program leads to them.
    """
    parents = {
        layers: {ancestors[v] for step in steps for v in reads(step) if v in ancestors} - {layers}
        for layers, steps in groups.items()
    }
    order: dict[int, None] = {}
    while len(order) < len(groups):
        ready = (group for group in groups if group not in order and parents[group] <= order.keys())
        order[next(ready)] = None
    return list(order)


def _stage(
    program: Program,
    groups: Mapping[int, list[Step]],
    ancestors: Mapping[Value, int],
    order: list[int],
    layers: int,
) -> Stage:
    steps = tuple(_with_parameters(program, groups[layers], ancestors))
    made = dict.fromkeys(value for step in steps for value in step.outputs)
    needed = dict.fromkeys(value for step in steps for value in reads(step) if value not in made)
    inputs = tuple(value for value in needed if ancestors.get(value, layers) != layers)
    others = (step for group, steps in groups.items() if group != layers for step in steps)
    wanted = {value for step in others for value in reads(step)}
    wanted |= {program.output} if isinstance(program.output, Value) else set()
    own = [program.image, *made] if layers == 0 else made
    calls = [step.layer for step in steps if isinstance(step, LayerCall)]
    return Stage(
        steps,
        program.graph.layers.index(calls[0]) if calls else None,
        tuple(order.index(ancestors[value]) for value in inputs),
        inputs,
        tuple(value for value in own if value in wanted and value in ancestors),
        tuple(value for value in needed if value in program.constants),
    )


def _with_parameters(
    program: Program, steps: list[Step], ancestors: Mapping[Value, int]
) -> Iterator[Step]:
    """A group's steps in order, and those on parameters alone that they read, again."""
    makers = {v: step for step in program.steps for v in step.outputs if v not in ancestors}
    wanted: set[int] = set()
    pending = list(steps)
    while pending:
        step = pending.pop()
        wanted.add(id(step))
        pending += [makers[value] for value in reads(step) if value in makers]
    return (step for step in program.steps if id(step) in wanted)


class Transfer(NamedTuple):
    """One value that a stage reads from another; several may carry one value."""

    stage: int  # who reads it
    maker: int  # the layer on whose device it is made; `INPUT` for the network's input
    reader: int  # the layer on whose device it is read
    number: int  # of the value, among all that stages read, as the program makes them
    word: int  # the layer in whose number format it crosses
    by_layer: bool  # whether its maker's stage has a layer, and is no join


@lru_cache(maxsize=32)
def transfers(program: Program) -> tuple[Transfer, ...]:
    """What a link may carry: all that stages read, stage by stage in the order of their `inputs`.

    A value crosses to every other device that one of its readers runs on, as the word of the first
    layer that reads it, itself or through steps between layers; of the last layer, if none does.
    """
    cut = stages(program)
    home = home_layers(program.steps, program.image)
    homes = [home[stage.outputs[0]] for stage in cut]
    values = sorted({value for stage in cut for value in stage.inputs})
    numbers = {value: number for number, value in enumerate(values)}
    words = {value: _first_reader(program, value) for value in values}
    return tuple(
        Transfer(
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
def transfer_ends(program: Program) -> tuple[int, ...]:
    """For every stage, where in `transfers` what it reads ends."""
    readers = [transfer.stage for transfer in transfers(program)]
    return tuple(bisect_right(readers, place) for place in range(len(stages(program))))


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
