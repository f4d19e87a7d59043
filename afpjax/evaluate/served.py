"""Networks whose neurons devices share out, as rows of a plan: who answers, under which faults.

Under faults of the link, what a layer makes is struck once, and every device reads what arrived
(`links_of`). The values that a device made itself are struck too, as if it had sent them to itself:
with D devices about a share 1/D of them never crosses, so the faults are an upper bound. Packets
run over the values of a whole layer, whoever sends them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int, UInt32

from afpjax.evaluate.plan import Strike
from afpjax.faults.bits import threshold
from afpjax.faults.link import broadcast
from afpjax.faults.model import FaultModel, check_bits, layer_mask, words
from afpjax.faults.strike import Draws
from afpjax.inputs.errors import InputError
from afpjax.network.quantized import Quantized

LOST = -1
TARGETS = ("weight", "activation")


def strikes_of(
    quantized: Quantized,
    faults: FaultModel | None,
    by: Sequence[Sequence[Int[np.ndarray, "_"]]],
) -> tuple[Draws, list[tuple[Strike, ...]]]:
    """The programs that are needed, and what every layer of each of P networks meets.

    `by` has, P times and by layer, the device that answers for each neuron, or -1. Raises
    `InputError` for faults that do not strike value by value, and where `by` does not fit the
    network or the faults' devices.
    """
    for each in by:
        _check(quantized, each)
    if faults is None or not any(faults.rates(target).any() for target in TARGETS):
        return _of_link_alone(faults), [tuple(_lost(layer) for layer in each) for each in by]
    _check_faults(quantized, faults)
    weights, inputs = (_table(faults, target, _devices(by)) for target in TARGETS)
    inputs = inputs if inputs.any() else inputs[:1]  # copies of one kind are all alike
    struck = layer_mask(faults, quantized.graph)

    def meets(number: int, layer: Int[np.ndarray, "C"]) -> Strike:
        return _strike(layer, weights, inputs) if struck[number] else _lost(layer)

    of_all = [
        tuple(meets(number, np.asarray(layer)) for number, layer in enumerate(each)) for each in by
    ]
    return Draws.of(faults, len(inputs)), of_all


def links_of(
    quantized: Quantized, faults: FaultModel | None
) -> UInt32[np.ndarray, "W *words"] | None:
    """Thresholds of what layers send one another, by `stages.transfers`; None without faults."""
    if faults is None or not faults.strikes_link:
        return None
    return broadcast(quantized.program, faults.link_limit)


def _of_link_alone(faults: FaultModel | None) -> Draws:
    """The programs of layers that nothing strikes, with what the link does, if it does anything."""
    if faults is None:
        return Draws(copies=1)
    of = Draws.of(faults)
    if not of.link:
        return Draws(copies=1)
    return replace(
        Draws(copies=1),
        generator=of.generator,
        scope=of.scope,
        link=of.link,
        packet=of.packet,
        rare_link=of.rare_link,
    )


def together(of_all: Sequence[tuple[Strike, ...]], devices: int) -> tuple[Strike, ...]:
    """Networks without bit-flips as one row, one on each device; the last on those left over."""
    every = [*of_all, *[of_all[-1]] * (devices - len(of_all))]
    return tuple(_beside(strikes) for strikes in zip(*every, strict=True))


def digest(strikes: Sequence[Strike]) -> bytes:
    """What tells the strikes of all layers from others."""
    found = hashlib.blake2b(digest_size=16)
    for strike in strikes:
        for each in strike:
            assert isinstance(each, bytes), "shared-out neurons are struck at rates, not at places"
            found.update(len(each).to_bytes(8, "little") + each)
    return found.digest()


def _beside(strikes: Sequence[Strike]) -> Strike:
    """What a layer loses on each device."""
    size = max(len(strike.outputs) for strike in strikes)
    return Strike(outputs=b"".join(strike.outputs or bytes(size) for strike in strikes))


def _lost(by: Int[Any, "C"]) -> Strike:
    """A layer without bit-flips: all that matters is who is gone."""
    return Strike(outputs=_outputs(np.where(np.asarray(by) < 0, LOST, 0)))


def _strike(
    by: Int[np.ndarray, "C"],
    weights: UInt32[np.ndarray, "D columns"],
    inputs: UInt32[np.ndarray, "copies columns"],
) -> Strike:
    gone = by < 0
    of_neurons = np.where(gone[:, None], np.uint32(0), weights[np.maximum(by, 0)])
    answering = np.isin(np.arange(len(inputs)), by)  # what nobody reads strikes nobody
    read = np.where(answering[:, None], inputs, np.uint32(0))
    who = by if read.any() else np.where(gone, LOST, 0)
    return Strike(words(of_neurons), words(read), _outputs(who))


def _outputs(who: Int[np.ndarray, "C"]) -> bytes:
    return who.astype(np.int8).tobytes() if who.any() else b""


def _devices(by: Sequence[Sequence[Int[np.ndarray, "_"]]]) -> int:
    return 1 + max((int(np.max(layer)) for each in by for layer in each), default=0)


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
    if faults.kind in ("lost", "lost-last"):
        raise InputError(
            f"faults.kind: {faults.kind} loses packets of neighbouring values; neurons that "
            "devices share out need a kind that strikes value by value"
        )
    check_bits(faults, quantized)


def _check(quantized: Quantized, by: Sequence[Int[Any, "_"]]) -> None:
    if len(by) != len(quantized.layers):
        raise InputError(
            f"placement: of {len(by)} layers, but the network has {len(quantized.layers)}"
        )
    for layer, each in zip(quantized.layers, by, strict=True):
        if np.shape(each) != (layer.neurons,):
            raise InputError(
                f"placement: {np.size(each)} neurons in layer {layer.name}, which has "
                f"{layer.neurons}"
            )
