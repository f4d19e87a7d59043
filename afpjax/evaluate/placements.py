"""Networks whose neurons devices share out: which device each is from, and its faults.

Under faults of the link, what a layer makes is faulty once, and every device reads what arrived
(`links_of`). The values that a device made itself are faulty too, as if it had sent them to itself:
with D devices about a share 1/D of them never crosses, so the faults are an upper bound. Packets
run over the values of a whole layer, whoever sends them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt32

from afpjax.evaluate.plan import StageFaults
from afpjax.faults import kinds
from afpjax.faults.bits import threshold
from afpjax.faults.link import broadcast
from afpjax.faults.model import FaultModel, check_bits, layer_mask
from afpjax.faults.spec import FaultSpec, words
from afpjax.inputs.errors import InputError
from afpjax.network.quantized import Quantized

LOST = -1
TARGETS = ("weight", "activation")
#: By layer, the device that answers for each neuron, -1 where it is lost.
Answering = Sequence[Int[Any, "_"]]


def faults_of(
    quantized: Quantized, faults: FaultModel | None, placements: Sequence[Answering]
) -> tuple[FaultSpec, list[tuple[StageFaults, ...]]]:
    """The programs that are needed, and every layer's faults in each of P networks.

    Raises `InputError` for faults that are not drawn value by value, and where placements do not
    fit the network or the faults' devices.
    """
    for answering in placements:
        _check(quantized, answering)
    if faults is None or not any(faults.rates(target).any() for target in TARGETS):
        lost = [tuple(_lost(layer) for layer in answering) for answering in placements]
        return _of_link_alone(faults), lost
    _check_faults(quantized, faults)
    devices = 1 + max((int(np.max(layer)) for by in placements for layer in by), default=0)
    weights, inputs = (_table(faults, target, devices) for target in TARGETS)
    inputs = inputs if inputs.any() else inputs[:1]  # copies of one kind are all alike
    faulty = layer_mask(faults, quantized.graph)

    def of_layer(number: int, answering: Int[np.ndarray, "C"]) -> StageFaults:
        return _faulty(answering, weights, inputs) if faulty[number] else _lost(answering)

    of_all = [
        tuple(of_layer(number, np.asarray(layer)) for number, layer in enumerate(answering))
        for answering in placements
    ]
    return faults.spec(len(inputs)), of_all


def links_of(
    quantized: Quantized, faults: FaultModel | None
) -> UInt32[np.ndarray, "W *words"] | None:
    """Thresholds of what the layers send one another, by `stages.wires`; None without faults."""
    if faults is None or not faults.corrupts_link:
        return None
    return broadcast(quantized.program, faults.link_threshold)


def _of_link_alone(faults: FaultModel | None) -> FaultSpec:
    """The programs of layers without bit-flips, with what the link does, if it does anything."""
    spec = FaultSpec() if faults is None else faults.spec()
    if not spec.link:
        return FaultSpec(copies=1)
    return FaultSpec(
        copies=1,
        generator=spec.generator,
        scope=spec.scope,
        link=spec.link,
        packet=spec.packet,
        rare_link=spec.rare_link,
    )


def side_by_side(
    of_all: Sequence[tuple[StageFaults, ...]], devices: int
) -> tuple[StageFaults, ...]:
    """Networks without bit-flips as one row, one on each device; the last on those left over."""
    every = [*of_all, *[of_all[-1]] * (devices - len(of_all))]
    of_layers = [[layer.outputs for layer in faults] for faults in zip(*every, strict=True)]
    return tuple(
        StageFaults(outputs=b"".join(own or bytes(max(map(len, outputs))) for own in outputs))
        for outputs in of_layers
    )


def _lost(answering: Int[Any, "C"]) -> StageFaults:
    """A layer without bit-flips: all that matters is who is gone."""
    return StageFaults(outputs=_outputs(np.where(np.asarray(answering) < 0, LOST, 0)))


def _faulty(
    answering: Int[np.ndarray, "C"],
    weights: UInt32[np.ndarray, "D columns"],
    inputs: UInt32[np.ndarray, "copies columns"],
) -> StageFaults:
    lost = answering < 0
    of_neurons = np.where(lost[:, None], np.uint32(0), weights[np.maximum(answering, 0)])
    reads = np.isin(np.arange(len(inputs)), answering)  # a copy that nobody reads has no faults
    read = np.where(reads[:, None], inputs, np.uint32(0))
    outputs = answering if read.any() else np.where(lost, LOST, 0)
    return StageFaults(words(of_neurons), words(read), _outputs(outputs))


def _outputs(answering: Int[np.ndarray, "C"]) -> bytes:
    return answering.astype(np.int8).tobytes() if answering.any() else b""


def _table(faults: FaultModel, target: str, devices: int) -> UInt32[np.ndarray, "D columns"]:
    """Thresholds of every device."""
    table = threshold(faults.rates(target), rare=faults.rare)
    if len(table) == 1:
        return np.repeat(table, max(devices, 1), axis=0)
    if len(table) < devices:
        raise InputError(
            f"faults.{target}_rate: {len(table)} rates, but {devices} devices hold neurons; give "
            "one rate, or one per device"
        )
    return table


def _check_faults(quantized: Quantized, faults: FaultModel) -> None:
    if faults.budget is not None:
        raise InputError("faults.budget: counts flips of one device; distributed neurons need 0")
    if kinds.named(faults.kind).drawn == "packet":
        raise InputError(
            f"faults.kind: {faults.kind} loses packets of neighbouring values; neurons that "
            "devices share out need a kind that is drawn value by value"
        )
    check_bits(faults, quantized)


def _check(quantized: Quantized, answering: Answering) -> None:
    if len(answering) != len(quantized.layers):
        raise InputError(
            f"placement: of {len(answering)} layers, but the network has {len(quantized.layers)}"
        )
    for layer, own in zip(quantized.layers, answering, strict=True):
        if np.shape(own) != (layer.neurons,):
            raise InputError(
                f"placement: {np.size(own)} neurons in layer {layer.name}, which has "
                f"{layer.neurons}"
            )
