"""An ONNX graph under construction: named tensors, nodes, and the arrays that they read."""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx

from afpjax.inputs.errors import InputError

OPSET, IR_VERSION = 18, 8


class GraphTensor(NamedTuple):
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: Any

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


#: A tensor, or a known array, which becomes an initialiser where a node reads it.
Operand = GraphTensor | np.ndarray


class Graph:
    """Nodes in the order they run; names of new nodes and tensors begin with `scope`.

    `reserved` names are those of tensors that cross devices: only `input` and `publish` give them.
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._reserved = frozenset(reserved)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, GraphTensor] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs: dict[str, GraphTensor] = {}
        self.scope = ""
        self._published: dict[str, str] = {}  # name in this graph -> published name
        # Names of arrays by id; the array itself is kept so that no other can get its id.
        self._array_names: dict[int, tuple[np.ndarray, str]] = {}

    def input(self, name: str, shape: Sequence[int], dtype: Any) -> GraphTensor:
        """A tensor that comes from outside."""
        tensor = GraphTensor(name, tuple(shape), np.dtype(dtype))
        self.inputs[name] = self.tensors[name] = tensor
        return tensor

    def node(
        self,
        op: str,
        inputs: Sequence[Operand | None],
        shape: Sequence[int],
        dtype: Any,
        *,
        name: str = "",
        **attributes: Any,
    ) -> GraphTensor:
        """A node with one output of a shape and dtype; None is an optional input left out.

        `name` is the node's own. Raises `InputError` for arithmetic on 16-bit floats, which
        onnxruntime lacks.
        """
        dtype = np.dtype(dtype)
        if dtype.itemsize == 2 and dtype.kind in "fV" and op != "Cast":
            raise InputError(
                f"export: {self.scope} computes in {dtype} between layers, which onnxruntime does "
                "not; trace the network in float32"
            )
        output = GraphTensor(
            self._unused(f"{self.scope}/{op.lower()}"), tuple(map(int, shape)), dtype
        )
        names = [self._name(operand) for operand in inputs if operand is not None]
        self.nodes.append(
            onnx.helper.make_node(op, names, [output.name], name=name or output.name, **attributes)
        )
        self.tensors[output.name] = output
        return output

    def publish(self, operand: Operand, name: str) -> None:
        """Give a tensor, or a copy if it has such a name already, a name that other devices know.

        It takes effect with `apply_names`.
        """
        known = self.inputs.keys() | self._published.keys()
        if not isinstance(operand, GraphTensor) or operand.name in known:
            operand = self.node("Identity", [operand], operand.shape, operand.dtype)
        self._published[operand.name] = name

    def apply_names(self) -> None:
        """Rename what was published; the graph is complete now."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [self._published.get(name, name) for name in names]
        tensors = {self._published.get(name, name): t for name, t in self.tensors.items()}
        self.tensors = {name: tensor._replace(name=name) for name, tensor in tensors.items()}
        self._published = {}

    def model(self, outputs: Collection[str], name: str) -> onnx.ModelProto:
        """The model of what `outputs` need; call `apply_names` first."""
        nodes = nodes_between(self.nodes, (), outputs)
        used = {name for node in nodes for name in node.input}
        arrays = [
            onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), key)
            for key, array in self.arrays.items()
            if key in used
        ]
        inputs = {key: tensor for key, tensor in self.inputs.items() if key in used}
        graph = graph_proto(
            nodes, name, inputs, {key: self.tensors[key] for key in outputs}, arrays
        )
        opset = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="afpjax"
        )

    def parameter(self, array: np.ndarray, role: str) -> np.ndarray:
        """An array, stored under the name of its `role` (weight or bias): LAYER.weight."""
        self._store(array, f"{self.scope}.{role}")
        return array

    def _name(self, operand: Operand) -> str:
        if isinstance(operand, GraphTensor):
            return operand.name
        if id(operand) not in self._array_names:
            self._store(operand, f"{self.scope}/array")
        return self._array_names[id(operand)][1]

    def _store(self, array: np.ndarray, name: str) -> None:
        name = self._unused(name)
        self._array_names[id(array)] = array, name
        self.arrays[name] = array

    def _unused(self, name: str) -> str:
        return unused_name(name, self.tensors, self.arrays, self._reserved)


def unused_name(name: str, *taken: Container[str]) -> str:
    """`name`, or `name` with the first number from 2 on behind it that none has taken."""
    number, candidate = 2, name
    while any(candidate in names for names in taken):
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def graph_proto(
    nodes: Sequence[onnx.NodeProto],
    name: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    arrays: Sequence[onnx.TensorProto],
) -> onnx.GraphProto:
    """ONNX's own form of a graph. Tensors in and out are by name, each with its shape and dtype."""
    inputs_info, outputs_info = (
        [
            onnx.helper.make_tensor_value_info(
                key, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape
            )
            for key, tensor in tensors.items()
        ]
        for tensors in (inputs, outputs)
    )
    return onnx.helper.make_graph(nodes, name, inputs_info, outputs_info, arrays)


def nodes_between(
    nodes: Iterable[Any], inputs: Collection[str], outputs: Collection[str]
) -> list[Any]:
    """The nodes, in their order, that `outputs` need and that are not behind `inputs`."""
    needed, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if needed & (set(node.output) - set(inputs)):
            kept.append(node)
            needed |= set(node.input)
    return kept[::-1]


def peak_bytes(graph: Graph, inputs: Collection[str], outputs: Collection[str]) -> int:
    """Bytes of the tensors that exist at once, at most, on the way from `inputs` to `outputs`.

    What is made of arrays alone (dequantised weights) counts as weights, not here.
    """
    nodes = nodes_between(graph.nodes, inputs, outputs)
    last_read = {name: number for number, node in enumerate(nodes) for name in node.input}
    last_read |= dict.fromkeys(outputs, len(nodes))
    alive = {name for name in inputs if name in last_read}
    held = peak = sum(graph.tensors[name].bytes for name in alive)
    for number, node in enumerate(nodes):
        if alive.isdisjoint(node.input):
            continue
        alive |= set(node.output)
        held += sum(graph.tensors[name].bytes for name in node.output)
        peak = max(peak, held)
        done = {name for name in node.input if last_read[name] == number and name in alive}
        held -= sum(graph.tensors[name].bytes for name in done)
    return peak


def transposed(graph: Graph, operand: Operand, order: Sequence[int]) -> Operand:
    order = tuple(map(int, order))
    if order == tuple(range(len(order))):
        return operand
    if not isinstance(operand, GraphTensor):
        return np.transpose(operand, order)
    shape = [operand.shape[axis] for axis in order]
    return graph.node("Transpose", [operand], shape, operand.dtype, perm=order)


def reshaped(graph: Graph, operand: Operand, shape: Sequence[int]) -> Operand:
    """Unsqueeze or Squeeze where only axes of size 1 come or go: onnxruntime moves a transposition
    past those."""
    shape = tuple(map(int, shape))
    if tuple(operand.shape) == shape:
        return operand
    if not isinstance(operand, GraphTensor):
        return np.reshape(operand, shape)
    for op, longer, shorter in (
        ("Squeeze", operand.shape, shape),
        ("Unsqueeze", shape, operand.shape),
    ):
        axes = _ones_between(longer, shorter)
        if axes:
            return graph.node(op, [operand, np.array(axes, np.int64)], shape, operand.dtype)
    return graph.node("Reshape", [operand, np.array(shape, np.int64)], shape, operand.dtype)


def cast(graph: Graph, operand: Operand, dtype: Any) -> Operand:
    if operand.dtype == np.dtype(dtype):
        return operand
    if not isinstance(operand, GraphTensor):
        return np.asarray(operand).astype(dtype)
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return graph.node("Cast", [operand], operand.shape, dtype, to=to)


def _ones_between(longer: Sequence[int], shorter: Sequence[int]) -> list[int]:
    """The axes of size 1 without which `longer` is `shorter`; [] where there are no such."""
    axes, position = [], 0
    for axis, size in enumerate(longer):
        if position < len(shorter) and shorter[position] == size:
            position += 1
        elif size == 1:
            axes.append(axis)
        else:
            return []
    return axes if position == len(shorter) else []
