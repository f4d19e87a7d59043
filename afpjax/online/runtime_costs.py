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
from afpjax.online.environment import MappingKey, PlatformState
from afpjax.search.explore import Budget
from afpjax.search.objectives import Caps, costs, single_device, violation

MappingKeys = tuple[MappingKey, ...]


@dataclass(frozen=True)
class OnlineSearch:
    """What a search while the system runs works with; `unaware` is the fault-unaware mapping."""

    tables: CostTables
    faults: FaultModel
    evaluator: Evaluator
    budget: Budget
    budget_ms: float
    allow_latency: float
    allow_energy: float
    unaware: MappingKey
    trials: int  # draws behind each accuracy that a search sees
    choice_trials: int  # draws by which a mapping is chosen
    key: PRNGKeyArray
    passes_per_s: float = float("inf")  # of an image under faults, while a search runs
    known_limits: dict[PlatformState, Caps] = field(default_factory=dict, compare=False)
    took_ms: list[float] = field(default_factory=list, compare=False)  # by searches, told alone

    @property
    def layers(self) -> int:
        return len(self.unaware)

    @property
    def passes(self) -> float:
        """Passes of an image under faults that a search has time for."""
        return self.budget_ms / 1e3 * self.passes_per_s

    def tables_now(self, state: PlatformState) -> CostTables:
        """The tables at the devices' current latency and energy."""
        latency, energy = (
            np.array(factors, np.float32)[None] for factors in (state.latency, state.energy)
        )
        return self.tables._replace(
            latency_ms=self.tables.latency_ms * latency, energy_mj=self.tables.energy_mj * energy
        )

    def limits(self, state: PlatformState) -> Caps:
        """What a mapping may cost: so much more than the fault-unaware choice.

        Than the one that was made offline, or than the best one now where that costs more: a device
        that slows down raises the limits, one that saves energy does not lower them.
        """
        no_rates = (0.0,) * len(state.present)
        name = state.with_rates(no_rates, no_rates)  # limits are the same whatever the rates
        if name not in self.known_limits:
            now = np.array([least_energy_delay(self, state)], np.int32)
            cost_now = costs(self.tables_now(state), now)
            cost_before = costs(self.tables, np.array([self.unaware], np.int32))
            latency, energy = (
                max(float(getattr(cost, name)[0]) for cost in (cost_now, cost_before))
                for name in ("latency_ms", "energy_mj")
            )
            self.known_limits[name] = Caps(
                latency * (1 + self.allow_latency), energy * (1 + self.allow_energy)
            )
        return self.known_limits[name]


def least_energy_delay(search: OnlineSearch, state: PlatformState) -> MappingKey:
    """The fault-unaware choice on the devices that are there, at what they cost now.

    From the offline choice and from each device alone, the one layer's move that lowers the
    energy-delay product most, until none does: no faults are evaluated, so this takes milliseconds.
    """
    tables, present = search.tables_now(state), np.flatnonzero(state.present)
    starts = [
        off_lost_devices(search, state, search.unaware),
        *((int(device),) * search.layers for device in present),
    ]
    ends = [
        _descended(tables, np.array(start, np.int32), present) for start in dict.fromkeys(starts)
    ]
    return as_keys(np.stack([min(ends, key=lambda end: end[0])[1]]))[0]


def off_lost_devices(search: OnlineSearch, state: PlatformState, mapping: MappingKey) -> MappingKey:
    """The mapping with the layers of lost devices on the cheapest device left."""
    need_devices(state)
    products = energy_delay(search.tables_now(state), single_device(search.tables), memory=False)
    cheapest = int(np.where(state.present, products, np.inf).argmin())
    return tuple(device if state.present[device] else cheapest for device in mapping)


def as_keys(mappings: Int[np.ndarray, "P L"]) -> MappingKeys:
    """Mappings as they are compared and remembered."""
    return tuple(tuple(int(device) for device in mapping) for mapping in mappings)


def safest_mapping(search: OnlineSearch, state: PlatformState) -> MappingKey:
    """The network on the device of the lowest rate, but for what the limits do not allow there.

    The move of one layer that mends most of what is above the limits, one after the other until
    nothing is, or no move mends more. No faults are evaluated, so this takes milliseconds, and a
    search of a few generations seldom finds what is here from anywhere else.
    """
    need_devices(state)
    tables, caps = search.tables_now(state), search.limits(state)
    present = np.flatnonzero(state.present)
    worst = np.maximum(state.weight_rate, state.activation_rate)
    everywhere = single_device(tables)
    order = np.lexsort((energy_delay(tables, everywhere), np.where(state.present, worst, np.inf)))
    mapping = everywhere[order[0]]
    above = violation(costs(tables, mapping[None]), caps)[0]
    while above > 0:
        near = _one_layer_moved(mapping, present)
        left = violation(costs(tables, near), caps)
        if left.min() >= above:
            break
        above, mapping = left.min(), near[left.argmin()]
    return as_keys(mapping[None])[0]


def energy_delay(
    tables: CostTables, mappings: Int[np.ndarray, "P L"], *, memory: bool = True
) -> np.ndarray:
    """Energy-delay products [P]; inf, with `memory`, where a device has no room."""
    cost = costs(tables, mappings)
    products = np.asarray(cost.latency_ms, np.float64) * np.asarray(cost.energy_mj)
    return np.where(np.asarray(cost.violation) > 0, np.inf, products) if memory else products


def need_devices(state: PlatformState) -> None:
    """Raise `InputError` where all devices are gone."""
    if not any(state.present):
        raise InputError("online: all devices are gone; nothing is left to run the network on")


def _descended(
    tables: CostTables, mapping: np.ndarray, present: np.ndarray
) -> tuple[float, np.ndarray]:
    """Energy-delay product and mapping where no move of one layer lowers it."""
    least = energy_delay(tables, mapping[None])[0]
    while True:
        near = _one_layer_moved(mapping, present)
        products = energy_delay(tables, near)
        if products.min() >= least:
            return float(least), mapping
        least, mapping = products.min(), near[products.argmin()]


def _one_layer_moved(mapping: np.ndarray, present: np.ndarray) -> Int[np.ndarray, "N L"]:
    """The mapping with each layer in turn on each device that is there."""
    layers = len(mapping)
    near = np.repeat(mapping[None], layers * len(present), axis=0)
    near[np.arange(len(near)), np.repeat(np.arange(layers), len(present))] = np.tile(
        present, layers
    )
    return near
