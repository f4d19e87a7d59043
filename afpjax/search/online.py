"""AFarePart's RunNSGAIIWithCurrentStats: a search while the system runs (Section V-B, Algorithm 1).

NSGA-II on what the devices are like now: their fault rates as they are estimated, their latency and
energy as they are profiled, and only devices that are there. It begins with the mapping in use, the
front of the search before it, and the whole network on each device; it ends after its generations,
or when its time is up. Shape legend: P mappings, L layers, D devices.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from afpjax.errors import InputError
from afpjax.faults.evaluate import Evaluator
from afpjax.faults.model import FaultModel
from afpjax.hardware.tables import CostTables
from afpjax.search.environment import State
from afpjax.search.explore import Budget, Infeasible, explore
from afpjax.search.problem import Caps, Struck, costs, single_device, with_faults
from afpjax.search.select import most_robust_within
from afpjax.search.stream import Mapping, answers, at

_CHOICE = 2**19  # number of the first draw by which a mapping is chosen
_SHORTLIST = 5  # mappings of a front among which is chosen
_SEARCHING = 0.7  # share of the time in which a new generation may begin

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
    clock: Callable[[], float] = time.monotonic

    @property
    def layers(self) -> int:
        return len(self.unaware)


class Decision(NamedTuple):
    """The mapping that loses least within the limits, and what is expected of it and of others.

    `drop` and `drop_now` are expected accuracy drops, of the chosen mapping and the one in use;
    `drops` are those of the mappings asked for. `generations` is 0 where nothing was searched;
    `cut`: time ended it, not their number.
    """

    mapping: Mapping
    drop: float
    drop_now: float
    drops: tuple[float, ...]
    front: Front
    generations: int = 0
    evaluations: int = 0
    cut: bool = False


def repartition(
    system: System, state: State, current: Mapping, front: Front, asked: Front = ()
) -> Decision:
    """Search under `state`, then choose; `asked` are mappings whose expected drop is wanted too.

    The chosen mapping is within the limits (`limits`) if any that was found is. Raises
    `InputError` where all devices are gone.
    """
    begun = system.clock()
    given = _given(system, state, current, front)
    present = np.flatnonzero(state.present)
    if len(present) == 1:  # one mapping, nothing to search
        return choose(system, state, current, tuple(given), asked)._replace(front=tuple(given))
    caps, tables = limits(system, state), scaled(system.tables, state)
    struck = Struck(system.evaluator, at(system.faults, state), system.trials)
    scored = with_faults(tables, caps, struck)
    place = {int(device): gene for gene, device in enumerate(present)}
    initial = np.array([[place[device] for device in mapping] for mapping in given], np.int32)

    def time_is_up() -> bool:
        return 1e3 * (system.clock() - begun) > _SEARCHING * system.budget_ms

    try:
        found = explore(
            system.key,
            np.full(system.layers, len(present)),
            lambda draw, genomes: scored(draw, present[genomes].astype(np.int32)),
            system.budget,
            initial=initial,
            until=time_is_up,
            exact=len(present) ** system.layers <= _most(system.budget),
        )
    except Infeasible:  # then the one that misses the limits least
        return choose(system, state, current, tuple(given), asked)._replace(front=tuple(given))
    mappings = as_front(present[found.genomes])
    best = np.argsort(found.objectives[:, 2], kind="stable")[:_SHORTLIST]
    shortlist = tuple(mappings[index] for index in best)
    return choose(system, state, current, shortlist, asked)._replace(
        front=mappings,
        generations=found.generations,
        evaluations=found.evaluations,
        cut=found.method == "nsga2" and found.generations < system.budget.generations,
    )


def best_stored(
    system: System, state: State, current: Mapping, front: Front, asked: Front = ()
) -> Decision:
    """Choose among the stored front's mappings, without a search.

    Among those that need no lost device; where all do, the whole network on one device.
    """
    _need_devices(state)
    left = tuple(mapping for mapping in front if answers(mapping, state))
    everywhere = tuple((int(d),) * system.layers for d in np.flatnonzero(state.present))
    return choose(system, state, current, left or everywhere, asked)._replace(front=front)


def choose(
    system: System, state: State, current: Mapping, candidates: Front, asked: Front = ()
) -> Decision:
    """The least expected drop within the limits, of the candidates and the mapping in use.

    Drops are measured on draws that no search has seen, the same for all. A mapping that needs a
    lost device drops everything.
    """
    usable = list(dict.fromkeys(m for m in (current, *candidates, *asked) if answers(m, state)))
    drop = dict(zip(usable, expected_drops(system, state, usable), strict=True))
    among = [m for m in usable if m == current or m in set(candidates)]
    caps = limits(system, state)
    cost = costs(scaled(system.tables, state), np.array(among, np.int32))
    chosen = among[
        most_robust_within(
            np.asarray(cost.latency_ms),
            np.asarray(cost.energy_mj),
            np.array([drop[mapping] for mapping in among]),
            latency_cap=caps.latency_ms,
            energy_cap=caps.energy_mj,
        )
    ]
    now = drop.get(current, 1.0)
    return Decision(chosen, drop[chosen], now, tuple(drop.get(m, 1.0) for m in asked), candidates)


def expected_drops(
    system: System, state: State, mappings: Sequence[Mapping]
) -> Float[np.ndarray, " P"]:
    """Accuracy drops on the search's images, under draws of the choice."""
    struck = Struck(system.evaluator, at(system.faults, state), system.trials)
    trials = range(_CHOICE, _CHOICE + system.choice_trials)
    return struck.fault_free() - struck.accuracy(np.array(mappings, np.int32), trials)


def limits(system: System, state: State) -> Caps:
    """What a mapping may cost: so much more than the fault-unaware choice.

    Than the one that was made offline, or than the best one now where that costs more: a device
    that slows down raises the limits, one that saves energy does not lower them.
    """
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
    _need_devices(state)
    cost = costs(scaled(system.tables, state), single_device(system.tables))
    product = np.asarray(cost.latency_ms, np.float64) * np.asarray(cost.energy_mj)
    cheapest = int(np.where(state.present, product, np.inf).argmin())
    return tuple(device if state.present[device] else cheapest for device in mapping)


def as_front(mappings: Int[np.ndarray, "P L"]) -> Front:
    """Mappings as they are compared and remembered."""
    return tuple(tuple(int(device) for device in mapping) for mapping in mappings)


def _given(system: System, state: State, current: Mapping, front: Front) -> list[Mapping]:
    """Where a search begins: the mapping in use first, then each device alone, then the front."""
    _need_devices(state)
    everywhere = [(int(device),) * system.layers for device in np.flatnonzero(state.present)]
    known = [moved(system, state, mapping) for mapping in front]
    return list(dict.fromkeys([moved(system, state, current), *everywhere, *known]))


def _descended(
    tables: CostTables, mapping: np.ndarray, present: np.ndarray
) -> tuple[float, np.ndarray]:
    """Energy-delay product and mapping where no move of one layer lowers it."""
    layers = len(mapping)
    least = _products(tables, mapping[None])[0]
    while True:
        near = np.repeat(mapping[None], layers * len(present), axis=0)
        near[np.arange(len(near)), np.repeat(np.arange(layers), len(present))] = np.tile(
            present, layers
        )
        products = _products(tables, near)
        if products.min() >= least:
            return float(least), mapping
        least, mapping = products.min(), near[products.argmin()]


def _products(tables: CostTables, mappings: np.ndarray) -> np.ndarray:
    cost = costs(tables, mappings)
    product = np.asarray(cost.latency_ms, np.float64) * np.asarray(cost.energy_mj)
    return np.where(np.asarray(cost.violation) > 0, np.inf, product)


def _most(budget: Budget) -> int:
    """Mappings that a search of this budget evaluates at most."""
    return budget.population * (budget.generations + 1)


def _need_devices(state: State) -> None:
    if not any(state.present):
        raise InputError("online: all devices are gone; nothing is left to run the network on")
