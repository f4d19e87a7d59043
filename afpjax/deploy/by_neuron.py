"""A placement cut into tasks: each device's own neurons of each layer."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from afpjax.deploy.coded import coded
from afpjax.deploy.graph import Graph
from afpjax.deploy.layers import as_traced, layer, natural_shape
from afpjax.deploy.manifest import Pieces, Send, Tensor
from afpjax.deploy.source import LOGITS, Known, Source, free
from afpjax.deploy.tasks import Split, Work, tasks_of
from afpjax.network.program import Equation, LayerCall, Value
from afpjax.neurons.placement import Placement

Values = Sequence[Float[np.ndarray, "_"]]  # by layer


def by_neuron(
    source: Source, placement: Placement, substitutes: Values, devices: Sequence[str]
) -> Split:
    """Every device computes its own neurons of each layer, from the whole tensors before it; the
    spare, if there is one, sums of the others' too.

    What lies between layers (activations, pooling, joins) every device works out for itself, the
    logits too. A whole tensor bears its layer's name, a piece of it LAYER@DEVICE.
    """
    names = source.program.graph.names
    taken = {*source.names.values(), *names}
    pieces = {
        call.layer.name: _pieces(source, call, placement, place, values, devices, taken)
        for place, (call, values) in enumerate(zip(source.program.calls, substitutes, strict=True))
    }
    graphs = {device: Graph(taken) for device in devices}
    for number, graph in enumerate(graphs.values()):
        _emit(source, graph, pieces, number)
    works = [
        Work(piece, device, (name,), (piece,))
        for name, each in pieces.items()
        for device, piece in zip(devices, each.made, strict=True)
        if piece
    ]
    last = _logits(source)
    works += [Work(free(f"{LOGITS}@{each}", taken), each, (), (last,)) for each in devices]
    tasks, tensors = tasks_of(graphs, works)
    for call in source.program.calls:
        shape, _ = natural_shape(call, source.batch, call.layer.neurons)
        tensors[call.layer.name] = Tensor(shape, str(np.dtype(call.dtype)))
    sends = tuple(_gathered(placement, pieces, tensors, devices))
    return Split(graphs, tasks, tensors, sends, pieces)


def _pieces(
    source: Source,
    call: LayerCall,
    placement: Placement,
    place: int,
    substitute: np.ndarray,
    devices: Sequence[str],
    taken: set[str],
) -> Pieces:
    name = call.layer.name
    neurons = tuple(tuple(np.flatnonzero(own).tolist()) for own in placement.holds[place])
    sums = tuple(tuple(np.flatnonzero(row).tolist()) for row in placement.coded(place))
    spare = placement.spare if placement.spare is not None and sums else -1
    made = tuple(
        free(f"{name}@{device}", taken) if own or number == spare else ""
        for number, (device, own) in enumerate(zip(devices, neurons, strict=True))
    )
    _, axis = natural_shape(call, source.batch, call.layer.neurons)
    return Pieces(name, axis, made, neurons, tuple(map(float, substitute)), sums, spare)


def _emit(source: Source, graph: Graph, pieces: Mapping[str, Pieces], device: int) -> None:
    """All that one device can work out: its pieces, and the logits."""
    known = source.begun(graph)
    for step in source.living:
        if isinstance(step, Equation):
            source.follow(graph, step, known)
            continue
        own = pieces[step.layer.name]
        if own.made[device]:
            _piece(source, graph, known, step, own, device)
        shape, _ = natural_shape(step, source.batch, step.layer.neurons)
        graph.at = step.layer.name
        whole = graph.input(step.layer.name, shape, step.dtype)
        known[step.output] = as_traced(graph, step, whole, source.batch)
    last = source.program.output
    assert isinstance(last, Value), "a network's logits depend on the image"
    graph.at = _logits(source)
    graph.named(known[last], _logits(source))


def _piece(
    source: Source, graph: Graph, known: Known, call: LayerCall, pieces: Pieces, device: int
) -> None:
    graph.at = pieces.made[device]
    given = source.quantized, call, source.arrays[call.layer.name], known[call.input]
    made = []
    if neurons := pieces.neurons[device]:
        made.append(layer(graph, *given, neurons))
    if device == pieces.spare:
        sums = np.zeros((len(pieces.sums), call.layer.neurons), bool)
        for row, members in zip(sums, pieces.sums, strict=True):
            row[list(members)] = True
        made.append(coded(graph, *given, sums))
    whole = made[0]
    if len(made) > 1:
        count = len(neurons) + len(pieces.sums)
        shape, axis = natural_shape(call, source.batch, count)
        whole = graph.node("Concat", made, shape, whole.dtype, axis=axis)
    graph.named(whole, pieces.made[device])


def _logits(source: Source) -> str:
    last = source.program.output
    assert isinstance(last, Value), "a network's logits depend on the image"
    return source.names[last]


def _gathered(
    placement: Placement,
    pieces: Mapping[str, Pieces],
    tensors: Mapping[str, Tensor],
    devices: Sequence[str],
) -> Iterator[Send]:
    """Without failures: a device that answers for neurons sends them to those without a copy."""
    for (name, each), held, by in zip(
        pieces.items(), placement.holds, placement.answering(()), strict=True
    ):
        one = tensors[name].bytes // held.shape[1]
        for source, giver in enumerate(devices):
            for target, taker in enumerate(devices):
                count = int(((by == source) & ~held[target]).sum())
                if count:
                    yield Send(each.made[source], giver, taker, count * one)
