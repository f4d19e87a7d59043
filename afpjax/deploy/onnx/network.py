"""A quantised network about to be exported: where its values are made, what they are called, and
its equations as ONNX nodes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.extend import core

from afpjax.deploy.onnx.elementwise import ELEMENTWISE, Conversion, Rule
from afpjax.deploy.onnx.graph import Graph, GraphTensor, Operand, unused_name
from afpjax.deploy.onnx.layers import LayerArrays, LayerWriter, layer_arrays
from afpjax.deploy.onnx.shaping import SHAPING
from afpjax.deploy.onnx.windows import WINDOWS
from afpjax.inputs.errors import InputError
from afpjax.network.flatten import CALLS, CUSTOM, inner_jaxpr
from afpjax.network.layers import INPUT
from afpjax.network.program import Equation, LayerCall, Program, Value
from afpjax.network.quantized import Quantized
from afpjax.network.stages import Step, home_layers

RULES: Mapping[str, Rule] = {**ELEMENTWISE, **SHAPING, **WINDOWS}
IMAGE, LOGITS = "image", "logits"
Operands = dict[Value, Operand]


@dataclass(frozen=True, eq=False)
class ExportableNetwork:
    """A network for `batch` images at once: what is the same on every device.

    Converting raises `InputError` for a primitive without an ONNX counterpart.
    """

    quantized: Quantized
    batch: int

    @property
    def program(self) -> Program:
        return self.quantized.program

    @cached_property
    def arrays(self) -> Mapping[str, LayerArrays]:
        """Every layer's, as ONNX lays them out."""
        return layer_arrays(self.quantized)

    def layer(self, graph: Graph, call: LayerCall) -> LayerWriter:
        return LayerWriter(graph, self.quantized.format, call, self.arrays[call.layer.name])

    @cached_property
    def home(self) -> dict[Value, int]:
        """The layer on whose device each value is made that depends on the image."""
        return home_layers(self.program.steps, self.program.image)

    @cached_property
    def constants(self) -> Operands:
        """Values that parameters alone decide."""
        parameters = self.quantized.parameters.constants
        known: Operands = {
            value: np.asarray(array)
            for value, array in zip(self.program.constants, parameters, strict=True)
        }
        for step in self.program.steps:
            if step.outputs[0] not in self.home and isinstance(step, Equation):
                results = step.bind(*(_operand(operand, known) for operand in step.inputs))
                known.update(zip(step.outputs, map(np.asarray, results), strict=True))
        return known

    @property
    def output(self) -> Value:
        """The logits."""
        assert isinstance(self.program.output, Value), "a network's logits depend on the image"
        return self.program.output

    @cached_property
    def names(self) -> dict[Value, str]:
        """A readable name of every value: a layer's own, LAYER/PRIMITIVE of what follows it."""
        layers, taken = self.program.graph.names, set(self.program.graph.names)
        names = dict[Value, str]()

        def add(value: Value, name: str) -> None:
            names[value] = unused_name(name, taken)
            taken.add(names[value])

        add(self.program.image, IMAGE)
        for step in self.program.steps:
            for value in step.outputs:
                if isinstance(step, LayerCall):
                    names[value] = step.layer.name
                elif value in self.home:
                    layer = self.home[value]
                    start = IMAGE if layer == INPUT else layers[layer]
                    add(value, f"{start}/{step.primitive.name}")
        if isinstance(self.program.output, Value):
            add(self.program.output, LOGITS)
        return names

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """From the first layer on: each layer, and what runs with it, before the next layer."""
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

    def begin(self, graph: Graph) -> Operands:
        """What a device knows before the first layer: constants, the image, and what is made of it
        alone."""
        image = graph.input(self.names[self.program.image], *self.shapes[self.program.image])
        known: Operands = {**self.constants, self.program.image: image}
        for step in self.program.steps:
            if isinstance(step, Equation) and self.home.get(step.outputs[0]) == INPUT:
                self.convert(graph, step, known)
        return known

    def convert(self, graph: Graph, step: Equation, known: Operands) -> None:
        """Write an equation; `known` gains what it gives: an array where no image reaches it.

        A tensor among its operands has the batch axis first, an array is the same for every image.
        """
        graph.scope = self.names[step.outputs[0]]
        operands = [_operand(operand, known) for operand in step.inputs]
        if any(isinstance(x, GraphTensor) for x in operands):
            axes = tuple(0 if isinstance(x, GraphTensor) else None for x in operands)
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
            batched = jax.vmap(step.bind, in_axes=axes, axis_size=self.batch)
            results = _jaxpr(graph, jax.make_jaxpr(batched)(*shapes), operands)
        else:
            results = [np.asarray(array) for array in step.bind(*operands)]
        known.update(zip(step.outputs, results, strict=True))

    @cached_property
    def digest(self) -> str:
        """Of the program's equations and shapes, its format, and its parameters."""
        digest = hashlib.sha256(repr(self.quantized.format).encode())
        for step in self.program.steps:
            shapes = [self.shapes.get(value) for value in step.outputs]
            digest.update(repr((step.primitive.name, step.inputs, shapes)).encode())
        for name, arrays in self.arrays.items():
            digest.update(name.encode())
            for array in arrays:
                digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _operand(operand: Any, known: Mapping[Any, Operand]) -> Operand:
    """An operand of the program or of a jaxpr."""
    if isinstance(operand, core.Literal):
        aval: Any = operand.aval
        return np.asarray(operand.val, aval.dtype)
    return known[operand]


def _jaxpr(graph: Graph, closed: core.ClosedJaxpr, operands: Sequence[Operand]) -> list[Operand]:
    known: dict[Any, Operand] = dict(zip(closed.jaxpr.invars, operands, strict=True))
    known.update(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
    for eqn in closed.jaxpr.eqns:
        results = _equation(graph, eqn, [_operand(var, known) for var in eqn.invars])
        known.update(zip(eqn.outvars, results, strict=True))
    return [_operand(var, known) for var in closed.jaxpr.outvars]


def _equation(graph: Graph, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
    name = eqn.primitive.name
    inner = inner_jaxpr(eqn) if name in CALLS + CUSTOM else None
    if inner is not None:
        closed = isinstance(inner, core.ClosedJaxpr)
        return _jaxpr(graph, inner if closed else core.ClosedJaxpr(inner, ()), operands)
    if not any(isinstance(x, GraphTensor) for x in operands) and name != "broadcast_in_dim":
        return [np.asarray(array) for array in Equation(eqn, (), ()).bind(*operands)]
    if name not in RULES:
        raise InputError(
            f"export: `{name}` (near {graph.scope}) is no primitive that afpjax writes as ONNX; "
            "write that part of the network otherwise"
        )
    results = RULES[name](Conversion(graph, eqn), *operands)
    return results if isinstance(results, list) else [results]
