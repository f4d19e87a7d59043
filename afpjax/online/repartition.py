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

from afpjax.online.environment import MappingKey, PlatformState
from afpjax.online.runtime_costs import (
    MappingKeys,
    OnlineSearch,
    as_keys,
    need_devices,
    off_lost_devices,
    safest_mapping,
)
from afpjax.search.baselines import most_robust_within
from afpjax.search.explore import Infeasible, explore
from afpjax.search.objectives import RobustnessObjective, costs, with_faults
from afpjax.search.pareto import Fitness

_FIRST_CHOICE_DRAW = 2**19  # number of the first draw by which a mapping is chosen
_SHORTLIST = 5  # mappings of a front among which is chosen
_SEARCHING = 0.7  # share of the time in which a new generation may begin; choosing takes the rest


class Decision(NamedTuple):
    """The mapping that loses least within the limits, and what is expected of it and of others.

    `drop` and `drop_now` are expected accuracy drops, of the chosen mapping and the one in use;
    `drops` are those of the mappings in `compared`. `generations` is 0 where nothing was searched;
    `cut`: time ended it, not their number.
    """

    mapping: MappingKey
    drop: float
    drop_now: float
    drops: tuple[float, ...]
    front: MappingKeys
    generations: int = 0
    evaluations: int = 0
    cut: bool = False


def repartition(
    search: OnlineSearch,
    state: PlatformState,
    current: MappingKey,
    front: MappingKeys,
    compared: MappingKeys = (),
) -> Decision:
    """Search under `state`, then choose; of `compared` the expected drops are wanted too.

    The chosen mapping is within the limits if any that was found is. Raises `InputError` where all
    devices are gone.
    """
    safest = safest_mapping(search, state)
    start = _initial(search, state, current, safest, front)
    present = np.flatnonzero(state.present)
    if len(present) == 1:  # one mapping, nothing to search
        return choose(search, state, current, start, compared)
    objective = RobustnessObjective(search.evaluator, state.faults(search.faults), search.trials)
    fitness = with_faults(search.tables_now(state), search.limits(state), objective)
    gene = {int(device): index for index, device in enumerate(present)}
    seen = set[bytes]()

    def measured(draw: int, genomes: np.ndarray) -> Fitness:
        seen.update(genome.tobytes() for genome in genomes)
        return fitness(draw, present[genomes].astype(np.int32))

    def time_is_up() -> bool:
        passes = len(seen) * search.trials * search.evaluator.count
        return passes > _SEARCHING * search.passes

    budget, begun = search.budget, time.monotonic()
    try:
        found = explore(
            search.key,
            np.full(search.layers, len(present)),
            measured,
            budget,
            initial=np.array([[gene[device] for device in mapping] for mapping in start], np.int32),
            until=time_is_up,
            # All mappings, where they are no more than the search would evaluate.
            exact=len(present) ** search.layers <= budget.population * (budget.generations + 1),
        )
    except Infeasible:  # then the one that misses the limits least
        return choose(search, state, current, start, compared)
    finally:
        search.took_ms.append(1e3 * (time.monotonic() - begun))
    mappings = as_keys(present[found.genomes])
    best = np.argsort(found.objectives[:, 2], kind="stable")[:_SHORTLIST]
    shortlist = (*(mappings[index] for index in best), safest)
    return choose(search, state, current, shortlist, compared)._replace(
        front=mappings,
        generations=found.generations,
        evaluations=found.evaluations,
        cut=found.method == "nsga2" and found.generations < budget.generations,
    )


def best_stored(
    search: OnlineSearch,
    state: PlatformState,
    current: MappingKey,
    front: MappingKeys,
    compared: MappingKeys = (),
) -> Decision:
    """Choose among the stored front's mappings, without a search.

    Among those that need no lost device; where all do, the whole network on one device.
    """
    need_devices(state)
    left = tuple(mapping for mapping in front if state.runs(mapping))
    everywhere = tuple((int(d),) * search.layers for d in np.flatnonzero(state.present))
    return choose(search, state, current, left or everywhere, compared)._replace(front=front)


def choose(
    search: OnlineSearch,
    state: PlatformState,
    current: MappingKey,
    candidates: MappingKeys,
    compared: MappingKeys = (),
) -> Decision:
    """The least expected drop within the limits, of the candidates and the mapping in use.

    Drops are measured on draws that no search has seen, the same for all. A mapping that needs a
    lost device drops everything.
    """
    wanted = dict.fromkeys((current, *candidates, *compared))
    usable = [mapping for mapping in wanted if state.runs(mapping)]
    drop = dict(zip(usable, expected_drops(search, state, usable), strict=True))
    among = [mapping for mapping in usable if mapping == current or mapping in {*candidates}]
    caps = search.limits(state)
    cost = costs(search.tables_now(state), np.array(among, np.int32))
    chosen = among[
        most_robust_within(
            np.asarray(cost.latency_ms),
            np.asarray(cost.energy_mj),
            np.array([drop[mapping] for mapping in among]),
            latency_cap=caps.latency_ms,
            energy_cap=caps.energy_mj,
        )
    ]
    drops = tuple(drop.get(mapping, 1.0) for mapping in compared)
    return Decision(chosen, drop[chosen], drop.get(current, 1.0), drops, candidates)


def expected_drops(
    search: OnlineSearch, state: PlatformState, mappings: Sequence[MappingKey]
) -> Float[np.ndarray, " P"]:
    """Accuracy drops on the search's images, under the draws of the choice."""
    objective = RobustnessObjective(search.evaluator, state.faults(search.faults), search.trials)
    draws = range(_FIRST_CHOICE_DRAW, _FIRST_CHOICE_DRAW + search.choice_trials)
    return objective.fault_free() - objective.accuracy(np.array(mappings, np.int32), draws)


def _initial(
    search: OnlineSearch,
    state: PlatformState,
    current: MappingKey,
    safest: MappingKey,
    front: MappingKeys,
) -> MappingKeys:
    """Where a search begins: half of a population, whose other half is random.

    The mapping in use, the safest, and each device alone, whatever their number; then an even
    choice of the front.
    """
    everywhere = [(int(device),) * search.layers for device in np.flatnonzero(state.present)]
    first = list(dict.fromkeys([off_lost_devices(search, state, current), safest, *everywhere]))
    others = dict.fromkeys(off_lost_devices(search, state, mapping) for mapping in front)
    rest = [mapping for mapping in others if mapping not in first]
    room = min(max(search.budget.population // 2 - len(first), 0), len(rest))
    even = np.linspace(0, len(rest) - 1, room).round().astype(int)
    return (*first, *(rest[index] for index in even))
