"""Plans: no value twice, none missing, and none longer in memory than its readers need it."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from afpjax.evaluate.plan import (
    CLEAN,
    Group,
    Kernel,
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
SEEDS = range(6)


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
        kinds = [
            CLEAN,
            CLEAN,
            CLEAN,
            StageFaults(LOW, LOW),
            StageFaults(LOW),
            StageFaults(HIGH),
            StageFaults(b"", LOW),
        ]
        kinds += [
            StageFaults(hits(3, 1)),
            StageFaults(hits(3, 2), HIGH),
            StageFaults(b"", hits(3, 1)),
        ]
        return kinds[rng.integers(len(kinds))]

    def row():
        of_layers = [faults(layer) if rng.random() < 0.4 else CLEAN for layer in range(layers)]
        return PlanRow((int(rng.integers(3)),), tuple(of_layers))

    layers = layers_of(stages)
    rows = [row() for _ in range(count)]
    return [*rows, rows[0], PlanRow((7,), (CLEAN,) * layers), PlanRow((8,), (CLEAN,) * layers)]


def ancestors(stages, place):
    """The layers that a stage depends on, itself included, by walking up."""
    own = set() if stages[place].layer is None else {stages[place].layer}
    return own.union(*(ancestors(stages, parent) for parent in stages[place].parents))


def is_drawn(faults):
    return any(isinstance(part, bytes) and part != b"" for part in faults)


def identity(stages, place, row):
    """All that a value can depend on: what its layers met, and the trial where that is drawn."""
    met = {layer: row.faults[layer] for layer in ancestors(stages, place)}
    drawn = any(is_drawn(faults) for faults in met.values())
    return place, tuple(sorted(met.items(), key=repr)), row.trials if drawn else None


def kernels(stages, rows):
    """Versions of weights that are not the network's own, by how many values need them."""
    needed = set()
    for row in rows:
        for place, stage in enumerate(stages):
            if stage.layer is None or not (weights := row.faults[stage.layer].weights):
                continue
            trials = () if isinstance(weights, FaultSites) else row.trials
            needed.add((Kernel(stage.layer, weights, trials), identity(stages, place, row)))
    return Counter(kernel for kernel, _ in needed)


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def case(request):
    rng = np.random.default_rng(request.param)
    stages = random_stages(rng)
    return stages, random_rows(rng, stages)


def test_there_is_one_node_for_each_distinct_value(case):
    stages, rows = case
    plan = Plan.of(stages, rows)
    distinct = {identity(stages, place, row) for row in rows for place in range(len(stages))}
    assert len(plan.nodes) == len(set(plan.nodes)) == len(distinct) < len(rows) * len(stages)
    assert plan.kernels == kernels(stages, rows)


def test_every_row_finds_its_values(case):
    """Up from its answer: stage by stage what this row's layers meet, in this row's trial."""
    stages, rows = case
    plan = Plan.of(stages, rows)

    def check(number, place, row):
        node, layer = plan.nodes[number], stages[place].layer
        faults = CLEAN if layer is None else row.faults[layer]
        assert (node.stage, node.faults) == (place, faults)
        assert node.trials == (row.trials if is_drawn(faults) else ())
        for parent, above in zip(node.parents, stages[place].parents, strict=True):
            check(parent, above, row)

    for row, answer in zip(rows, plan.logits, strict=True):
        check(answer, len(stages) - 1, row)


def test_nodes_come_after_their_parents_and_with_the_first_row_that_needs_them(case):
    stages, rows = case
    plan = Plan.of(stages, rows)
    assert all(parent < number for number, n in enumerate(plan.nodes) for parent in n.parents)
    for count in range(1, len(rows)):
        begun = Plan.of(stages, rows[:count])
        assert plan.nodes[: len(begun.nodes)] == begun.nodes
        assert plan.logits[:count] == begun.logits


def test_rows_without_faults_are_one_in_all_trials():
    stages = random_stages(np.random.default_rng(0))
    rows = [PlanRow((trial,), (CLEAN,) * layers_of(stages)) for trial in range(5)]
    plan = Plan.of(stages, rows)
    assert len(plan.nodes) == len(stages) and len(set(plan.logits)) == 1
    assert not plan.kernels and all(node.trials == () for node in plan.nodes)


def test_what_is_drawn_differs_between_trials_and_a_site_does_not():
    stages = [stage(0, None, []), stage(1, 0, [0]), stage(2, 1, [1])]
    for faults, nodes in [
        (StageFaults(LOW), 5),
        (StageFaults(b"", LOW), 5),
        (StageFaults(hits(1, 2)), 3),
    ]:
        rows = [PlanRow((trial,), (faults, CLEAN)) for trial in (0, 1)]
        assert len(Plan.of(stages, rows).nodes) == nodes


def test_trials_on_several_devices_are_told_apart_by_all_of_them():
    stages = [stage(0, None, []), stage(1, 0, [0])]
    rows = [PlanRow(trials, (StageFaults(LOW),)) for trials in ((0, 1), (0, 2), (0, 1))]
    plan = Plan.of(stages, rows)
    assert len(plan.nodes) == 3 and len(plan.kernels) == 2


def test_the_nodes_do_not_depend_on_the_order_of_the_rows(case):
    stages, rows = case

    def values(rows):
        plan = Plan.of(stages, rows)
        nodes = zip(plan.nodes, plan.reads, strict=True)
        return Counter((n.stage, n.faults, n.trials, reads) for n, reads in nodes), plan.kernels

    shuffled = [rows[place] for place in np.random.default_rng(9).permutation(len(rows))]
    assert values(rows) == values(shuffled)


def test_with_one_slot_the_plan_runs_row_by_row(case):
    stages, rows = case
    plan = Plan.of(stages, rows)
    calls = groups(plan, stages, 1)
    assert calls == [Group(node.stage, (number,)) for number, node in enumerate(plan.nodes)]


@pytest.mark.parametrize("slots", [2, 5, 16])
def test_nodes_of_one_stage_and_kernel_share_calls(case, slots):
    stages, rows = case
    plan = Plan.of(stages, rows)
    calls = groups(plan, stages, slots)
    assert sorted(n for call in calls for n in call.nodes) == list(range(len(plan.nodes)))
    kinds = Counter((node.stage, kernel_of(stages, node)) for node in plan.nodes)
    partly = Counter()
    for call in calls:
        kind = {(plan.nodes[n].stage, kernel_of(stages, plan.nodes[n])) for n in call.nodes}
        assert len(kind) == 1 and call.stage == plan.nodes[call.nodes[0]].stage
        assert len(call.nodes) <= slots
        assert len(call.nodes) == 1 or 4 * len(call.nodes) > slots, "not worth a call"
        partly[kind.pop()] += len(call.nodes) < slots and len(call.nodes)
    for kind, nodes in kinds.items():
        assert partly[kind] == nodes % slots, "all but a rest fill calls"


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_calls_run_after_those_that_make_what_they_read(case, slots):
    stages, rows = case
    plan = Plan.of(stages, rows)
    done = set()
    for call in groups(plan, stages, slots):
        assert all(done.issuperset(plan.nodes[number].parents) for number in call.nodes)
        done.update(call.nodes)


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


def test_reads_are_those_of_distinct_nodes(case):
    """A node that reads two values of one parent is one reader; who asks for an answer is none."""
    stages, rows = case
    plan = Plan.of(stages, rows)
    readers = Counter(parent for node in plan.nodes for parent in {*node.parents})
    assert list(plan.reads) == [readers[number] for number in range(len(plan.nodes))]
    assert {number for number, reads in enumerate(plan.reads) if not reads} == set(plan.logits)


def test_rows_are_ordered_trial_by_trial_and_by_their_beginnings(case):
    stages, rows = case
    order = in_order(rows)
    assert sorted(order) == list(range(len(rows)))
    trials = [rows[place].trials for place in order]
    assert trials == sorted(trials)

    def runs(depth):
        """How often what the first layers meet changes from a row to the next."""
        begun = [(rows[place].trials, rows[place].faults[:depth]) for place in order]
        return 1 + sum(one != other for one, other in pairwise(begun))

    for depth in range(layers_of(stages) + 1):
        assert runs(depth) == len({(row.trials, row.faults[:depth]) for row in rows})


def test_the_order_does_not_depend_on_how_rows_were_given(case):
    _, rows = case
    shuffled = [rows[place] for place in np.random.default_rng(9).permutation(len(rows))]
    assert [rows[p] for p in in_order(rows)] == [shuffled[p] for p in in_order(shuffled)]
