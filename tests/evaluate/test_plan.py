"""Plans: who shares a call, and that no value is longer in memory than its readers need it.

That no value is there twice, and none missing, is counted on what an engine runs (test_engine.py).
"""

from collections import Counter

import numpy as np
import pytest

from afpjax.evaluate.plan import (
    CLEAN,
    Group,
    Plan,
    PlanRow,
    StageFaults,
    groups,
    in_order,
    kernel_of,
    peak_bytes,
    released,
)
from afpjax.faults.sites import FaultSites
from afpjax.network.program import Value
from afpjax.network.stages import Stage

LOW, HIGH = (np.full(4, n, np.uint32).tobytes() for n in (5, 9))
SEEDS = range(4)


def hits(element, bit):
    return FaultSites(
        np.full((1, 1, 1), element, np.uint32), np.full((1, 1, 1), 1 << bit, np.uint32)
    )


def stage(place, layer, parents):
    inputs = tuple(Value(10 * parent + k) for k, parent in enumerate(parents))
    return Stage((), layer, tuple(parents), inputs, (), ())


def random_stages(rng, count=9):
    """A random graph with one sink; some stages read several values of one parent."""
    parents = [[]]
    for place in range(1, count):
        few = rng.integers(0, place, rng.integers(1, 4))
        parents.append([int(parent) for parent in few])
    unread = set(range(count - 1)) - {parent for each in parents for parent in each}
    parents[-1] += sorted(unread)
    has_layer = [False, *(rng.random(count - 2) < 0.7), True]
    number = np.cumsum(has_layer) - 1
    return [
        stage(place, int(number[place]) if has_layer[place] else None, each)
        for place, each in enumerate(parents)
    ]


def layers_of(stages):
    return sum(stage.layer is not None for stage in stages)


def random_rows(rng, stages, count=30):
    """Rows of few kinds, so that many have beginnings in common; some are equal."""

    def faults(layer):
        drawn = [(LOW, LOW), (LOW,), (HIGH,), (b"", LOW)]
        at_sites = [(hits(3, 1),), (hits(3, 2), HIGH), (b"", hits(3, 1))]
        kinds = [(), (), (), *drawn, *at_sites]
        return StageFaults(*kinds[rng.integers(len(kinds))])

    def row():
        of_layers = [faults(layer) if rng.random() < 0.4 else CLEAN for layer in range(layers)]
        return PlanRow((int(rng.integers(3)),), tuple(of_layers))

    layers = layers_of(stages)
    rows = [row() for _ in range(count)]
    return [*rows, rows[0], PlanRow((7,), (CLEAN,) * layers), PlanRow((8,), (CLEAN,) * layers)]


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def case(request):
    rng = np.random.default_rng(request.param)
    stages = random_stages(rng)
    return stages, random_rows(rng, stages)


@pytest.mark.parametrize("slots", [1, 2, 5, 16])
def test_nodes_of_one_stage_and_kernel_share_calls_that_follow_what_they_read(case, slots):
    stages, rows = case
    plan = Plan.of(stages, rows)
    calls = groups(plan, stages, slots)
    assert sorted(n for call in calls for n in call.nodes) == list(range(len(plan.nodes)))
    kinds = Counter((node.stage, kernel_of(stages, node)) for node in plan.nodes)
    partly, done = Counter(), set()
    for call in calls:
        kind = {(plan.nodes[n].stage, kernel_of(stages, plan.nodes[n])) for n in call.nodes}
        assert len(kind) == 1 and call.stage == plan.nodes[call.nodes[0]].stage
        assert len(call.nodes) <= slots
        assert len(call.nodes) == 1 or 4 * len(call.nodes) > slots, "not worth a call"
        partly[kind.pop()] += len(call.nodes) < slots and len(call.nodes)
        assert all(done.issuperset(plan.nodes[number].parents) for number in call.nodes)
        done.update(call.nodes)
    for kind, nodes in kinds.items():
        assert partly[kind] == nodes % slots, "all but a rest fill calls"
    if slots == 1:  # row by row
        assert calls == [Group(node.stage, (number,)) for number, node in enumerate(plan.nodes)]


def last_reads(plan, calls):
    """By node: the call that reads it last; its own for a row's answer, which is judged at once."""
    last = {}
    for clock, call in enumerate(calls):
        last |= dict.fromkeys(call.nodes, clock)
        last |= {parent: clock for n in call.nodes for parent in plan.nodes[n].parents}
    return last


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_peak_bytes_is_that_of_a_literal_simulation(case, slots):
    """What a call makes lives from then on until the last of its values was read last."""
    stages, rows = case
    plan = Plan.of(stages, [rows[place] for place in in_order(rows)])
    calls = groups(plan, stages, slots)
    sizes = np.random.default_rng(4).integers(1, 1000, (2, len(stages)))
    outputs, temporary = ({c: int(row[c.stage]) * len(c.nodes) for c in calls} for row in sizes)
    last = last_reads(plan, calls)
    ends = [max(last[number] for number in call.nodes) for call in calls]
    peak = 0
    for clock, call in enumerate(calls):
        alive = [each for k, each in enumerate(calls) if k <= clock <= ends[k]]
        peak = max(peak, sum(map(outputs.__getitem__, alive)) + temporary[call])
    assert peak_bytes(plan, calls, outputs.__getitem__, temporary.__getitem__) == peak
    assert peak < sum(outputs.values()) + max(temporary.values())


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_every_value_is_freed_once_right_after_its_last_reader(case, slots):
    stages, rows = case
    plan = Plan.of(stages, rows)
    calls = groups(plan, stages, slots)
    last, left, freed = last_reads(plan, calls), list(plan.reads), Counter()
    for clock, call in enumerate(calls):
        gone = [each for number in call.nodes for each in released(plan, number, left)]
        assert all(last[each] == clock for each in gone)
        freed.update(gone)
    assert freed == Counter(range(len(plan.nodes))) and not any(left)
