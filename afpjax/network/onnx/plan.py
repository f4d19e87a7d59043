"""An ONNX graph for one size of image: what is known is worked out, what is left is listed.

Shapes are known once the image's is, so all that graphs compute from them (and from their tensors)
is evaluated here, by onnx's own NumPy evaluator in 64-bit integers. The steps that remain are those
the image reaches; the floating-point arrays they read are the parameters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from afpjax.errors import InputError
from afpjax.files import one_line
from afpjax.network.onnx.file import WHERE, Graph, widened
from afpjax.network.onnx.handlers import Run, numpy_rules, runner

#: Operators whose further operands are settings, not weights.
_SETTINGS = ("Clip", "Dropout", "Pad")
#: Names that exporters make up for tensors of their own.
_MADE_UP = re.compile(r"(onnx::\w+|const_fold_opt__)?\d*")
#: What a weight is called after its node, by its place among the operands.
_ROLES = {1: "weight", 2: "bias"}


class Parameter(NamedTuple):
    """A step's operand that lies in the parameters."""

    key: str


Operand = str | Parameter | np.ndarray | None  # a value's name, or what it is


class Step(NamedTuple):
    """One node that the image reaches."""

    node: onnx.NodeProto
    run: Run
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Plan:
    """What is left of a graph, and the arrays [float32] that it reads, by name."""

    steps: tuple[Step, ...]
    parameters: dict[str, np.ndarray]

    def execute(self, parameters: Any, image: str, array: Any, output: str) -> Any:
        """The output's value, with `array` [1, ...] for the image."""
        values = {image: array}
        with numpy_rules():
            for step in self.steps:
                operands = [_read(operand, values, parameters) for operand in step.operands]
                values.update(zip(step.node.output, step.run(*operands), strict=False))
        return values[output]


def plan(graph: Graph, shape: tuple[int, ...]) -> Plan:
    """Specialise a graph to an image of this shape, [1, ...].

    Raises `InputError` for an operator that is not supported, by its name, and for a node that
    does not fit its operands.
    """
    maker = _Maker(graph)
    maker.shapes[graph.image] = jax.ShapeDtypeStruct(shape, jnp.float32)
    with numpy_rules():
        for node in graph.nodes:
            maker.add(node)
    if graph.output not in maker.shapes:
        raise InputError(f"{WHERE}: {graph.path}: its output does not depend on the image")
    return Plan(tuple(maker.steps), maker.parameters)


class _Known(NamedTuple):
    """An array that the image does not reach, and the tensor of the file that it is made of."""

    array: np.ndarray
    name: str


@dataclass
class _Maker:
    """Goes through the nodes in order; every value is known, or its shape is."""

    graph: Graph
    known: dict[str, _Known] = field(default_factory=dict)
    shapes: dict[str, jax.ShapeDtypeStruct] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    parameters: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known.update((n, _Known(a, n)) for n, a in self.graph.tensors.items())

    def add(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            if name and name not in self.known and name not in self.shapes:
                raise self._error(node, f"it reads {name}, which nothing before it makes")
        try:
            if node.op_type in ("Shape", "Size") and node.input[0] in self.shapes:
                self._fold(node, {node.input[0]: np.broadcast_to(0.0, self._shape(node))})
            elif not any(name in self.shapes for name in node.input):
                self._fold(node, {name: self.known[name].array for name in node.input if name})
            else:
                self._step(node)
        except InputError:
            raise
        except Exception as error:  # whatever a graph makes an operator do
            raise self._error(node, one_line(error)) from error

    def _shape(self, node: onnx.NodeProto) -> tuple[int, ...]:
        return self.shapes[node.input[0]].shape

    def _fold(self, node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> None:
        """Evaluate a node that the image does not reach."""
        opset = onnx.helper.make_opsetid(node.domain, self.graph.opset)
        named = [name for name in node.output if name]
        function = onnx.helper.make_function("afpjax", "known", [*arrays], named, [node], [opset])
        made = ReferenceEvaluator(function).run(None, arrays, attributes={})
        for name, value in zip(named, made, strict=True):
            array = widened(np.asarray(value))
            # A weight that is transposed, cast or reshaped keeps its name.
            source = max(arrays, key=lambda each: arrays[each].size, default="")
            kept = source in self.known and arrays[source].size >= array.size > 1
            self.known[name] = _Known(array, self.known[source].name if kept else name)

    def _step(self, node: onnx.NodeProto) -> None:
        run = runner(node, self.graph.opset)
        if run is None:
            raise self._error(node, "afpjax does not know this operator; export without it")
        operands = tuple(self._operand(node, place) for place in range(len(node.input)))
        arrays = {p.key: self.parameters[p.key] for p in operands if isinstance(p, Parameter)}

        def outputs(shapes: dict[str, Any], parameters: dict[str, Any]) -> Sequence[Any]:
            return run(*(_read(operand, shapes, parameters) for operand in operands))

        read = {name: self.shapes[name] for name in operands if isinstance(name, str)}
        made = jax.eval_shape(outputs, read, arrays)
        self.shapes.update(zip(node.output, made, strict=False))
        self.steps.append(Step(node, run, operands))

    def _operand(self, node: onnx.NodeProto, place: int) -> Operand:
        name = node.input[place]
        if not name or name in self.shapes:
            return name or None
        array = self.known[name].array
        weight = array.ndim > 0 and array.dtype == np.float32 and node.op_type not in _SETTINGS
        return self._parameter(node, place) if weight else array

    def _parameter(self, node: onnx.NodeProto, place: int) -> Parameter:
        """The operand as a parameter, called as the file's tensor, else after the node."""
        tensor = node.input[place]
        array, name = self.known[tensor]
        if _MADE_UP.fullmatch(name) and (scope := node_scope(node)):
            name = f"{scope}.{_ROLES.get(place, place)}"
        for key in (name, tensor, f"{name}.{len(self.parameters)}"):
            if self.parameters.setdefault(key, array) is array:
                return Parameter(key)
        raise AssertionError("the last name is new")

    def _error(self, node: onnx.NodeProto, problem: str) -> InputError:
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        called = node.name or (node.output[0] if node.output else "")
        where = f"{WHERE}: {self.graph.path}: operator {operator} (node {called})"
        return InputError(f"{where}: {problem}")


def node_scope(node: onnx.NodeProto) -> str:
    """The dotted path of the module that a node was exported from, "" where its name tells none.

    PyTorch writes `/layer1/layer1.0/conv1/Conv`, repeating a sequence's name in its members'.
    """
    parts: list[str] = []
    for part in node.name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def _read(operand: Operand, values: Any, parameters: Any) -> Any:
    if isinstance(operand, str):
        return values[operand]
    return parameters[operand.key] if isinstance(operand, Parameter) else operand
