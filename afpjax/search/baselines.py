"""What AFarePart is compared with: tools that choose a mapping without knowing of faults.

- fault-unaware: NSGA-II over latency and energy, any layer on any device (the paper's base model).
- CNNParted (Kress et al., Computer Networks 229, 2023): contiguous segments, latency, energy, and
  the link's latency and energy once more by themselves, as its optimiser has them.

Both see the platform, the budget and the limits that AFarePart sees; accuracy is for later.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int, PRNGKeyArray

from afpjax.hardware.tables import CostTables
from afpjax.search.evaluated import Infeasible
from afpjax.search.explore import Budget, explore
from afpjax.search.problem import NO_CAPS, Caps, by_cost, costs, single_device
from afpjax.search.select import least_energy_delay

Mapping = Int[np.ndarray, " L"]
Progress = Callable[[int], Any]


def fault_unaware(
    key: PRNGKeyArray,
    tables: CostTables,
    budget: Budget,
    caps: Caps = NO_CAPS,
    progress: Progress = lambda generations: None,
) -> tuple[Mapping, Int[np.ndarray, "P L"]]:
    """The mapping of least energy-delay product on the latency-energy front, and that front."""
    layers, devices = tables.latency_ms.shape
    cardinality = np.full(layers, devices)
    everywhere = single_device(tables)
    found = explore(
        key, cardinality, by_cost(tables, caps), budget, initial=everywhere, progress=progress
    )
    return _choose(tables, found.genomes), found.genomes


def cnnparted(
    key: PRNGKeyArray,
    tables: CostTables,
    budget: Budget,
    caps: Caps = NO_CAPS,
    *,
    segments: int = 0,
    progress: Progress = lambda generations: None,
) -> tuple[Mapping, Int[np.ndarray, "P L"]]:
    """The chosen mapping and the front of contiguous segments (at most `segments`; 0: D)."""
    layers, devices = tables.latency_ms.shape
    pieces = min(segments or devices, layers)
    cardinality = np.array([layers + 1] * (pieces - 1) + [devices] * pieces)

    def decode(genomes: np.ndarray) -> np.ndarray:
        return as_segments(genomes, layers, pieces)

    keys = ("latency_ms", "energy_mj", "link_latency_ms", "link_energy_mj")
    evaluate = by_cost(tables, caps, keys, decode)
    try:
        found = explore(key, cardinality, evaluate, budget, progress=progress)
    except Infeasible as miss:
        what = f"no mapping of {pieces} contiguous segments or fewer (search.segments)"
        raise Infeasible(decode(miss.closest[None])[0], what) from None
    front = np.unique(decode(found.genomes), axis=0)
    return _choose(tables, front), front


def as_segments(
    genomes: Int[np.ndarray, "P G"], layers: int, pieces: int
) -> Int[np.ndarray, "P L"]:
    """Mappings from cut points (in any order, 0 … L) followed by the device of each segment."""
    cuts = np.sort(genomes[:, : pieces - 1], axis=1)
    segment = (cuts[:, None, :] <= np.arange(layers)[None, :, None]).sum(axis=2)
    return np.take_along_axis(genomes[:, pieces - 1 :], segment, axis=1).astype(np.int32)


def _choose(tables: CostTables, mappings: np.ndarray) -> Mapping:
    cost = costs(tables, mappings)
    return mappings[least_energy_delay(np.asarray(cost.latency_ms), np.asarray(cost.energy_mj))]
