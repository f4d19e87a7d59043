"""A quantised network about to be exported: what is the same on every device."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jax.extend import core

from afpjax.deploy.convert import equation, literal
from afpjax.deploy.graph import Graph, Operand
from afpjax.deploy.layers import Arrays, arrays_of
from afpjax.network.layers import INPUT
from afpjax.network.program import Equation, LayerCall, Program, Value
from afpjax.network.quantized import Quantized
from afpjax.network.stages import home_layers

IMAGE, LOGITS = "image", "logits"
Known = dict[Value, Operand]
Step = Equation | LayerCall


@dataclass(frozen=True, eq=False)
class Source:
    """The network, for `batch` images at once."""

    quantized: Quantized
    batch: int
    arrays: Mapping[str, Arrays] = field(default_factory=dict)

    @staticmethod
    def of(quantized: Quantized, batch: int) -> "Source":
        return Source(quantized, batch, arrays_of(quantized))

    @property
    def program(self) -> Program:
        return self.quantized.program

    @cached_property
    def home(self) -> dict[Value, int]:
        """The layer that every value which depends on the image lives with."""
        return home_layers(self.program.steps, self.program.image)

    @cached_property
    def constants(self) -> Known:
        """Values that parameters alone decide."""
        parameters = self.quantized.parameters.constants
        known: Known = {
            value: np.asarray(array)
            for value, array in zip(self.program.constants, parameters, strict=True)
        }
        for step in self.program.steps:
            if step.outputs[0] not in self.home and isinstance(step, Equation):
                made = step.bind(*(operand_of(each, known) for each in step.inputs))
                known.update(zip(step.outputs, map(np.asarray, made), strict=True))
        return known

    @cached_property
    def names(self) -> dict[Value, str]:
        """A readable name of every value: a layer's own, LAYER/PRIMITIVE of what follows it."""
        layers, taken = self.program.graph.names, set(self.program.graph.names)
        names = {self.program.image: free(IMAGE, taken)}
        for step in self.program.steps:
            for value in step.outputs:
                if value not in self.home:
                    continue
                if isinstance(step, LayerCall):
                    names[value] = step.layer.name
                else:
                    where = self.home[value]
                    start = IMAGE if where == INPUT else layers[where]
                    names[value] = free(f"{start}/{step.primitive.name}", taken)
        if isinstance(self.program.output, Value):
            names[self.program.output] = free(LOGITS, taken)
        return names

    @cached_property
    def living(self) -> tuple[Step, ...]:
        """Steps after the first layer, each layer's followers behind it and before the next."""
        steps = [step for step in self.program.steps if self.home.get(step.outputs[0], INPUT) >= 0]
        return tuple(sorted(steps, key=lambda step: self.home[step.outputs[0]]))

    @cached_property
    def shapes(self) -> dict[Value, tuple[tuple[int, ...], Any]]:
        """Shape, with the batch, and dtype of every value that depends on the image."""
        image = ((self.batch, *self.program.image_shape), np.dtype(self.program.image_dtype))
        shapes = {self.program.image: image}
        for step in self.program.steps:
            if isinstance(step, LayerCall):
                shapes[step.output] = (self.batch, *step.layer.output_shape), np.dtype(step.dtype)
                continue
            for value, var in zip(step.outputs, step.eqn.outvars, strict=True):
                aval: Any = var.aval
                shapes[value] = (self.batch, *aval.shape), np.dtype(aval.dtype)
        return {value: shapes[value] for value in self.home}

    def begun(self, graph: Graph) -> Known:
        """What a device knows before the first layer: constants, the image, and what is made of it
        alone."""
        image = graph.input(self.names[self.program.image], *self.shapes[self.program.image])
        known: Known = {**self.constants, self.program.image: image}
        for step in self.program.steps:
            if isinstance(step, Equation) and self.home.get(step.outputs[0]) == INPUT:
                self.follow(graph, step, known)
        return known

    def follow(self, graph: Graph, step: Equation, known: Known) -> None:
        """Convert an equation; `known` gains what it makes."""
        graph.at = self.names[step.outputs[0]]
        operands = [operand_of(each, known) for each in step.inputs]
        made = equation(graph, step, operands, self.batch)
        known.update(zip(step.outputs, made, strict=True))

    @cached_property
    def digest(self) -> str:
        """Of the program's equations and shapes, its format, and its parameters."""
        found = hashlib.sha256(repr(self.quantized.format).encode())
        for step in self.program.steps:
            shapes = [self.shapes.get(value) for value in step.outputs]
            found.update(repr((step.primitive.name, step.inputs, shapes)).encode())
        for name, arrays in self.arrays.items():
            found.update(name.encode())
            for array in arrays:
                found.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def operand_of(operand: Any, known: Mapping[Value, Operand]) -> Operand:
    return literal(operand) if isinstance(operand, core.Literal) else known[operand]


def free(name: str, taken: set[str]) -> str:
    """`name`, with a number behind it if it is taken; then it is."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found
