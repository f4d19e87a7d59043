"""A program cut into stages, so that runs which agree on some layers can share their work.

Two runs that treat the same layers alike hold the same values wherever only these layers came
before. So steps that depend on the same set of layers form one stage: a layer with what follows it
alone (its bias, ReLU, pooling), or a join (a residual sum, a concatenation) of branches that know
nothing of each other. A value then depends on its stage and on what its ancestors met, and a
branch beside a layer is never run again because of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from afpjax.network.program import Equation, LayerCall, Program, Value, reads

Step = Equation | LayerCall


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
    after = _ancestors(program)
    groups: dict[int, list[Step]] = {0: []}
    for step in program.steps:
        if (layers := after.get(step.outputs[0])) is not None:
            groups.setdefault(layers, []).append(step)
    order = _in_order(groups, after)
    return tuple(_stage(program, groups, after, order, layers) for layers in order)


def _ancestors(program: Program) -> dict[Value, int]:
    """For every value that depends on the image, the set of layers that it depends on (bits)."""
    after, number = {program.image: 0}, 0
    for step in program.steps:
        known = [after[value] for value in reads(step) if value in after]
        if not known:  # parameters alone: the same everywhere
            continue
        layers = 0
        for each in known:
            layers |= each
        if isinstance(step, LayerCall):
            layers, number = layers | 1 << number, number + 1
        after.update(dict.fromkeys(step.outputs, layers))
    return after


def _in_order(groups: Mapping[int, list[Step]], after: Mapping[Value, int]) -> list[int]:
    """The groups, parents first; otherwise as the program begins them.

    The logits' is the last: every step of a program leads to them.
    """
    parents = {
        layers: {after[v] for step in steps for v in reads(step) if v in after} - {layers}
        for layers, steps in groups.items()
    }
    order: dict[int, None] = {}
    while len(order) < len(groups):
        ready = (each for each in groups if each not in order and parents[each] <= order.keys())
        order[next(ready)] = None
    return list(order)


def _stage(
    program: Program,
    groups: Mapping[int, list[Step]],
    after: Mapping[Value, int],
    order: list[int],
    layers: int,
) -> Stage:
    steps = tuple(_with_parameters(program, groups[layers], after))
    made = dict.fromkeys(value for step in steps for value in step.outputs)
    needed = dict.fromkeys(value for step in steps for value in reads(step) if value not in made)
    inputs = tuple(value for value in needed if after.get(value, layers) != layers)
    others = (s for key, each in groups.items() if key != layers for s in each)
    wanted = {value for step in others for value in reads(step)}
    wanted |= {program.output} if isinstance(program.output, Value) else set()
    own = [program.image, *made] if layers == 0 else made
    calls = [step.layer for step in steps if isinstance(step, LayerCall)]
    return Stage(
        steps,
        program.graph.layers.index(calls[0]) if calls else None,
        tuple(order.index(after[value]) for value in inputs),
        inputs,
        tuple(value for value in own if value in wanted and value in after),
        tuple(value for value in needed if value in program.constants),
    )


def _with_parameters(
    program: Program, steps: list[Step], after: Mapping[Value, int]
) -> Iterator[Step]:
    """A group's steps in order, and those on parameters alone that they read, again."""
    makers = {v: step for step in program.steps for v in step.outputs if v not in after}
    wanted: set[int] = set()
    pending = list(steps)
    while pending:
        step = pending.pop()
        wanted.add(id(step))
        pending += [makers[value] for value in reads(step) if value in makers]
    return (step for step in program.steps if id(step) in wanted)
