"""What mappings cost now, and what may be spent: all that needs no faults evaluated.

Devices may cost other latencies and energies than they were built for, and may be gone. Shape
legend: P mappings, L layers, D devices, N mappings near one.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int, PRNGKeyArray

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel
from afpjax.hardware.tables import CostTables
from afpjax.inputs.errors import InputError
from afpjax.online.environment import State
from afpjax.online.stream import Mapping
from afpjax.search.explore import Budget
from afpjax.search.objectives import Caps, costs, single_device, violation

Front = tuple[Mapping, ...]


@dataclass(frozen=True)
class System:
    """What a search while the system runs works with; `unaware` is the fault-unaware mapping."""

    tables: CostTables
    faults: FaultModel
    evaluator: Evaluator
    budget: Budget
    budget_ms: float
    allow_latency: float
    allow_energy: float
    unaware: Mapping
    trials: int
    choice_trials: int
    key: PRNGKeyArray
    passes_per_s: float = float("inf")  # of an image under faults, while a search runs
    known: dict[State, Caps] = field(default_factory=dict, compare=False)  # limits worked out
    took_ms: list[float] = field(default_factory=list, compare=False)  # by searches, told alone

    @property
    def layers(self) -> int:
        return len(self.unaware)

    @property
    def passes(self) -> float:
        """Passes of an image under faults that a search has time for."""
        return self.budget_ms / 1e3 * self.passes_per_s


def limits(system: System, state: State) -> Caps:
    """What a mapping may cost: so much more than the fault-unaware choice.

    Than the one that was made offline, or than the best one now where that costs more: a device
    that slows down raises the limits, one that saves energy does not lower them.
    """
    none = (0.0,) * len(state.present)
    name = state._replace(weight_rate=none, activation_rate=none)  # whatever the rates
    if name not in system.known:
        system.known[name] = _limits(system, state)
    return system.known[name]


def _limits(system: System, state: State) -> Caps:
    now = np.array([least_energy_delay_now(system, state)], np.int32)
    costs_now = costs(scaled(system.tables, state), now)
    before = costs(system.tables, np.array([system.unaware], np.int32))
    latency, energy = (
        max(float(getattr(each, name)[0]) for each in (costs_now, before))
        for name in ("latency_ms", "energy_mj")
    )
    return Caps(latency * (1 + system.allow_latency), energy * (1 + system.allow_energy))


def least_energy_delay_now(system: System, state: State) -> Mapping:
    """The fault-unaware choice on the devices that are there, at what they cost now.

    From the offline choice and from each device alone, the one layer's move that lowers the
    energy-delay product most, until none does: no faults are evaluated, so this takes milliseconds.
    """
    tables, present = scaled(system.tables, state), np.flatnonzero(state.present)
    starts = [moved(system, state, system.unaware), *((int(d),) * system.layers for d in present)]
    ends = [
        _descended(tables, np.array(start, np.int32), present) for start in dict.fromkeys(starts)
    ]
    return as_front(np.stack([min(ends, key=lambda end: end[0])[1]]))[0]


def scaled(tables: CostTables, state: State) -> CostTables:
    """The tables at the devices' current latency and energy."""
    latency, energy = (np.array(each, np.float32)[None] for each in (state.latency, state.energy))
    return tables._replace(
        latency_ms=tables.latency_ms * latency, energy_mj=tables.energy_mj * energy
    )


def moved(system: System, state: State, mapping: Mapping) -> Mapping:
    """The mapping with the layers of lost devices on the cheapest device left."""
    need_devices(state)
    cost = costs(scaled(system.tables, state), single_device(system.tables))
    product = np.asarray(cost.latency_ms, np.float64) * np.asarray(cost.energy_mj)
    cheapest = int(np.where(state.present, product, np.inf).argmin())
    return tuple(device if state.present[device] else cheapest for device in mapping)


def as_front(mappings: Int[np.ndarray, "P L"]) -> Front:
    """Mappings as they are compared and remembered."""
    return tuple(tuple(int(device) for device in mapping) for mapping in mappings)


def safest_within(system: System, state: State) -> Mapping:
    """The network on the device of the lowest rate, but for what the limits do not allow there.

    The move of one layer that mends most of what is above the limits, one after the other until
    nothing is, or no move mends more. No faults are evaluated, so this takes milliseconds, and a
    search of a few generations seldom finds what is here from anywhere else.
    """
    need_devices(state)
    tables, caps = scaled(system.tables, state), limits(system, state)
    present = np.flatnonzero(state.present)
    worst = np.maximum(state.weight_rate, state.activation_rate)
    everywhere = single_device(tables)
    order = np.lexsort((_products(tables, everywhere), np.where(state.present, worst, np.inf)))
    mapping = everywhere[order[0]]
    above = violation(costs(tables, mapping[None]), caps)[0]
    while above > 0:
        near = _one_moved(mapping, present)
        left = violation(costs(tables, near), caps)
        if left.min() >= above:
            break
        above, mapping = left.min(), near[left.argmin()]
    return as_front(mapping[None])[0]


def _descended(
    tables: CostTables, mapping: np.ndarray, present: np.ndarray
) -> tuple[float, np.ndarray]:
    """Energy-delay product and mapping where no move of one layer lowers it."""
    least = _products(tables, mapping[None])[0]
    while True:
        near = _one_moved(mapping, present)
        products = _products(tables, near)
        if products.min() >= least:
            return float(least), mapping
        least, mapping = products.min(), near[products.argmin()]


def _one_moved(mapping: np.ndarray, present: np.ndarray) -> Int[np.ndarray, "N L"]:
    """The mapping with each layer in turn on each device that is there."""
    layers = len(mapping)
    near = np.repeat(mapping[None], layers * len(present), axis=0)
    places = np.repeat(np.arange(layers), len(present))
    near[np.arange(len(near)), places] = np.tile(present, layers)
    return near


def _products(tables: CostTables, mappings: np.ndarray) -> np.ndarray:
    cost = costs(tables, mappings)
    product = np.asarray(cost.latency_ms, np.float64) * np.asarray(cost.energy_mj)
    return np.where(np.asarray(cost.violation) > 0, np.inf, product)


def need_devices(state: State) -> None:
    if not any(state.present):
        raise InputError("online: all devices are gone; nothing is left to run the network on")
