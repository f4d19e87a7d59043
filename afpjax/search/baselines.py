"""What AFarePart is compared with, and the rule by which each tool picks from its front.

- fault-unaware: any layer on any device, for latency and energy (the paper's base model, which has
  NSGA-II for it; here its choice is exact).
- CNNParted (Kress et al., Computer Networks 229, 2023): contiguous segments, latency, energy, and
  the link's latency and energy once more by themselves, as its optimiser has them.

Both see the platform, the budget and the limits that AFarePart sees, and take the mapping of least
energy-delay product (latency x energy): no weights, no units, the usual single figure of
accelerator mappers. AFarePart takes the least accuracy drop within an allowance of cost.
"""

import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from afpjax.evaluate.evaluator import Progress
from afpjax.hardware.tables import CostTables
from afpjax.search.explore import Budget, Infeasible, explore
from afpjax.search.objectives import NO_CAPS, Caps, by_cost, costs, single_device
from afpjax.search.program import least_product, program_of

Column = Float[np.ndarray, " P"]


def fault_unaware(
    key: PRNGKeyArray,
    tables: CostTables,
    budget: Budget,
    caps: Caps = NO_CAPS,
    progress: Progress = lambda generations: None,
) -> tuple[Int[np.ndarray, " L"], Int[np.ndarray, "P L"]]:
    """The mapping of least energy-delay product, exactly, and a latency-energy front.

    Where there are more mappings than are enumerated, NSGA-II's front misses the least product by
    up to some percent; the exact program then has the last word (`program.least_product`).
    """
    layers, devices = tables.latency_ms.shape
    found = explore(
        key,
        np.full(layers, devices),
        by_cost(tables, caps),
        budget,
        initial=single_device(tables),
        progress=progress,
    )
    chosen = _choose(tables, found.genomes)
    if found.method == "nsga2":
        exact = least_product(program_of(tables), caps)[:1]
        # NSGA-II's stays where it is one of several of the same product.
        chosen = _choose(tables, np.concatenate([chosen[None], exact]))
    return chosen, found.genomes


def cnnparted(
    key: PRNGKeyArray,
    tables: CostTables,
    budget: Budget,
    caps: Caps = NO_CAPS,
    *,
    segments: int = 0,
    progress: Progress = lambda generations: None,
) -> tuple[Int[np.ndarray, " L"], Int[np.ndarray, "P L"]]:
    """The chosen mapping and the front of contiguous segments (at most `segments`; 0: D)."""
    layers, devices = tables.latency_ms.shape
    pieces = min(segments or devices, layers)
    cardinality = np.array([layers + 1] * (pieces - 1) + [devices] * pieces)

    def decode(genomes: np.ndarray) -> np.ndarray:
        return as_segments(genomes, layers, pieces)

    keys = ("latency_ms", "energy_mj", "link_latency_ms", "link_energy_mj")
    evaluate = by_cost(tables, caps, keys, decode)
    try:
        explored = explore(key, cardinality, evaluate, budget, progress=progress)
    except Infeasible as miss:
        what = f"no mapping of {pieces} contiguous segments or fewer (search.segments)"
        raise Infeasible(decode(miss.closest[None])[0], what) from None
    front = np.unique(decode(explored.genomes), axis=0)
    return _choose(tables, front), front


def as_segments(
    genomes: Int[np.ndarray, "P G"], layers: int, pieces: int
) -> Int[np.ndarray, "P L"]:
    """Mappings from cut points (in any order, 0 … L) followed by the device of each segment."""
    cuts = np.sort(genomes[:, : pieces - 1], axis=1)
    segment = (cuts[:, None, :] <= np.arange(layers)[None, :, None]).sum(axis=2)
    return np.take_along_axis(genomes[:, pieces - 1 :], segment, axis=1).astype(np.int32)


def _choose(tables: CostTables, mappings: np.ndarray) -> Int[np.ndarray, " L"]:
    cost = costs(tables, mappings)
    return mappings[least_energy_delay(np.asarray(cost.latency_ms), np.asarray(cost.energy_mj))]


def least_energy_delay(latency_ms: Column, energy_mj: Column) -> int:
    """Index of the least latency x energy; the first of equals."""
    return int(np.argmin(latency_ms.astype(np.float64) * energy_mj.astype(np.float64)))


def most_robust_within(
    latency_ms: Column, energy_mj: Column, drop: Column, *, latency_cap: float, energy_cap: float
) -> int:
    """Index of the least drop within both caps (ms, mJ), ties by energy-delay product.

    Where none is within, the one that exceeds a cap by the least share.
    """
    latency, energy = latency_ms.astype(np.float64), energy_mj.astype(np.float64)
    # Costs are float32 sums: what is within but for rounding is within.
    excess = np.maximum(latency / latency_cap, energy / energy_cap) - 1
    excess = np.where(excess <= 1e-6, 0.0, excess)
    return int(np.lexsort((latency * energy, drop, excess))[0])
