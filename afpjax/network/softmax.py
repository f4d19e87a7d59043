"""Softmax: what is subtracted equals what it is subtracted from, and the last is not judged.

softmax(x) = exp(x - max x) / Σ exp(x - max x) holds as long as both x are the same numbers. A
compiler that works x out twice, in two fused loops, rounds it differently in each: at logits of
10^9, which faults in high bits make, exp of the difference is infinite and the answer NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from afpjax.network.flatten import Inliner
from afpjax.network.program import Equation, LayerCall, Operand, Program, Value, live

Step = Equation | LayerCall
Makers = Mapping[Any, Step]
Scored = TypeVar("Scored", bound=Any)  # a `Network`, or a `Quantized`

#: What moves elements about, or repeats what is the same for all classes.
_MOVES = ("reshape", "squeeze", "slice", "transpose", "convert_element_type", "copy")
_SPREADS = (*_MOVES, "broadcast_in_dim", "stop_gradient")


def never_above_maximum(steps: Sequence[Step], inliner: Inliner) -> list[Step]:
    """Write x - max x as min(x, max x) - max x, which is the same and never above 0.

    The comparison needs x rounded, as the maximum is; without it x = a · b and the subtraction are
    one fused operation, of the product before it is rounded. Written as a choice, since a minimum
    shares its derivative out where both are equal.
    """
    makers: Makers = {value: step for step in steps for value in step.outputs}
    made: list[Step] = []
    for step in steps:
        if isinstance(step, Equation) and _below_maximum(step, makers):
            avals: Any = [var.aval for var in step.eqn.invars]
            shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
            before = len(inliner.equations)
            (x,) = inliner.run(jax.make_jaxpr(_no_more)(*shapes).jaxpr, step.inputs)
            made.extend(inliner.equations[before:])
            step = replace(step, inputs=(x, step.inputs[1]))
        made.append(step)
    return made


def _no_more(x: Array, most: Array) -> Array:
    return jnp.where(x > most, most, x)


def _below_maximum(step: Equation, makers: Makers) -> bool:
    """Whether an equation subtracts from a value that value's maximum."""
    if step.primitive.name != "sub":
        return False
    x, most = step.inputs
    maximum = _behind(most, makers, "max")  # of the maximum and -inf
    most = most if maximum is None else _value_of(maximum.inputs)
    taken = _behind(most, makers, "reduce_max")
    return taken is not None and isinstance(x, Value) and taken.inputs[0] == x


def before_softmax(network: Scored) -> Scored:
    """The network up to a softmax, or its logarithm, that ends it: the same classes, and logits.

    What is judged, scored or differentiated are these: probabilities lose what tells classes apart
    where they are near 0 and 1, and a softmax of them is no distribution of the network's. A
    network that ends otherwise is itself.
    """
    program = _before_softmax(network.program)
    return network if program is network.program else replace(network, program=program)


@lru_cache(maxsize=64)  # programs are told apart by identity
def _before_softmax(program: Program) -> Program:
    makers: Makers = {value: step for step in program.steps for value in step.outputs}
    moves, value = _back(program.output, makers, _MOVES)
    logits = None if value is None else _logits(value, makers)
    if logits is None:
        return program
    replaced: list[Step] = []
    for move in reversed(moves):
        replaced.append(replace(move, inputs=(logits, *move.inputs[1:])))
        logits = move.outputs[0]
    gone = {id(move) for move in moves}
    steps = [step for step in program.steps if id(step) not in gone]
    return replace(program, steps=tuple(live([*steps, *replaced], logits)), output=logits)


def _back(
    value: Operand | None, makers: Makers, through: Sequence[str]
) -> tuple[list[Equation], Operand | None]:
    """What lies behind such equations, and these, the last one first."""
    passed: list[Equation] = []
    while (step := _equation(value, makers, *through)) is not None:
        passed.append(step)
        value = step.inputs[0]
    return passed, value


def _logits(value: Operand, makers: Makers) -> Value | None:
    """What a value is the softmax over all classes of, or its logarithm; None where it is none."""
    if (end := _equation(value, makers, "div", "sub")) is None:
        return None
    first, total = end.inputs
    if end.primitive.name == "div":  # exp(z) / Σ exp(z)
        shifted = _of(_equation(first, makers, "exp"))
    else:  # z - log Σ exp(z)
        shifted, total = first, _of(_behind(total, makers, "log"))
    summed = _behind(total, makers, "reduce_sum")
    if summed is None or not _over_all(summed):
        return None
    if shifted is None or _of(_equation(summed.inputs[0], makers, "exp")) != shifted:
        return None
    return _unshifted(shifted, makers)


def _of(step: Equation | None) -> Operand | None:
    """What an equation of one operand is of."""
    return None if step is None else step.inputs[0]


def _unshifted(shifted: Operand, makers: Makers) -> Value | None:
    """x of x - max x; what no maximum is taken from is itself."""
    difference = _equation(shifted, makers, "sub")
    if difference is not None:
        chosen = _equation(difference.inputs[0], makers, "select_n")
        x = difference.inputs[0] if chosen is None else chosen.inputs[1]
        if _below_maximum(replace(difference, inputs=(x, difference.inputs[1])), makers):
            shifted = x
    return shifted if isinstance(shifted, Value) else None


def _value_of(operands: Sequence[Operand]) -> Operand:
    return next((each for each in operands if isinstance(each, Value)), operands[0])


def _over_all(summed: Equation) -> bool:
    """Whether a sum is over all elements but axes of one."""
    shape: Any = summed.eqn.invars[0].aval
    return prod(shape.shape[axis] for axis in summed.params["axes"]) == prod(shape.shape)


def _behind(operand: Operand | None, makers: Makers, name: str) -> Equation | None:
    return _equation(_back(operand, makers, _SPREADS)[1], makers, name)


def _equation(operand: Operand | None, makers: Makers, *names: str) -> Equation | None:
    step = makers.get(operand) if isinstance(operand, Value) else None
    return step if isinstance(step, Equation) and step.primitive.name in names else None
