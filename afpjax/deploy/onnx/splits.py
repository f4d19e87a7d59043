"""A network cut into the tasks of devices: a mapping by layers, a placement by neurons."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from afpjax.deploy.manifest import DeviceTask, LayerPieces, TensorInfo, TensorTransfer
from afpjax.deploy.onnx.graph import Graph, nodes_between, peak_bytes, unused_name
from afpjax.deploy.onnx.layers import natural_shape
from afpjax.deploy.onnx.network import LOGITS, ExportableNetwork, Operands
from afpjax.network.program import Equation, LayerCall, reads
from afpjax.neurons.placement import Placement


class NetworkSplit(NamedTuple):
    """The graph of every device that has tasks, and how they work together."""

    graphs: Mapping[str, Graph]  # by device
    tasks: tuple[DeviceTask, ...]
    tensors: Mapping[str, TensorInfo]
    sends: tuple[TensorTransfer, ...]
    pieces: Mapping[str, LayerPieces]  # by tensor; empty for a mapping

    def outputs(self, device: str) -> list[str]:
        """What a device's tasks make."""
        made = [name for task in self.tasks if task.device == device for name in task.outputs]
        return list(dict.fromkeys(made))

    def activation_bytes(self, device: str) -> int:
        """The most that it holds at once: for a task, and what later ones read again."""
        graph, own = self.graphs[device], [task for task in self.tasks if task.device == device]
        most, kept = 0, set[str]()
        for number, task in enumerate(own):
            beside = sum(self.tensors[name].bytes for name in kept - {*task.inputs})
            most = max(most, peak_bytes(graph, task.inputs, task.outputs) + beside)
            later = {name for other in own[number + 1 :] for name in other.inputs}
            kept = (kept | {*task.inputs, *task.outputs}) & later
        return most


def split_by_layer(
    network: ExportableNetwork, mapping: Int[np.ndarray, " L"], devices: Sequence[str]
) -> NetworkSplit:
    """Layer l, and what follows it before the next, on device mapping[l].

    A task is a run of consecutive layers on one device. What comes before all layers is worked out
    by every device that needs it; devices without layers have no part.
    """
    names, layers = network.names, network.program.graph.names
    graphs, known, tasks = dict[str, Graph](), dict[str, Operands](), []
    for number, run in groupby(range(len(mapping)), key=lambda layer: int(mapping[layer])):
        own, device = set(run), devices[number]
        if device not in graphs:
            graphs[device] = Graph(names.values())
            known[device] = network.begin(graphs[device])
        graph, operands = graphs[device], known[device]
        steps = [step for step in network.steps if network.home[step.outputs[0]] in own]
        for step in steps:
            for value in reads(step):
                if value not in operands:  # another device made it
                    operands[value] = graph.input(names[value], *network.shapes[value])
            if isinstance(step, Equation):
                network.convert(graph, step, operands)
            else:
                graph.scope = step.layer.name
                layer = network.layer(graph, step)
                natural = layer.neurons(operands[step.input])
                operands[step.output] = layer.as_traced(natural, network.batch)
        others = (s for s in network.steps if network.home[s.outputs[0]] not in own)
        wanted = {value for step in others for value in reads(step)} | {network.program.output}
        outputs = [value for step in steps for value in step.outputs if value in wanted]
        for value in outputs:
            graph.scope = names[value]
            graph.publish(operands[value], names[value])
        run_layers = tuple(layers[layer] for layer in sorted(own))
        tasks.append(_task(run_layers[0], device, run_layers, [names[v] for v in outputs]))
    tasks, tensors = _with_inputs(graphs, tasks)
    return NetworkSplit(graphs, tasks, tensors, tuple(_transfers(tasks, tensors)), {})


def _task(name: str, device: str, layers: Sequence[str], outputs: Sequence[str]) -> DeviceTask:
    """Before it is known what it reads."""
    return DeviceTask(task=name, device=device, layers=(*layers,), inputs=(), outputs=(*outputs,))


def _with_inputs(
    graphs: Mapping[str, Graph], tasks: Sequence[DeviceTask]
) -> tuple[tuple[DeviceTask, ...], dict[str, TensorInfo]]:
    """The tasks with what they read, and the tensors that enter or leave them; completes graphs.

    A task reads what comes from outside its device and what the device's other tasks make.
    """
    complete, tensors = [], {}
    for graph in graphs.values():
        graph.apply_names()
    for task in tasks:
        graph = graphs[task.device]
        others = {
            name
            for other in tasks
            if other.device == task.device and other is not task
            for name in other.outputs
        }
        outside = (graph.inputs.keys() | others) - set(task.outputs)
        nodes = nodes_between(graph.nodes, outside, task.outputs)
        inputs = dict.fromkeys(name for node in nodes for name in node.input if name in outside)
        complete.append(task.model_copy(update={"inputs": tuple(inputs)}))
        for name in (*inputs, *task.outputs):
            tensor = graph.tensors[name]
            tensors[name] = TensorInfo(shape=tensor.shape, dtype=str(tensor.dtype))
    return tuple(complete), tensors


def _transfers(
    tasks: Sequence[DeviceTask], tensors: Mapping[str, TensorInfo]
) -> Iterator[TensorTransfer]:
    """Every tensor goes once to each other device that reads it."""
    makers = {name: task.device for task in tasks for name in task.outputs}
    pairs = dict.fromkeys(
        (name, task.device)
        for task in tasks
        for name in task.inputs
        if makers.get(name, task.device) != task.device
    )
    for name, target in pairs:
        size = tensors[name].bytes
        yield TensorTransfer(tensor=name, source=makers[name], target=target, bytes=size)


def split_by_neuron(
    network: ExportableNetwork,
    placement: Placement,
    substitutes: Sequence[Float[np.ndarray, "_"]],
    devices: Sequence[str],
) -> NetworkSplit:
    """Every device computes its own neurons of each layer, from the whole tensors before it; the
    spare, if there is one, sums of the others' too.

    What lies between layers (activations, pooling, joins) every device works out for itself, the
    logits too. A whole tensor bears its layer's name, a piece of it LAYER@DEVICE.
    """
    calls = network.program.calls
    taken = {*network.names.values(), *network.program.graph.names}

    def new_name(name: str) -> str:
        taken.add(name := unused_name(name, taken))
        return name

    pieces = dict[str, LayerPieces]()
    for number, (call, values) in enumerate(zip(calls, substitutes, strict=True)):
        name = call.layer.name
        neurons = tuple(tuple(np.flatnonzero(row).tolist()) for row in placement.holds[number])
        sums = tuple(tuple(np.flatnonzero(row).tolist()) for row in placement.coded(number))
        spare = placement.spare if placement.spare is not None and sums else -1
        pieces[name] = LayerPieces(
            layer=name,
            axis=natural_shape(call, network.batch, call.layer.neurons)[1],
            made=tuple(
                new_name(f"{name}@{device}") if neurons[d] or d == spare else ""
                for d, device in enumerate(devices)
            ),
            neurons=neurons,
            substitute=tuple(map(float, values)),
            sums=sums,
            spare=spare,
        )
    graphs = {device: Graph(taken) for device in devices}
    for number, graph in enumerate(graphs.values()):
        _write_device(network, graph, pieces, number)
    tasks = [
        _task(piece, device, [name], [piece])
        for name, layer in pieces.items()
        for device, piece in zip(devices, layer.made, strict=True)
        if piece
    ]
    logits = network.names[network.output]
    tasks += [_task(new_name(f"{LOGITS}@{device}"), device, [], [logits]) for device in devices]
    tasks, tensors = _with_inputs(graphs, tasks)
    for call in calls:
        shape, _ = natural_shape(call, network.batch, call.layer.neurons)
        tensors[call.layer.name] = TensorInfo(shape=shape, dtype=str(np.dtype(call.dtype)))
    sends = tuple(_gathered(placement, pieces, tensors, devices))
    return NetworkSplit(graphs, tasks, tensors, sends, pieces)


def _write_device(
    network: ExportableNetwork, graph: Graph, pieces: Mapping[str, LayerPieces], device: int
) -> None:
    """All that one device can work out: its pieces, and the logits."""
    known = network.begin(graph)
    for step in network.steps:
        if isinstance(step, Equation):
            network.convert(graph, step, known)
            continue
        if pieces[step.layer.name].made[device]:
            _write_piece(network, graph, known, step, pieces[step.layer.name], device)
        shape, _ = natural_shape(step, network.batch, step.layer.neurons)
        graph.scope = step.layer.name
        whole = graph.input(step.layer.name, shape, step.dtype)
        known[step.output] = network.layer(graph, step).as_traced(whole, network.batch)
    graph.scope = network.names[network.output]
    graph.publish(known[network.output], graph.scope)


def _write_piece(
    network: ExportableNetwork,
    graph: Graph,
    known: Operands,
    call: LayerCall,
    pieces: LayerPieces,
    device: int,
) -> None:
    """A device's own neurons of a layer; behind them, where it is the spare, its sums."""
    graph.scope = pieces.made[device]
    layer, x, parts = network.layer(graph, call), known[call.input], []
    if neurons := pieces.neurons[device]:
        parts.append(layer.neurons(x, neurons))
    if device == pieces.spare:
        sums = np.zeros((len(pieces.sums), call.layer.neurons), bool)
        for row, members in zip(sums, pieces.sums, strict=True):
            row[list(members)] = True
        parts.append(layer.sums(x, sums))
    piece = parts[0]
    if len(parts) > 1:
        count = len(neurons) + len(pieces.sums)
        shape, axis = natural_shape(call, network.batch, count)
        piece = graph.node("Concat", parts, shape, piece.dtype, axis=axis)
    graph.publish(piece, pieces.made[device])


def _gathered(
    placement: Placement,
    pieces: Mapping[str, LayerPieces],
    tensors: Mapping[str, TensorInfo],
    devices: Sequence[str],
) -> Iterator[TensorTransfer]:
    """Without failures: a device that answers for neurons sends them to those without a copy."""
    for (name, layer), held, by in zip(
        pieces.items(), placement.holds, placement.answering(()), strict=True
    ):
        neuron_bytes = tensors[name].bytes // held.shape[1]
        for number, source in enumerate(devices):
            for other, target in enumerate(devices):
                count = int(((by == number) & ~held[other]).sum())
                if count:
                    yield TensorTransfer(
                        tensor=layer.made[number],
                        source=source,
                        target=target,
                        bytes=count * neuron_bytes,
                    )
