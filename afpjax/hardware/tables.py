"""Costs as arrays: layer x device tables, and what one mapping of layers to devices costs.

Shape legend: L layers, D devices, T tensors that pass between layers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from afpjax.inputs.errors import InputError
from afpjax.network.layers import LayerGraph


class Shared(NamedTuple):
    """Kernels that several layers read: a device that runs several of these holds them once."""

    before: Bool[Array, "L L"]  # [l, m]: m comes before l, and reads the same stored kernel
    bytes: Float[Array, "L"]  # of the kernel, for layers that have one before them, else 0


class CostTables(NamedTuple):
    """All that the cost of a mapping depends on; every figure is for one batch of images."""

    latency_ms: Float[Array, "L D"]
    energy_mj: Float[Array, "L D"]
    weight_bytes: Float[Array, "L"]
    activation_bytes: Float[Array, "L"]  # input and output of the layer
    capacity_bytes: Float[Array, "D"]
    producers: Int[Array, "T"]  # -1: the network's input
    consumers: Bool[Array, "T L"]
    link_latency_ms: Float[Array, "T"]  # of one transfer
    link_energy_mj: Float[Array, "T"]
    shared: Shared | None = None  # None: every layer has a kernel of its own


class MappingCost(NamedTuple):
    """One mapping's totals for one batch; the first two include the links' share."""

    latency_ms: Float[Array, ""]
    energy_mj: Float[Array, ""]
    link_latency_ms: Float[Array, ""]
    link_energy_mj: Float[Array, ""]
    violation: Float[Array, ""]


def mapping_cost(tables: CostTables, mapping: Int[Array, "L"]) -> MappingCost:
    """Latency, energy, link shares and memory violation of one mapping (device index per layer).

    Layers run one after the other, so latencies add up. A tensor crosses the link once for every
    device, other than its producer's, that holds one of its consumers. The network's input
    (producer -1) costs nothing: the sensor writes to whichever device reads it.
    violation = sum over devices of max(0, used - capacity) / capacity, where used = weights of the
    device's layers, those that several share once, + the largest activations (input and output)
    of one of them.
    Pure jnp for ONE mapping; the caller maps and compiles it.
    """
    layers, devices = tables.latency_ms.shape
    each_layer = jnp.arange(layers)
    runs_on = mapping[:, None] == jnp.arange(devices, dtype=mapping.dtype)[None, :]
    transfers = _transfers(tables, mapping, runs_on).astype(jnp.float32)
    link_latency = jnp.sum(transfers * tables.link_latency_ms)
    link_energy = jnp.sum(transfers * tables.link_energy_mj)
    return MappingCost(
        latency_ms=jnp.sum(tables.latency_ms[each_layer, mapping]) + link_latency,
        energy_mj=jnp.sum(tables.energy_mj[each_layer, mapping]) + link_energy,
        link_latency_ms=link_latency,
        link_energy_mj=link_energy,
        violation=_violation(tables, runs_on),
    )


def check_capacity(tables: CostTables, devices: Sequence[str], graph: LayerGraph) -> None:
    """InputError where memory rules out every mapping, naming a layer and one of the `devices`.

    Refused are a layer that fits on no device, and layers whose weights together exceed all
    capacities together. Tighter packings are left to the search, which sees the violation.
    """
    weights = np.array(tables.weight_bytes, np.float64)
    alone = weights + np.asarray(tables.activation_bytes, np.float64)
    capacity = np.asarray(tables.capacity_bytes, np.float64)
    largest = int(capacity.argmax())
    room = f"device `{devices[largest]}`, the largest, has {_mib(capacity[largest])}"
    for name, size in zip(graph.names, alone, strict=True):
        if size > capacity[largest]:
            raise InputError(
                f"layer `{name}` fits on no device: it needs {_mib(size)} and {room};"
                " raise memory_bytes, lower the batch or use fewer bits"
            )
    if tables.shared is not None:  # a kernel is held once at least
        weights -= np.asarray(tables.shared.bytes)
    if weights.sum() > capacity.sum():
        name = graph.names[_first_without_room(weights, capacity)]
        raise InputError(
            f"the network fits in no mapping: its weights need {_mib(weights.sum())}, all devices"
            f" together have {_mib(capacity.sum())}; layer `{name}` is the first without room, and"
            f" {room}; raise memory_bytes or add a device"
        )


def _transfers(
    tables: CostTables, mapping: Int[Array, "L"], runs_on: Bool[Array, "L D"]
) -> Int[Array, "T"]:
    """How many devices each tensor is sent to."""
    needed_on = jnp.any(tables.consumers[:, :, None] & runs_on[None, :, :], axis=1)
    made_on = runs_on[tables.producers] | (tables.producers < 0)[:, None]
    return jnp.sum(needed_on & ~made_on, axis=1, dtype=jnp.int32)


def _violation(tables: CostTables, runs_on: Bool[Array, "L D"]) -> Float[Array, ""]:
    weights = jnp.sum(jnp.where(runs_on, tables.weight_bytes[:, None], 0.0), axis=0)
    if tables.shared is not None:
        again = runs_on & jnp.any(tables.shared.before[:, :, None] & runs_on[None], axis=1)
        weights -= jnp.sum(jnp.where(again, tables.shared.bytes[:, None], 0.0), axis=0)
    activations = jnp.max(jnp.where(runs_on, tables.activation_bytes[:, None], 0.0), axis=0)
    excess = weights + activations - tables.capacity_bytes
    return jnp.sum(jnp.maximum(excess, 0.0) / tables.capacity_bytes)


def _first_without_room(weights: np.ndarray, capacity: np.ndarray) -> int:
    """First fit in running order: the first layer whose weights no device has room for."""
    left = capacity.copy()
    for layer, size in enumerate(weights):
        room = np.flatnonzero(left >= size)
        if not room.size:
            return layer
        left[room[0]] -= size
    return len(weights) - 1  # not reached where the weights exceed the capacities


def _mib(size: float) -> str:
    return f"{size / 2**20:.3g} MiB"
