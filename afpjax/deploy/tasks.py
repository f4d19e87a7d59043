"""Tasks of devices' graphs: what each reads, and what is sent between them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from afpjax.deploy.graph import Graph, leading, most_held
from afpjax.deploy.manifest import Pieces, Send, Task, Tensor


class Work(NamedTuple):
    """A task before it is known what it reads."""

    name: str
    device: str
    layers: tuple[str, ...]
    outputs: tuple[str, ...]


class Split(NamedTuple):
    """The graph of every device that has tasks, and how they work together."""

    graphs: Mapping[str, Graph]  # by device
    tasks: tuple[Task, ...]
    tensors: Mapping[str, Tensor]
    sends: tuple[Send, ...]
    pieces: Mapping[str, Pieces]  # by tensor; empty for a mapping

    def outputs(self, device: str) -> list[str]:
        """What a device's tasks make."""
        made = [name for task in self.tasks if task.device == device for name in task.outputs]
        return list(dict.fromkeys(made))

    def activation_bytes(self, device: str) -> int:
        """The most that it holds at once: for a task, and what later ones read again."""
        graph, own = self.graphs[device], [task for task in self.tasks if task.device == device]
        most, kept = 0, set[str]()
        for place, task in enumerate(own):
            beside = sum(self.tensors[name].bytes for name in kept - {*task.inputs})
            most = max(most, most_held(graph, task.inputs, task.outputs) + beside)
            later = {name for each in own[place + 1 :] for name in each.inputs}
            kept = (kept | {*task.inputs, *task.outputs}) & later
        return most


def tasks_of(
    graphs: Mapping[str, Graph], works: Sequence[Work]
) -> tuple[tuple[Task, ...], dict[str, Tensor]]:
    """The tasks, and the tensors that enter or leave them; the graphs are finished by it.

    A task reads what comes from outside its device and what the device's other tasks make.
    """
    tasks, tensors = [], {}
    for graph in graphs.values():
        graph.finished()
    for work in works:
        graph = graphs[work.device]
        others = {n for w in works if w.device == work.device and w != work for n in w.outputs}
        outside = (graph.inputs.keys() | others) - set(work.outputs)
        nodes = leading(graph.nodes, outside, work.outputs)
        read = dict.fromkeys(name for node in nodes for name in node.input if name in outside)
        tasks.append(Task(work.name, work.device, work.layers, tuple(read), work.outputs))
        for name in (*read, *work.outputs):
            ref = graph.tensors[name]
            tensors[name] = Tensor(ref.shape, str(ref.dtype))
    return tuple(tasks), tensors


def transfers(tasks: Sequence[Task], tensors: Mapping[str, Tensor]) -> Iterator[Send]:
    """Every tensor goes once to each other device that reads it."""
    makers = {name: task.device for task in tasks for name in task.outputs}
    pairs = {
        (name, makers[name], task.device): None
        for task in tasks
        for name in task.inputs
        if name in makers and makers[name] != task.device
    }
    for name, source, target in pairs:
        yield Send(name, source, target, tensors[name].bytes)
