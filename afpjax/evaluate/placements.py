"""Networks whose neurons devices share out: which device each is from, and its faults.

Under faults of the link, what a layer makes is faulty once, and every device reads what arrived
(`links_of`). The values that a device made itself are faulty too, as if it had sent them to itself:
with D devices about a share 1/D of them never crosses, so the faults are an upper bound. Packets
run over the values of a whole layer, whoever sends them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int8, UInt32

from afpjax.faults import kinds
from afpjax.faults.bits import threshold
from afpjax.faults.link import broadcast
from afpjax.faults.model import FaultModel, check_bits, layer_mask
from afpjax.faults.spec import FaultSpec
from afpjax.inputs.errors import InputError
from afpjax.network.quantized import Quantized

LOST = -1
TARGETS = ("weight", "activation")
#: By layer, the device that answers for each neuron, -1 where it is lost.
Answering = Sequence[Int[Any, "_"]]


class PlacementFaults(NamedTuple):
    """One layer's faults in P networks, as `rows.at_rates` takes them."""

    weights: UInt32[np.ndarray, "P C columns"]  # thresholds of each neuron's
    inputs: UInt32[np.ndarray, "P copies columns"]
    answering: Int8[np.ndarray, "P C"]  # the read copy that each neuron is from, -1 if it is lost


def faults_of(
    quantized: Quantized, faults: FaultModel | None, placements: Sequence[Answering]
) -> tuple[FaultSpec, list[PlacementFaults]]:
    """The programs that are needed, and every layer's faults in each of P networks.

    Raises `InputError` for faults that are not drawn value by value, and where placements do not
    fit the network or the faults' devices.
    """
    for answering in placements:
        _check(quantized, answering)
    layers = range(len(quantized.layers))
    of_layers = [np.stack([np.asarray(of[n]) for of in placements]) for n in layers]
    if faults is None or not any(faults.rates(target).any() for target in TARGETS):
        spec = _of_link_alone(faults)
        return spec, [_lost(answering, spec) for answering in of_layers]
    _check_faults(quantized, faults)
    devices = 1 + max((int(layer.max()) for layer in of_layers), default=0)
    weights, inputs = (_table(faults, target, devices) for target in TARGETS)
    inputs = inputs if inputs.any() else inputs[:1]  # copies of one kind are all alike
    spec, faulty = faults.spec(len(inputs)), layer_mask(faults, quantized.graph)
    return spec, [
        _faulty(answering, weights, inputs) if faulty[n] else _lost(answering, spec)
        for n, answering in enumerate(of_layers)
    ]


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


def _lost(answering: Int[np.ndarray, "P C"], spec: FaultSpec) -> PlacementFaults:
    """A layer without bit-flips: all that matters is who is gone."""
    count, neurons = answering.shape
    weights = np.zeros((count, neurons, spec.columns), np.uint32)
    inputs = np.zeros((count, spec.copies, spec.columns), np.uint32)
    return PlacementFaults(weights, inputs, np.where(answering < 0, LOST, 0).astype(np.int8))


def _faulty(
    answering: Int[np.ndarray, "P C"],
    weights: UInt32[np.ndarray, "D columns"],
    inputs: UInt32[np.ndarray, "copies columns"],
) -> PlacementFaults:
    lost = answering < 0
    of_neurons = np.where(lost[..., None], np.uint32(0), weights[np.maximum(answering, 0)])
    # A copy that nobody reads has no faults.
    reads = (answering[:, None, :] == np.arange(len(inputs))[:, None]).any(axis=2)
    read = np.where(reads[..., None], inputs, np.uint32(0))
    none = np.asarray(~read.any(axis=(1, 2)))
    outputs = np.where(none[:, None], np.where(lost, LOST, 0), answering)
    return PlacementFaults(of_neurons, read, outputs.astype(np.int8))


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
