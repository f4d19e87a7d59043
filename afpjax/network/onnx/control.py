"""Branches and loops whose course is known before an image is: written out as plain nodes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: A name that nothing in the graph bears, like this one.
Fresh = Callable[[str], str]
#: The value of a name, None where it depends on the image.
ValueOf = Callable[[str], np.ndarray | None]
Nodes = Iterator[onnx.NodeProto]


def written_out(node: onnx.NodeProto, value_of: ValueOf, fresh: Fresh) -> Nodes:
    """The nodes that an If or a Loop comes to, one after the other.

    `value_of` is asked as the loop goes on: each node has to be worked out before the next is
    taken. Raises `ValueError` where the course depends on the image.
    """
    graphs = {
        attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")
    }
    if node.op_type == "If":
        branch = "then_branch" if _truth(node.input[0], value_of) else "else_branch"
        nodes, outputs = _copied(graphs[branch], (), fresh)
        yield from nodes
        yield from _called(outputs, node.output)
    elif node.op_type == "Loop":
        yield from _loop(node, graphs["body"], value_of, fresh)
    else:
        raise ValueError("afpjax writes out If and Loop alone; export the network without it")


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Every name that nodes read, those inside their graphs included."""
    read: set[str] = set()
    for node in nodes:
        read.update(node.input)
        for graph in _graphs(node):
            read |= names_read(graph.node) | {output.name for output in graph.output}
    return read


def _loop(node: onnx.NodeProto, body: onnx.GraphProto, value_of: ValueOf, fresh: Fresh) -> Nodes:
    """Scanned outputs are stacked; state goes from one round to the next by its names."""
    most = _rounds(node.input[0], value_of) if node.input[0] else None
    test = node.input[1] if len(node.input) > 1 else ""
    state = list(node.input[2:])
    scanned: list[list[str]] = [[] for _ in range(len(body.output) - 1 - len(state))]
    rounds = 0
    going = not test or _truth(test, value_of)
    while going and (most is None or rounds < most):
        counter, flag = fresh("round"), fresh("going")
        yield _constant(counter, np.array(rounds, np.int64))
        yield _constant(flag, np.array(True))
        nodes, outputs = _copied(body, (counter, flag, *state), fresh)
        yield from nodes
        going = _truth(outputs[0], value_of)
        state = outputs[1 : 1 + len(state)]
        for rows, name in zip(scanned, outputs[1 + len(state) :], strict=True):
            rows.append(name)
        rounds += 1
    yield from _called(state, node.output)
    for rows, name in zip(scanned, node.output[len(state) :], strict=False):
        yield from _stacked(rows, name, fresh)


def _stacked(names: Sequence[str], output: str, fresh: Fresh) -> Nodes:
    if not names:
        raise ValueError("it goes no round, and there is nothing to stack")
    axis, rows = fresh("axis"), [fresh(name) for name in names]
    yield _constant(axis, np.array([0], np.int64))
    for name, row in zip(names, rows, strict=True):
        yield helper.make_node("Unsqueeze", [name, axis], [row])
    yield helper.make_node("Concat", rows, [output], axis=0)


def _copied(
    graph: onnx.GraphProto, inputs: Sequence[str], fresh: Fresh
) -> tuple[list[onnx.NodeProto], list[str]]:
    """A graph's nodes under names of their own, and the names of its outputs."""
    if len(inputs) != len(graph.input):
        raise ValueError(f"its graph takes {len(graph.input)} values, and gets {len(inputs)}")
    names = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
    names |= {name: fresh(name) for name in _made_in(graph)}
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in graph.initializer]
    nodes = []
    for node in (*constants, *graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        _rename(copy, names)
        nodes.append(copy)
    return nodes, [names.get(output.name, output.name) for output in graph.output]


def _made_in(graph: onnx.GraphProto) -> list[str]:
    names = [tensor.name for tensor in graph.initializer]
    return names + [name for node in graph.node for name in node.output if name]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Read and write by other names, in the graphs that a node holds too."""
    for held in (node.input, node.output):
        held[:] = [names.get(name, name) for name in held]
    for graph in _graphs(node):
        own = {*_made_in(graph), *(value.name for value in graph.input)}
        outer = {name: new for name, new in names.items() if name not in own}
        for inner in graph.node:
            _rename(inner, outer)
        for output in graph.output:
            output.name = outer.get(output.name, output.name)


def _graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def _called(names: Sequence[str], outputs: Sequence[str]) -> Nodes:
    for name, output in zip(names, outputs, strict=False):
        if output:
            yield helper.make_node("Identity", [name], [output])


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def _rounds(name: str, value_of: ValueOf) -> int:
    array = value_of(name)
    if array is None:
        raise ValueError("its number of rounds depends on the image; export it with a fixed one")
    return int(array.item())


def _truth(name: str, value_of: ValueOf) -> bool:
    array = value_of(name)
    if array is None:
        raise ValueError("its condition depends on the image; export the network without it")
    return bool(array.item())
