"""A mapping cut into tasks: runs of consecutive layers on one device."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from afpjax.deploy.graph import Graph
from afpjax.deploy.layers import as_traced, layer
from afpjax.deploy.source import Known, Source, Step
from afpjax.deploy.tasks import Split, Work, tasks_of, transfers
from afpjax.network.program import Equation, Value, reads


class _Run(NamedTuple):
    """Consecutive layers on one device, with what follows each of them."""

    device: str
    layers: range
    steps: tuple[Step, ...]


def by_layer(source: Source, mapping: Int[np.ndarray, " L"], devices: Sequence[str]) -> Split:
    """Layer l, and what follows it before the next, on device mapping[l].

    What comes before all layers is worked out by every device that needs it; devices without
    layers have no part.
    """
    runs = _runs(source, [devices[int(number)] for number in mapping])
    graphs = {run.device: Graph(source.names.values()) for run in runs}
    known = {device: source.begun(graph) for device, graph in graphs.items()}
    works = []
    for run in runs:
        graph, own = graphs[run.device], known[run.device]
        _emit(source, graph, run, own)
        made = _wanted(source, run)
        for value in made:
            graph.at = source.names[value]
            graph.named(own[value], source.names[value])
        names = tuple(source.program.graph.names[number] for number in run.layers)
        works.append(Work(names[0], run.device, names, tuple(source.names[v] for v in made)))
    tasks, tensors = tasks_of(graphs, works)
    return Split(graphs, tasks, tensors, tuple(transfers(tasks, tensors)), {})


def _runs(source: Source, devices: Sequence[str]) -> list[_Run]:
    """In running order; `devices` is each layer's."""
    runs = []
    for device, numbers in groupby(range(len(devices)), key=devices.__getitem__):
        layers = list(numbers)
        span = range(layers[0], layers[-1] + 1)
        own = tuple(step for step in source.living if source.home[step.outputs[0]] in span)
        runs.append(_Run(device, span, own))
    return runs


def _emit(source: Source, graph: Graph, run: _Run, known: Known) -> None:
    """Convert a run's steps; what another device made comes in by its name."""
    for step in run.steps:
        for value in reads(step):
            if value not in known:
                known[value] = graph.input(source.names[value], *source.shapes[value])
        if isinstance(step, Equation):
            source.follow(graph, step, known)
            continue
        graph.at = step.layer.name
        arrays = source.arrays[step.layer.name]
        made = layer(graph, source.quantized, step, arrays, known[step.input])
        known[step.output] = as_traced(graph, step, made, source.batch)


def _wanted(source: Source, run: _Run) -> list[Value]:
    """What other runs, or whoever wants the logits, read of what a run makes."""
    inside = {id(step) for step in run.steps}
    others = (step for step in source.living if id(step) not in inside)
    read = {value for step in others for value in reads(step)} | {source.program.output}
    return [value for step in run.steps for value in step.outputs if value in read]
