"""Whether to go over to another mapping, and when one that costs too much asks for it."""

import numpy as np

from afpjax.online.costs_now import limits, scaled
from afpjax.online.environment import State
from afpjax.online.online import Decision
from afpjax.online.operation import Operation
from afpjax.online.stream import Mapping, answers
from afpjax.search.objectives import costs, violation

DEARER = "above limits"


def above_limits(operation: Operation, state: State, belief: State, mapping: Mapping) -> bool:
    """Whether a mapping costs more than it may, for latencies or energies that are new.

    Those of `belief` were looked at when something was decided last: what could be done about them
    has been done.
    """
    if (state.latency, state.energy) == (belief.latency, belief.energy):
        return False
    cost = costs(scaled(operation.system.tables, state), np.array([mapping], np.int32))
    return bool(violation(cost, limits(operation.system, state))[0] > 0)


def switch(
    operation: Operation,
    belief: State,
    current: Mapping,
    decision: Decision,
    reason: str,
    first: Mapping,
) -> tuple[Mapping | None, float]:
    """The mapping to go over to, None to stay; and its expected drop.

    A switch is for an expected gain, away from a lost device, or back within the limits. A look
    that neither an alarm nor the limits ask for may also go back to the first mapping, which is
    cheaper, where that is expected to stay well below theta.
    """
    (drop_first,) = decision.drops
    lost = not answers(current, belief)
    enough = max(operation.theta - operation.gain, operation.theta / 2)
    may_return = reason not in ("accuracy", DEARER) and not lost
    if may_return and answers(first, belief) and drop_first <= enough:
        own, other = (_product(operation, belief, each) for each in (first, current))
        if current != first and own < other:
            return first, drop_first
        if decision.drop_now <= enough:
            return None, decision.drop_now
    better = decision.drop <= decision.drop_now - operation.gain
    affordable = reason == DEARER and decision.drop <= max(enough, decision.drop_now)
    if lost or better or affordable:
        return (None if decision.mapping == current else decision.mapping), decision.drop
    return None, decision.drop_now


def _product(operation: Operation, state: State, mapping: Mapping) -> float:
    cost = costs(scaled(operation.system.tables, state), np.array([mapping], np.int32))
    return float(cost.latency_ms[0]) * float(cost.energy_mj[0])
