"""AFarePart's RunNSGAIIWithCurrentStats: a search while the system runs (Section V-B, Algorithm 1).

NSGA-II on what the devices are like now: their fault rates as they are estimated, their latency and
energy as they are profiled, and only devices that are there. It begins with the mapping in use, the
safest one that the limits allow, the whole network on each device, and the front of the search
before it; it ends after its generations, or when its time is up. Time is told by the work that is
done, at a stated speed of the machine that searches: what is found does not depend on what else
that machine has to do. Shape legend: P mappings, L layers, D devices.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from afpjax.online.costs_now import (
    Front,
    System,
    as_front,
    limits,
    moved,
    need_devices,
    safest_within,
    scaled,
)
from afpjax.online.environment import State
from afpjax.online.stream import Mapping, answers, at
from afpjax.search.baselines import most_robust_within
from afpjax.search.explore import Budget, Infeasible, explore
from afpjax.search.objectives import RobustnessObjective, costs, with_faults
from afpjax.search.pareto import Fitness

_CHOICE = 2**19  # number of the first draw by which a mapping is chosen
_SHORTLIST = 5  # mappings of a front among which is chosen
_SEARCHING = 0.7  # share of the time in which a new generation may begin; choosing takes the rest


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
    safest = safest_within(system, state)
    given = _given(system, state, current, safest, front)
    present = np.flatnonzero(state.present)
    if len(present) == 1:  # one mapping, nothing to search
        return choose(system, state, current, tuple(given), asked)._replace(front=tuple(given))
    caps, tables = limits(system, state), scaled(system.tables, state)
    objective = RobustnessObjective(system.evaluator, at(system.faults, state), system.trials)
    scored = with_faults(tables, caps, objective)
    place = {int(device): gene for gene, device in enumerate(present)}
    initial = np.array([[place[device] for device in mapping] for mapping in given], np.int32)

    met = set[bytes]()

    def measured(draw: int, genomes: np.ndarray) -> Fitness:
        met.update(genome.tobytes() for genome in genomes)
        return scored(draw, present[genomes].astype(np.int32))

    def time_is_up() -> bool:
        passes = len(met) * system.trials * system.evaluator.count
        return passes > _SEARCHING * system.passes

    begun = time.monotonic()
    try:
        found = explore(
            system.key,
            np.full(system.layers, len(present)),
            measured,
            system.budget,
            initial=initial,
            until=time_is_up,
            exact=len(present) ** system.layers <= _most(system.budget),
        )
    except Infeasible:  # then the one that misses the limits least
        return choose(system, state, current, tuple(given), asked)._replace(front=tuple(given))
    finally:
        system.took_ms.append(1e3 * (time.monotonic() - begun))
    mappings = as_front(present[found.genomes])
    best = np.argsort(found.objectives[:, 2], kind="stable")[:_SHORTLIST]
    shortlist = (*(mappings[index] for index in best), safest)
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
    need_devices(state)
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
    objective = RobustnessObjective(system.evaluator, at(system.faults, state), system.trials)
    trials = range(_CHOICE, _CHOICE + system.choice_trials)
    return objective.fault_free() - objective.accuracy(np.array(mappings, np.int32), trials)


def _given(
    system: System, state: State, current: Mapping, safest: Mapping, front: Front
) -> list[Mapping]:
    """Where a search begins: half of a population, whose other half is random.

    The mapping in use, the safest, and each device alone, whatever their number; then an even
    choice of the front.
    """
    everywhere = [(int(device),) * system.layers for device in np.flatnonzero(state.present)]
    begin = [moved(system, state, current), safest, *everywhere]
    begin = list(dict.fromkeys(begin))
    rest = list(dict.fromkeys(moved(system, state, mapping) for mapping in front))
    rest = [mapping for mapping in rest if mapping not in begin]
    room = min(max(system.budget.population // 2 - len(begin), 0), len(rest))
    return begin + [
        rest[place] for place in np.linspace(0, len(rest) - 1, room).round().astype(int)
    ]


def _most(budget: Budget) -> int:
    """Mappings that a search of this budget evaluates at most."""
    return budget.population * (budget.generations + 1)
