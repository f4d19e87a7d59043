"""Which devices err less than others, layer by layer, and the mappings that cannot err less.

A mapping is maximal where no layer can move to a device that errs less and keep within the
limits. Accuracy grows with reliability, so the best mapping within the limits is one of these, and
within a tight allowance they are few: a ResNet-20 has 3^22 mappings on three devices, of which some
10,000 keep within +10 % latency and +5 % energy, and some 500 of these are maximal.

Shape legend: P mappings, L layers, D devices.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from afpjax.faults.model import FaultModel, thresholds
from afpjax.hardware.tables import CostTables
from afpjax.network.quantized import Quantized
from afpjax.search.objectives import Caps
from afpjax.search.program import ROUNDING, Accept

MOST = 4096  # maximal mappings that are few
NODES = 3_000_000  # partial mappings looked at, a few seconds
_FEASIBLE = 400_000  # whole mappings within the limits
_BLOCK = 1 << 15  # partial mappings extended at once
_MIXES = 17  # weights of latency against energy, by which a partial mapping is bounded


class Reliability(NamedTuple):
    """How a layer's devices compare."""

    alike: Int[np.ndarray, "L D"]  # equal numbers, equal rates; the first such device's number
    safer: Bool[np.ndarray, "L D D"]  # [l, d, e]: e has no rate above d's, and one below

    def choices(self, mappings: Int[np.ndarray, "P L"]) -> Int[np.ndarray, "P L"]:
        """Mappings with the first of all devices that are alike for a layer."""
        return self.alike[np.arange(len(self.alike)), mappings]


def reliability_of(faults: FaultModel, quantized: Quantized, devices: int) -> Reliability:
    """By the rates of weights and activations that faults have on each device.

    A layer without faults has devices that are all alike.
    """
    layers = len(quantized.layers)
    everywhere = np.repeat(np.arange(devices, dtype=np.int32)[:, None], layers, axis=1)
    limits = thresholds(faults, quantized, everywhere)
    parts = []
    for own, target in ((limits.weights, "weight"), (limits.activations, "activation")):
        rates = np.broadcast_to(faults.rates(target), (devices, faults.rates(target).shape[1]))
        faulty = np.array(np.asarray(own).any(axis=(0, 2)))  # [L]
        parts.append(np.where(faulty[:, None, None], rates[None], 0.0))
    return compared(np.concatenate(parts, axis=2))


def compared(rates: Float[np.ndarray, "L D R"]) -> Reliability:
    """Devices by their rates at each layer."""
    one, other = rates[:, :, None], rates[:, None]
    safer = np.all(other <= one, axis=3) & np.any(other < one, axis=3)
    return Reliability(np.all(other == one, axis=3).argmax(axis=2), np.asarray(safer))


def maximal(
    tables: CostTables,
    reliability: Reliability,
    caps: Caps,
    accept: Accept,
    *,
    most: int = MOST,
    nodes: int = NODES,
) -> Int[np.ndarray, "P L"] | None:
    """Every maximal mapping within caps, one for each set of choices, or None where that is a lot.

    Of mappings that are alike the one of the least latency x energy stands for all. Depth first,
    in blocks: a partial mapping goes on while what it costs, and the least that the layers to come
    add to any of several mixes of latency and energy, is within the caps. `accept` has the last
    word on whole ones (memory, rounding). At most `nodes` partial mappings are looked at.
    """
    found, total = [], 0
    for mappings, cost in _within(tables, caps, nodes):
        if mappings is None:
            return None
        good = accept(mappings)
        found.append((mappings[good], cost[good]))
        total += int(good.sum())
        if total > _FEASIBLE:
            return None
    if not total:
        return np.zeros((0, len(reliability.alike)), np.int32)
    mappings, cost = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.argsort(cost.prod(axis=1), kind="stable")
    mappings, choices = mappings[order], reliability.choices(mappings[order])
    first = np.sort(np.unique(choices, axis=0, return_index=True)[1])
    kept = mappings[first][~_improvable(choices[first], reliability)]
    return kept[np.lexsort(kept.T[::-1])] if len(kept) <= most else None


def _within(
    tables: CostTables, caps: Caps, nodes: int
) -> Iterator[tuple[Int[np.ndarray, "P L"] | None, Float[np.ndarray, "P 2"]]]:
    """Blocks of mappings within caps, with latency and energy; None once there is too much."""
    own = np.stack([np.asarray(tables.latency_ms), np.asarray(tables.energy_mj)], axis=2)
    layers, devices = own.shape[:2]
    limit = np.array([caps.latency_ms, caps.energy_mj])
    scale = np.where(np.isfinite(limit), limit, 1.0)
    mixes = np.linspace(0, 1, _MIXES)
    mixes = np.stack([mixes, 1 - mixes], axis=1)  # [M, 2]
    mixes = mixes[(mixes @ ~np.isfinite(limit)) == 0] / scale
    own = own.astype(np.float64)
    least = (own @ mixes.T).min(axis=1)  # [L, M]
    ahead = np.concatenate([np.cumsum(least[::-1], axis=0)[::-1], np.zeros((1, len(mixes)))])
    room = mixes @ scale * (1 + ROUNDING)
    stack = [(np.zeros((1, 0), np.int32), np.zeros((1, 2)))]
    while stack:
        mappings, cost = stack.pop()
        layer = mappings.shape[1]
        if layer == layers:
            yield mappings, cost
            continue
        nodes -= len(mappings) * devices
        if nodes < 0:
            yield None, np.zeros((0, 2))
            return
        grown = np.repeat(mappings, devices, axis=0)
        device = np.tile(np.arange(devices, dtype=np.int32), len(mappings))
        spent = np.repeat(cost, devices, axis=0) + own[layer, device]
        spent += _sent(tables, grown, layer, device)
        open_ = (spent @ mixes.T + ahead[layer + 1] <= room).all(axis=1)
        grown = np.concatenate([grown, device[:, None]], axis=1)[open_]
        spent = spent[open_]
        stack += [
            (grown[start : start + _BLOCK], spent[start : start + _BLOCK])
            for start in range(0, len(grown), _BLOCK)
        ]


def _sent(
    tables: CostTables, mappings: Int[np.ndarray, "P l"], layer: int, device: Int[np.ndarray, " P"]
) -> Float[np.ndarray, "P 2"]:
    """What it costs to bring a layer's inputs to its device, unless they are there."""
    total = np.zeros((len(mappings), 2))
    producers, consumers = np.asarray(tables.producers), np.asarray(tables.consumers)
    prices = np.stack([np.asarray(tables.link_latency_ms), np.asarray(tables.link_energy_mj)], 1)
    for tensor in np.flatnonzero(consumers[:, layer] & (producers >= 0)):
        there = mappings[:, producers[tensor]] == device
        for reader in np.flatnonzero(consumers[tensor, :layer]):
            there |= mappings[:, reader] == device
        total += np.where(there, 0.0, 1.0)[:, None] * prices[tensor].astype(np.float64)
    return total


def _improvable(choices: Int[np.ndarray, "P L"], reliability: Reliability) -> Bool[np.ndarray, "P"]:
    """Which of these sets of choices has a layer that a safer choice turns into another of them.

    Sets are compared by a random 64-bit sum, whose pairs of a few 100,000 do not meet.
    """
    alike, safer = reliability
    layers, devices = alike.shape
    words = np.random.default_rng(0).integers(0, 2**64, alike.shape, dtype=np.uint64)
    words = np.take_along_axis(words, alike, axis=1)
    places = np.arange(layers)
    with np.errstate(over="ignore"):
        names = words[places, choices].sum(axis=1, dtype=np.uint64)
        known = np.sort(names)
        improvable = np.zeros(len(choices), bool)
        for layer in range(layers):
            for device in range(devices):
                better = safer[layer, choices[:, layer], device]
                moved = names - words[layer, choices[:, layer]] + words[layer, device]
                place = np.searchsorted(known, moved).clip(max=len(known) - 1)
                improvable |= better & (known[place] == moved)
    return improvable
