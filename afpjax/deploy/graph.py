"""An ONNX graph under construction: named tensors, nodes, and the arrays that they read."""

from collections.abc import Collection, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx

from afpjax.inputs.errors import InputError

OPSET, IR_VERSION = 18, 8


class Ref(NamedTuple):
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: Any

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


#: A tensor, or an array that is known: it becomes an initialiser where a node reads it.
Operand = Ref | np.ndarray


class Graph:
    """Nodes in the order they run. `at` is what is converted now: its tensors' names begin with it.

    `reserved` are the names that others know: no tensor bears one but by `input` and `named`.
    `node` raises `InputError` for arithmetic on 16-bit floats, which onnxruntime lacks.
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._reserved = frozenset(reserved)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Ref] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs: dict[str, Ref] = {}
        self.at = ""
        self._public: dict[str, str] = {}  # own name -> the name that others know
        self._of: dict[int, tuple[np.ndarray, str]] = {}  # by id; holds on to the array

    def input(self, name: str, shape: Sequence[int], dtype: Any) -> Ref:
        """A tensor that comes from outside."""
        ref = Ref(name, tuple(shape), np.dtype(dtype))
        self.inputs[name] = self.tensors[name] = ref
        return ref

    def node(
        self,
        op: str,
        inputs: Sequence[Operand | None],
        shape: Sequence[int],
        dtype: Any,
        *,
        name: str = "",
        **attributes: Any,
    ) -> Ref:
        """A node with one output of a shape and dtype; `name` is the node's own."""
        dtype = np.dtype(dtype)
        if dtype.itemsize == 2 and dtype.kind in "fV" and op != "Cast":
            raise InputError(
                f"export: {self.at} computes in {dtype} between layers, which onnxruntime does "
                "not; trace the network in float32"
            )
        ref = Ref(self._free(f"{self.at}/{op.lower()}"), tuple(map(int, shape)), dtype)
        read = ["" if each is None else self._name(each) for each in inputs]
        self.nodes.append(
            onnx.helper.make_node(op, read, [ref.name], name=name or ref.name, **attributes)
        )
        self.tensors[ref.name] = ref
        return ref

    def named(self, operand: Operand, name: str) -> None:
        """Have a tensor, or a copy where it has such a name already, bear a name that others know.

        It does once the graph is a `model`.
        """
        known = self.inputs.keys() | self._public.keys()
        if not isinstance(operand, Ref) or operand.name in known:
            operand = self.node("Identity", [operand], operand.shape, operand.dtype)
        self._public[operand.name] = name

    def finished(self) -> None:
        """Rename what `named` said; the graph is complete."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [self._public.get(each, each) for each in names]
        renamed = {self._public.get(name, name): ref for name, ref in self.tensors.items()}
        self.tensors = {name: ref._replace(name=name) for name, ref in renamed.items()}
        self._public = {}

    def model(self, outputs: Collection[str], name: str) -> onnx.ModelProto:
        """The model of what `outputs` need, and what that reads; call `finished` first."""
        nodes = leading(self.nodes, (), outputs)
        used = {each for node in nodes for each in node.input}
        graph = onnx.helper.make_graph(
            nodes,
            name,
            [_info(ref) for ref in self.inputs.values() if ref.name in used],
            [_info(self.tensors[each]) for each in outputs],
            [_array(key, array) for key, array in self.arrays.items() if key in used],
        )
        opset = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="afpjax"
        )

    def parameter(self, array: np.ndarray, role: str) -> np.ndarray:
        """An array that is read as `weight` or `bias`, and called so: LAYER.weight."""
        self._keep(array, f"{self.at}.{role}")
        return array

    def _name(self, operand: Operand) -> str:
        if isinstance(operand, Ref):
            return operand.name
        if id(operand) not in self._of:
            self._keep(operand, f"{self.at}/array")
        return self._of[id(operand)][1]

    def _keep(self, array: np.ndarray, name: str) -> None:
        name = self._free(name)
        self._of[id(array)] = array, name
        self.arrays[name] = array

    def _free(self, name: str) -> str:
        number, found = 2, name
        while found in self.tensors or found in self.arrays or found in self._reserved:
            found, number = f"{name}_{number}", number + 1
        return found


def leading(nodes: Iterable[Any], inputs: Collection[str], outputs: Collection[str]) -> list[Any]:
    """The nodes, in their order, that `outputs` need and that are not behind `inputs`."""
    needed, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if needed & (set(node.output) - set(inputs)):
            kept.append(node)
            needed |= set(node.input)
    return kept[::-1]


def most_held(graph: Graph, inputs: Collection[str], outputs: Collection[str]) -> int:
    """Bytes of the tensors that exist at once, at most, on the way from `inputs` to `outputs`.

    What is made of arrays alone (weights, dequantised) counts as weights, not here.
    """
    nodes = leading(graph.nodes, inputs, outputs)
    last = {name: number for number, node in enumerate(nodes) for name in node.input}
    last |= dict.fromkeys(outputs, len(nodes))
    living = {name for name in inputs if name in last}
    held = most = sum(graph.tensors[name].bytes for name in living)
    for number, node in enumerate(nodes):
        if living.isdisjoint(node.input):
            continue
        living |= set(node.output)
        held += sum(graph.tensors[name].bytes for name in node.output)
        most = max(most, held)
        gone = {name for name in node.input if last[name] == number and name in living}
        held -= sum(graph.tensors[name].bytes for name in gone)
    return most


def transposed(graph: Graph, operand: Operand, order: Sequence[int]) -> Operand:
    order = tuple(map(int, order))
    if order == tuple(range(len(order))):
        return operand
    if not isinstance(operand, Ref):
        return np.transpose(operand, order)
    shape = [operand.shape[axis] for axis in order]
    return graph.node("Transpose", [operand], shape, operand.dtype, perm=order)


def reshaped(graph: Graph, operand: Operand, shape: Sequence[int]) -> Operand:
    """Unsqueeze or Squeeze where only axes of size 1 come or go: onnxruntime moves a transposition
    past those."""
    shape = tuple(map(int, shape))
    if tuple(operand.shape) == shape:
        return operand
    if not isinstance(operand, Ref):
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
    if not isinstance(operand, Ref):
        return np.asarray(operand).astype(dtype)
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return graph.node("Cast", [operand], operand.shape, dtype, to=to)


def _ones_between(longer: Sequence[int], shorter: Sequence[int]) -> list[int]:
    """The axes of size 1 without which `longer` is `shorter`; [] where there are no such."""
    axes, place = [], 0
    for axis, size in enumerate(longer):
        if place < len(shorter) and shorter[place] == size:
            place += 1
        elif size == 1:
            axes.append(axis)
        else:
            return []
    return axes if place == len(shorter) else []


def _info(ref: Ref) -> onnx.ValueInfoProto:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(ref.dtype))
    return onnx.helper.make_tensor_value_info(ref.name, dtype, ref.shape)


def _array(name: str, array: np.ndarray) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
