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

from afpjax.network.flatten import Inliner
from afpjax.network.program import Equation, Operand, Program, Step, Value, live

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
    written: list[Step] = []
    for step in steps:
        if isinstance(step, Equation) and _below_maximum(step, step.inputs[0], makers):
            avals: Any = [var.aval for var in step.eqn.invars]
            shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
            choice = jax.make_jaxpr(lambda x, most: jnp.where(x > most, most, x))(*shapes)
            before = len(inliner.equations)
            (x,) = inliner.run(choice.jaxpr, step.inputs)
            written.extend(inliner.equations[before:])
            step = replace(step, inputs=(x, step.inputs[1]))
        written.append(step)
    return written


def _below_maximum(step: Equation, x: Operand, makers: Makers) -> bool:
    """Whether an equation subtracts the maximum of x."""
    if step.primitive.name != "sub" or not isinstance(x, Value):
        return False
    most = step.inputs[1]
    with_infinity = _behind(most, makers, "max")  # of the maximum and -inf
    if with_infinity is not None:
        most = next((o for o in with_infinity.inputs if isinstance(o, Value)), most)
    maximum = _behind(most, makers, "reduce_max")
    return maximum is not None and maximum.inputs[0] == x


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
    logits = _logits(value, makers)
    if logits is None:
        return program
    moved: list[Step] = []
    for move in reversed(moves):
        moved.append(replace(move, inputs=(logits, *move.inputs[1:])))
        logits = move.outputs[0]
    gone = {id(move) for move in moves}
    steps = [step for step in program.steps if id(step) not in gone]
    return replace(program, steps=tuple(live([*steps, *moved], logits)), output=logits)


def _logits(value: Operand, makers: Makers) -> Value | None:
    """What a value is the softmax over all classes of, or its logarithm; None where it is none."""
    if (end := _equation(value, makers, "div", "sub")) is None:
        return None
    first, total = end.inputs
    if end.primitive.name == "div":  # exp(z) / Σ exp(z)
        exponential = _equation(first, makers, "exp")
        shifted = None if exponential is None else exponential.inputs[0]
    else:  # z - log Σ exp(z)
        logarithm, shifted = _behind(total, makers, "log"), first
        total = None if logarithm is None else logarithm.inputs[0]
    summed = None if total is None else _behind(total, makers, "reduce_sum")
    if summed is None or not _over_all(summed):
        return None
    terms = _equation(summed.inputs[0], makers, "exp")
    if terms is None or not isinstance(shifted, Value) or terms.inputs[0] != shifted:
        return None
    difference = _equation(shifted, makers, "sub")
    if difference is None:
        return shifted  # no maximum is taken from it
    chosen = _equation(difference.inputs[0], makers, "select_n")  # by `never_above_maximum`
    x = difference.inputs[0] if chosen is None else chosen.inputs[1]
    return x if isinstance(x, Value) and _below_maximum(difference, x, makers) else shifted


def _over_all(summed: Equation) -> bool:
    """Whether a sum is over all elements but axes of one."""
    shape: Any = summed.eqn.invars[0].aval
    return prod(shape.shape[axis] for axis in summed.params["axes"]) == prod(shape.shape)


def _back(value: Operand, makers: Makers, through: Sequence[str]) -> tuple[list[Equation], Operand]:
    """What lies behind such equations, and these, the last one first."""
    passed: list[Equation] = []
    while (step := _equation(value, makers, *through)) is not None:
        passed.append(step)
        value = step.inputs[0]
    return passed, value


def _behind(operand: Operand, makers: Makers, name: str) -> Equation | None:
    return _equation(_back(operand, makers, _SPREADS)[1], makers, name)


def _equation(operand: Operand, makers: Makers, *names: str) -> Equation | None:
    step = makers.get(operand) if isinstance(operand, Value) else None
    return step if isinstance(step, Equation) and step.primitive.name in names else None
