"""Branches and loops whose course is known before an image is: written out as plain nodes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: A name that nothing in the graph bears, like this one.
Fresh = Callable[[str], str]
#: The value of a name, None where it depends on the image.
Value = Callable[[str], np.ndarray | None]
Nodes = Iterator[onnx.NodeProto]


def written_out(node: onnx.NodeProto, value: Value, fresh: Fresh) -> Nodes:
    """The nodes that an If or a Loop comes to, one after the other.

    `value` is asked as the loop goes on: each node has to be worked out before the next is taken.
    Raises `ValueError` where the course depends on the image.
    """
    graphs = {each.name: each.g for each in node.attribute if each.HasField("g")}
    if node.op_type == "If":
        way = "then_branch" if _truth(node.input[0], value, "its condition") else "else_branch"
        yield from _branch(node, graphs[way], fresh)
    elif node.op_type == "Loop":
        yield from _loop(node, graphs["body"], value, fresh)
    else:
        raise ValueError("afpjax writes out If and Loop alone; export the network without it")


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Every name that nodes read, those inside their graphs included."""
    read: set[str] = set()
    for node in nodes:
        read.update(node.input)
        for graph in _graphs(node):
            read |= names_read(graph.node) | {each.name for each in graph.output}
    return read


def _branch(node: onnx.NodeProto, graph: onnx.GraphProto, fresh: Fresh) -> Nodes:
    nodes, outputs = _copied(graph, (), fresh)
    yield from nodes
    yield from _called(outputs, node.output)


def _loop(node: onnx.NodeProto, body: onnx.GraphProto, value: Value, fresh: Fresh) -> Nodes:
    """Scanned outputs are stacked; state goes from one round to the next by its names."""
    most = _number(node.input[0], value) if node.input[0] else None
    test = node.input[1] if len(node.input) > 1 else ""
    state = list(node.input[2:])
    scanned: list[list[str]] = [[] for _ in range(len(body.output) - 1 - len(state))]
    rounds = 0
    going = not test or _truth(test, value, "its condition")
    while going and (most is None or rounds < most):
        counter, flag = fresh("round"), fresh("going")
        yield _constant(counter, np.array(rounds, np.int64))
        yield _constant(flag, np.array(True))
        nodes, made = _copied(body, (counter, flag, *state), fresh)
        yield from nodes
        going = _truth(made[0], value, "its condition")
        state = made[1 : 1 + len(state)]
        for each, name in zip(scanned, made[1 + len(state) :], strict=True):
            each.append(name)
        rounds += 1
    yield from _called(state, node.output)
    for each, name in zip(scanned, node.output[len(state) :], strict=False):
        yield from _stacked(each, name, fresh)


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
    names = dict(zip((each.name for each in graph.input), inputs, strict=True))
    made = [each.name for each in graph.initializer]
    made += [name for node in graph.node for name in node.output if name]
    names |= {name: fresh(name) for name in made}
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in graph.initializer]
    nodes = [_renamed(node, names) for node in [*constants, *graph.node]]
    return nodes, [names.get(each.name, each.name) for each in graph.output]


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads and writes by other names, in the graphs that it holds too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    _rename(copy, names)
    return copy


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for held in (node.input, node.output):
        held[:] = [names.get(each, each) for each in held]
    for graph in _graphs(node):
        own = {each.name for each in (*graph.input, *graph.initializer)}
        own |= {name for inner in graph.node for name in inner.output}
        outer = {name: new for name, new in names.items() if name not in own}
        for inner in graph.node:
            _rename(inner, outer)
        for each in graph.output:
            each.name = outer.get(each.name, each.name)


def _graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [each.g for each in node.attribute if each.HasField("g")]


def _called(names: Sequence[str], outputs: Sequence[str]) -> Nodes:
    for name, output in zip(names, outputs, strict=False):
        if output:
            yield helper.make_node("Identity", [name], [output])


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def _number(name: str, value: Value) -> int:
    array = value(name)
    if array is None:
        raise ValueError("its number of rounds depends on the image; export it with a fixed one")
    return int(array.item())


def _truth(name: str, value: Value, what: str) -> bool:
    array = value(name)
    if array is None:
        raise ValueError(f"{what} depends on the image; export the network without it")
    return bool(array.item())
