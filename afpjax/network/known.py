"""What depends on parameters alone: split off from a program's equations, and evaluated."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jaxtyping import Array

from afpjax.network.inline import Inliner
from afpjax.network.program import Equation, LayerCall, Operand, Value, reads

AnyStep = TypeVar("AnyStep", Equation, Equation | LayerCall)


@dataclass(frozen=True, eq=False)
class Known:
    """The equations that the image does not reach, as one compiled function of what they read."""

    inputs: tuple[Value, ...]  # what the equations read
    outputs: tuple[Value, ...]  # what the rest of the program reads of what they make
    passed: tuple[Value, ...]  # what the rest of the program reads as it is given
    evaluate: Callable[[list[Any]], list[Array]]

    @property
    def needs(self) -> frozenset[Value]:
        """Every array that must be given."""
        return frozenset((*self.inputs, *self.passed))

    def values(self, arrays: Mapping[Value, Any]) -> dict[Value, Any]:
        """The values that the rest of the program reads, from arrays or tracers.

        What is only passed on stays what it is (NumPy float64, say).
        """
        values = {value: arrays[value] for value in self.passed}
        made = self.evaluate([arrays[value] for value in self.inputs]) if self.outputs else []
        return values | dict(zip(self.outputs, made, strict=True))


def split(
    inliner: Inliner, given: Iterable[Value], output: Operand
) -> tuple[Known, list[Equation]]:
    """Split a program in what depends on `given` alone, and the equations that remain.

    Broadcasts of small arrays stay in the program (XLA fuses them), so that a per-channel constant
    is not held once per pixel.
    """
    steps = live(inliner.equations, output)
    dependent = [step for step in steps if any(map(inliner.depends, step.outputs))]
    fixed = [step for step in steps if not any(map(inliner.depends, step.outputs))]
    read = {value for step in dependent for value in reads(step)}
    broadcasts = [
        step
        for step in fixed
        if step.primitive.name == "broadcast_in_dim" and step.outputs[0] in read
    ]
    read |= {value for step in broadcasts for value in reads(step)}
    given = {*given}
    made = {value for step in fixed for value in step.outputs}
    outputs = tuple(sorted(read & made - {step.outputs[0] for step in broadcasts}))
    inputs = tuple(sorted({value for step in fixed for value in reads(step)} & given))
    evaluate = jax.jit(_evaluation(fixed, inputs, outputs))
    return Known(inputs, outputs, tuple(sorted(read & given)), evaluate), [*broadcasts, *dependent]


def _evaluation(
    fixed: list[Equation], inputs: tuple[Value, ...], outputs: tuple[Value, ...]
) -> Callable[[list[Any]], list[Any]]:
    def evaluate(arrays: list[Any]) -> list[Any]:
        environment = dict(zip(inputs, arrays, strict=True))
        for step in fixed:
            operands = [environment[o] if isinstance(o, Value) else o.val for o in step.inputs]
            environment.update(zip(step.outputs, step.bind(*operands), strict=True))
        return [environment[value] for value in outputs]

    return evaluate


def live(steps: Iterable[AnyStep], output: Operand) -> list[AnyStep]:
    """Leave out the steps that nothing reads."""
    needed: set[Any] = {output} if isinstance(output, Value) else set()
    kept: list[AnyStep] = []
    for step in reversed(list(steps)):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(reads(step))
    return kept[::-1]
