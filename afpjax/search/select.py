"""One rule for each tool that picks a mapping from its front.

- Baselines (CNNParted, fault-unaware): the least energy-delay product, latency x energy. It needs
  no weights and no units, and is the usual single figure of accelerator mappers.
- AFarePart: the least accuracy drop among the mappings that cost at most a set share more latency
  and energy than the fault-unaware choice; the least energy-delay product among equals. Where no
  mapping is within, the one that exceeds the allowance by least.
"""

import numpy as np
from jaxtyping import Float

Column = Float[np.ndarray, " P"]


def least_energy_delay(latency_ms: Column, energy_mj: Column) -> int:
    """Index of the least latency x energy; the first of equals."""
    return int(np.argmin(latency_ms.astype(np.float64) * energy_mj.astype(np.float64)))


def most_robust_within(
    latency_ms: Column, energy_mj: Column, drop: Column, *, latency_cap: float, energy_cap: float
) -> int:
    """Index of the least drop within both caps (ms, mJ), ties by energy-delay product."""
    latency, energy = latency_ms.astype(np.float64), energy_mj.astype(np.float64)
    # Costs are float32 sums: what is within but for rounding is within.
    excess = np.maximum(latency / latency_cap, energy / energy_cap) - 1
    excess = np.where(excess <= 1e-6, 0.0, excess)
    return int(np.lexsort((latency * energy, drop, excess))[0])
