"""Which layer makes each value, and which layers need it: the tensors that cross devices."""

from collections.abc import Mapping, Sequence
from math import prod

from afpjax.network.layers import Tensor
from afpjax.network.program import Equation, LayerCall, Value, reads

INPUT = -1


def tensors(
    steps: Sequence[Equation | LayerCall], image: Value, shapes: Mapping[Value, tuple[int, ...]]
) -> tuple[Tensor, ...]:
    """The tensors between layers, in the order they are made.

    Every value lives where a layer runs. A step with one living operand runs where that lives; a
    join runs where its last-computed operand lives and needs the others sent there.
    """
    home: dict[Value, int] = {image: INPUT}
    consumers: dict[Value, set[int]] = {}
    index = 0
    for step in steps:
        operands = [value for value in reads(step) if value in home]
        if isinstance(step, LayerCall):
            here, index = index, index + 1
        elif operands:
            here = max(home[value] for value in operands)
        else:  # a broadcast of a parameter: the same everywhere
            continue
        for value in operands:
            consumers.setdefault(value, set()).add(here)
        home.update(dict.fromkeys(step.outputs, here))
    sent = ((value, users - {home[value]}) for value, users in consumers.items())
    return tuple(
        Tensor(home[value], tuple(sorted(users)), prod(shapes[value]))
        for value, users in sorted(sent)
        if users
    )
