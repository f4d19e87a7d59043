"""An ONNX graph for one size of image: what is known is worked out, what is left is listed.

Shapes are known once the image's is, so all that graphs compute from them (and from their tensors)
is evaluated here: in NumPy, or by the network's own operators. Branches and loops are written out.
The steps that remain are those the image reaches; the floating-point arrays they read are the
parameters. Nothing is computed before its size is known, and small enough.
"""

import re
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from afpjax.inputs.errors import InputError, one_line
from afpjax.network.onnx import quantised
from afpjax.network.onnx.constants import CONSTANTS, Room, work_of
from afpjax.network.onnx.control import written_out
from afpjax.network.onnx.file import MOST_NODES, WHERE, OnnxGraph, widened
from afpjax.network.onnx.operators import Run, numpy_rules, runner, worked_out
from afpjax.network.onnx.windows import refuse_excess

#: Operators whose further operands are settings, not weights.
SETTINGS = ("Clip", "Dropout", "OneHot", "Pad", "Resize")
#: Names that exporters make up for tensors of their own.
_MADE_UP = re.compile(r"(onnx::\w+|const_fold_opt__)?\d*")
#: What onnxruntime appends to the name of a weight that it quantises.
_QUANTISED = "_quantized"
#: What a node inside a branch or loop counts for, beside itself.
_INSIDE = 9
#: Nodes that the image passes; each takes a few milliseconds to trace.
MOST_STEPS = 5_000
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")
#: What a weight is called after its node, by its place among the operands.
_ROLES = {1: "weight", 2: "bias"}


class Parameter(NamedTuple):
    """A step's operand that lies in the parameters."""

    key: str


Operand = str | Parameter | np.ndarray | None  # a value's name, or what it is


class OnnxStep(NamedTuple):
    """One node that the image reaches."""

    node: onnx.NodeProto
    run: Run
    operands: tuple[Operand, ...]


class OnnxPlan(NamedTuple):
    """What is left of a graph, and the arrays [float32] that it reads, by name."""

    steps: tuple[OnnxStep, ...]
    parameters: dict[str, np.ndarray]

    def execute(self, parameters: Any, image: str, array: Any, output: str) -> Any:
        """The output's value, with `array` [1, ...] for the image."""
        values = {image: array}
        with numpy_rules():
            for step in self.steps:
                operands = [_read(operand, values, parameters) for operand in step.operands]
                values.update(zip(step.node.output, step.run(*operands), strict=False))
        return values[output]


def plan(graph: OnnxGraph, shape: tuple[int, ...]) -> OnnxPlan:
    """Specialise a graph to an image of this shape, [1, ...].

    Raises `InputError` for an operator that is not supported, by its name, and for a node that
    does not fit its operands.
    """
    planner = _Planner(graph)
    planner.shapes[graph.image] = jax.ShapeDtypeStruct(shape, jnp.float32)
    with numpy_rules():
        for node in graph.nodes:
            planner.add(node)
    if graph.output not in planner.shapes:
        raise InputError(f"{WHERE}: {graph.path}: its output does not depend on the image")
    return OnnxPlan(tuple(planner.steps), planner.parameters)


class _Known(NamedTuple):
    """An array that the image does not reach, and the tensor of the file that it is made of."""

    array: np.ndarray
    name: str


class _Planner:
    """Goes through the nodes in order; every value is known, or its shape is."""

    def __init__(self, graph: OnnxGraph) -> None:
        tensors = graph.tensors
        self.path = graph.path
        self.room = Room(sum(array.nbytes for array in tensors.values()))
        self.known = {n: _Known(a, n.removesuffix(_QUANTISED)) for n, a in tensors.items()}
        self.shapes: dict[str, jax.ShapeDtypeStruct] = {}
        self.steps: list[OnnxStep] = []
        self.parameters: dict[str, np.ndarray] = {}
        self.taken = {*tensors, graph.image}  # names, those of later nodes too
        self.taken.update(name for node in graph.nodes for name in node.output)
        self.copies: dict[str, int] = {}  # of a name, so far
        self.nodes = 0  # so far

    def add(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            if name and name not in self.known and name not in self.shapes:
                raise self._error(node, f"it reads {name}, which nothing before it makes")
        for name in node.output:
            if name and (name in self.known or name in self.shapes):
                raise self._error(node, f"it makes {name}, which there is already")
        self.nodes += 1
        try:
            if self.nodes > MOST_NODES:
                raise ValueError("its branches and loops come to more nodes than any network has")
            self._add(node)
        except InputError:
            raise
        except Exception as error:  # whatever a graph makes an operator do
            raise self._error(node, one_line(error)) from error

    def _add(self, node: onnx.NodeProto) -> None:
        if (inner := self._written_out(node)) is not None:
            for inner_node in inner:
                self.nodes += _INSIDE
                self.add(inner_node)
        elif node.op_type in ("Shape", "Size") and node.input[0] in self.shapes:
            shape = self.shapes[node.input[0]].shape
            self._keep(node, {}, self._values(node, [np.broadcast_to(np.float32(0), shape)]))
        elif any(name in self.shapes for name in node.input):
            self._step(node)
        else:
            arrays = {name: self.known[name].array for name in node.input if name}
            self._keep(node, arrays, self._values(node, [arrays.get(n) for n in node.input]))

    def _written_out(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto] | None:
        """The nodes that stand for one which is none of the network's own operators."""
        if node.domain in ("", "ai.onnx") and node.op_type in _CONTROL:
            return written_out(node, self._value, self._fresh)
        if node.domain in ("", "ai.onnx") and node.op_type in quantised.COMPOSED:
            return quantised.plain_nodes(node, self._fresh)
        return None

    def _value(self, name: str) -> np.ndarray | None:
        return self.known[name].array if name in self.known else None

    def _fresh(self, name: str) -> str:
        new = name
        while new in self.taken:
            self.copies[name] = self.copies.get(name, 1) + 1
            new = f"{name}.{self.copies[name]}"
        self.taken.add(new)
        return new

    def _values(self, node: onnx.NodeProto, operands: list[np.ndarray | None]) -> list[Any]:
        """What a node that the image does not reach makes of its operands."""
        arrays = worked_out(node, operands, self.room)
        if arrays is not None:
            return arrays
        run = self._runner(node)
        traced = {
            place: array
            for place, array in enumerate(operands)
            if array is not None and array.dtype == np.float32 and array.ndim
            if place == 0 or node.op_type not in SETTINGS
        }

        def outputs(traced: dict[int, Any]) -> Sequence[Any]:
            return run(*(traced.get(place, array) for place, array in enumerate(operands)))

        made, work = work_of(outputs, traced)
        self.room.take(made, 4, work)
        return [np.asarray(array) for array in jax.jit(outputs)(traced)]

    def _keep(
        self, node: onnx.NodeProto, arrays: dict[str, np.ndarray], made: Sequence[Any]
    ) -> None:
        """Values become known; a weight that is transposed, cast or reshaped keeps its name."""
        source = max(arrays, key=lambda name: arrays[name].size, default="")
        for name, value in zip(node.output, made, strict=False):
            if not name:
                continue
            array = widened(np.asarray(value))
            kept = source in self.known and arrays[source].size >= array.size > 1
            self.known[name] = _Known(array, self.known[source].name if kept else name)

    def _runner(self, node: onnx.NodeProto) -> Run:
        run = runner(node)
        if run is None:
            if not node.domain and node.op_type in CONSTANTS:
                raise ValueError(
                    "afpjax works this operator out of constants alone, and here it depends on "
                    "the image; export without it"
                )
            quantises = node.op_type in quantised.DYNAMIC or node.op_type.startswith("QLinear")
            advice = quantised.ADVICE if quantises else "export without it"
            raise self._error(node, f"afpjax does not know this operator; {advice}")
        return run

    def _step(self, node: onnx.NodeProto) -> None:
        run = self._runner(node)
        operands = tuple(self._operand(node, place) for place in range(len(node.input)))
        arrays = {p.key: self.parameters[p.key] for p in operands if isinstance(p, Parameter)}

        def outputs(shapes: dict[str, Any], parameters: dict[str, Any]) -> Sequence[Any]:
            return run(*(_read(operand, shapes, parameters) for operand in operands))

        read = {name: self.shapes[name] for name in operands if isinstance(name, str)}
        made = jax.eval_shape(outputs, read, arrays)
        refuse_excess(prod(output.shape) for output in made)
        if len(self.steps) >= MOST_STEPS:
            raise ValueError(f"the image has passed {MOST_STEPS:,} nodes, more than in any network")
        self.shapes.update(zip(node.output, made, strict=False))
        self.steps.append(OnnxStep(node, run, operands))

    def _operand(self, node: onnx.NodeProto, place: int) -> Operand:
        name = node.input[place]
        if not name or name in self.shapes:
            return name or None
        array = self.known[name].array
        # A scale that XLA knew, it would multiply by the inverse of: codes would differ.
        weight = array.ndim > 0 or node.op_type == "QuantizeLinear"
        weight = weight and array.dtype == np.float32 and node.op_type not in SETTINGS
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
        return InputError(f"{WHERE}: {self.path}: operator {operator} (node {called}): {problem}")


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
