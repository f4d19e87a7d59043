"""Plans: no value twice, none missing, and none longer in memory than its readers need it."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from afpjax.evaluate.plan import Plan, one_by_one, peak_bytes, slots, together
from afpjax.evaluate.rows import FaultRows, FaultTable, at_rates, at_sites, clean_rows, distinct
from afpjax.faults.sites import Fault, FaultSites, Site
from afpjax.network.program import Value
from afpjax.network.stages import Stage

LOW, HIGH, NONE = (np.full(4, n, np.uint32) for n in (5, 9, 0))
#: What a layer's weights and inputs can meet in `random_rows`.
KINDS = [(NONE, NONE), (LOW, LOW), (LOW, NONE), (HIGH, NONE), (NONE, LOW), (HIGH, LOW)]
SEEDS = range(6)


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


def rows_of(kinds, trials):
    """Rows whose layers meet these of `KINDS`, [R, L]."""
    kinds = np.asarray(kinds)
    made = [
        at_rates(*(np.stack([KINDS[kind][part] for kind in layer]) for part in (0, 1)))
        for layer in kinds.T
    ]
    faults = np.stack([numbers for numbers, _ in made], axis=1)
    trials = np.asarray(trials, np.uint32)
    return FaultRows(trials, faults, [table for _, table in made], faults[:, :0])


def random_case(seed, count=30):
    """Stages, and rows of few kinds, so that many have beginnings in common; some are equal."""
    rng = np.random.default_rng(seed)
    stages = random_stages(rng)
    layers = layers_of(stages)
    kinds = rng.integers(0, len(KINDS), (count, layers)) * (rng.random((count, layers)) < 0.4)
    kinds = np.concatenate([kinds, kinds[:1], 0 * kinds[:2]])
    trials = rng.integers(0, 3, len(kinds))
    trials[-3:] = trials[0], 7, 8
    return stages, kinds, trials


def ancestors(stages, place):
    """The layers that a stage depends on, itself included, by walking up."""
    own = set() if stages[place].layer is None else {stages[place].layer}
    return own.union(*(ancestors(stages, parent) for parent in stages[place].parents))


def identity(stages, place, kinds, trial):
    """All that a value can depend on: what its layers met, and the trial where that is drawn."""
    met = {layer: kinds[layer] for layer in sorted(ancestors(stages, place))}
    return place, tuple(met.items()), trial if any(met.values()) else None


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def case(request):
    return random_case(request.param)


def plan_of(case):
    stages, kinds, trials = case
    return Plan.of(stages, rows_of(kinds, trials))


def test_there_is_one_node_for_each_distinct_value(case):
    stages, kinds, trials = case
    plan = plan_of(case)
    for place, nodes in enumerate(plan.stages):
        of_row = [identity(stages, place, *row) for row in zip(kinds, trials, strict=True)]
        assert len(nodes.rows) == len(set(of_row))
        assert nodes.rows.tolist() == [of_row.index(each) for each in dict.fromkeys(of_row)]


def test_every_row_finds_its_values(case):
    """Up from its answer: stage by stage what this row's layers meet, in this row's trial."""
    stages, kinds, trials = case
    plan = plan_of(case)

    def check(place, node, row):
        first = plan.stages[place].rows[node]
        one, other = (identity(stages, place, kinds[r], trials[r]) for r in (first, row))
        assert one == other
        for parent, above in zip(
            plan.stages[place].parents[node], stages[place].parents, strict=True
        ):
            check(above, parent, row)

    for row, node in enumerate(plan.of_row):
        check(len(stages) - 1, node, row)


def test_nodes_share_a_kernel_where_weights_and_trial_are_the_same(case):
    stages, kinds, trials = case
    for place, nodes in enumerate(plan_of(case).stages):
        layer = stages[place].layer
        if layer is None:
            assert not nodes.kernels.any()
            continue
        weights = [KINDS[kinds[row][layer]][0][0] for row in nodes.rows]
        wanted = [
            (w, trials[row]) if w else None for w, row in zip(weights, nodes.rows, strict=True)
        ]
        assert [k == 0 for k in nodes.kernels] == [each is None for each in wanted]
        assert len(set(zip(nodes.kernels.tolist(), wanted, strict=True))) == len(set(wanted))
        of_kernels = [(KINDS[kinds[r][layer]][0][0], trials[r]) for r in nodes.kernel_rows]
        assert all(
            of_kernels[k - 1] == each for k, each in zip(nodes.kernels, wanted, strict=True) if k
        )
        assert len(of_kernels) == len(set(wanted) - {None})


def test_rows_without_faults_are_one_in_all_trials():
    stages = random_stages(np.random.default_rng(0))
    plan = Plan.of(stages, rows_of(np.zeros((5, layers_of(stages)), int), range(5)))
    assert all(len(nodes.rows) == 1 for nodes in plan.stages) and not plan.of_row.any()
    alone = Plan.of(stages, clean_rows(layers_of(stages)))
    assert all(len(nodes.rows) == 1 for nodes in alone.stages)


def test_what_is_drawn_differs_between_trials_and_a_site_does_not():
    stages = [stage(0, None, []), stage(1, 0, [0]), stage(2, 1, [1])]
    for kind in (1, 2, 4):
        plan = Plan.of(stages, rows_of([[kind, 0]] * 2, (0, 1)))
        assert sum(len(nodes.rows) for nodes in plan.stages) == 5
    fault = Fault.at(Site(0, 3, 1))
    for faults, count in (((fault, fault), 3), ((fault, Fault.at(Site(0, 3, 2))), 5)):
        plan = Plan.of(stages, at_sites(faults, 2, 0, 0))
        assert sum(len(nodes.rows) for nodes in plan.stages) == count


def test_the_nodes_do_not_depend_on_the_order_of_the_rows(case):
    stages, kinds, trials = case
    order = np.random.default_rng(9).permutation(len(kinds))

    def values(kinds, trials):
        plan = plan_of((stages, kinds, trials))
        return Counter(
            identity(stages, place, kinds[row], trials[row])
            for place, nodes in enumerate(plan.stages)
            for row in nodes.rows
        )

    assert values(kinds, trials) == values(kinds[order], trials[order])


def lies(plan, size, room=1000):
    return [slots(nodes.kernels, size, room) for nodes in plan.stages]


def calls_of(case, size):
    """One by one, or for a size all of a stage's nodes together, in tiles."""
    plan, stages = plan_of(case), case[0]
    if not size:
        return plan, one_by_one(plan, stages)
    return plan, together(plan, stages, [own for own, _ in lies(plan, size)])


@pytest.mark.parametrize("size", [0, 1, 4])
def test_calls_run_every_node_once_after_what_it_reads(case, size):
    stages = case[0]
    plan, calls = calls_of(case, size)
    lie = [own for own, _ in lies(plan, max(1, size))]
    made = {}
    for call in calls:
        nodes = plan.stages[call.stage]
        for place, node in enumerate(call.nodes):
            assert (call.stage, node) not in made, "once"
            for which, parent in enumerate(nodes.parents[node]):
                above = stages[call.stage].parents[which]
                table, slot = call.reads[which], call.places[place][which]
                assert made[above, parent] == (table, slot)
        for node in call.nodes:
            made[call.stage, node] = call.key, lie[call.stage][node] if size else 0
    assert len(made) == sum(len(nodes.rows) for nodes in plan.stages)


def test_one_by_one_comes_row_by_row(case):
    plan, calls = calls_of(case, 0)
    rows = [plan.stages[call.stage].rows[call.key[1]] for call in calls]
    assert rows == sorted(rows)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_every_table_is_freed_once_right_after_its_last_reader(case, size):
    _, calls = calls_of(case, size)
    last = {}
    for clock, call in enumerate(calls):
        last |= {call.key: clock} | dict.fromkeys(call.reads, clock)
    freed = {key: clock for clock, call in enumerate(calls) for key in call.done}
    assert freed == last and sum(len(call.done) for call in calls) == len(last)


@pytest.mark.parametrize("size", [0, 1])
def test_peak_bytes_is_that_of_a_literal_simulation(case, size):
    _, calls = calls_of(case, size)
    rng = np.random.default_rng(4)
    sizes = {call.key: rng.integers(1, 1000, 2).tolist() for call in calls}
    ends = {key: clock for clock, call in enumerate(calls) for key in call.done}
    peak = 0
    for clock, call in enumerate(calls):
        alive = [each.key for each in calls[: clock + 1] if ends[each.key] >= clock]
        peak = max(peak, sum(sizes[key][0] for key in alive) + sizes[call.key][1])
    assert peak_bytes(calls, lambda c: sizes[c.key][0], lambda c: sizes[c.key][1]) == peak


@pytest.mark.parametrize("size", [1, 2, 8])
def test_tiles_have_one_kernel_each(size):
    kernels = np.random.default_rng(3).integers(0, 3, 40)
    place, own = slots(kernels, size, 1000)
    assert own == size and len(set(place.tolist())) == 40
    tiles = {}
    for slot, kernel in zip(place, kernels, strict=True):
        assert tiles.setdefault(slot // size, kernel) == kernel
    full = -(-np.bincount(kernels) // size)
    assert sorted(tiles) == list(range(full.sum())), "no tile is empty"


def test_tiles_that_would_be_mostly_empty_or_do_not_fit_are_not_made():
    few = np.arange(10)  # a kernel each
    place, size = slots(few, 8, 1000)
    assert size == 1 and sorted(place) == list(range(10))
    assert slots(np.zeros(10, int), 8, 12)[1] == 1
    assert slots(np.zeros(10, int), 8, 16)[1] == 8


def test_rows_are_ordered_trial_by_trial_and_by_their_beginnings(case):
    stages, kinds, trials = case
    order = rows_of(kinds, trials).in_order()
    assert sorted(order) == list(range(len(kinds)))
    assert sorted(trials[order]) == trials[order].tolist()
    for depth in range(layers_of(stages) + 1):
        begun = [(trials[row], tuple(kinds[row][:depth])) for row in order]
        runs = 1 + sum(one != other for one, other in pairwise(begun))
        assert runs == len(set(begun))


def test_distinct_rows_have_numbers_and_nothing_has_0():
    words = np.array([[1, 2], [0, 0], [3, 2], [1, 2], [0, 0]], np.uint32)
    numbers, firsts = distinct(words)
    assert numbers.tolist() == [1, 0, 2, 1, 0] and firsts.tolist() == [1, 0, 2]


def test_weights_that_are_equal_are_one_kernel_whatever_the_inputs():
    weights = np.stack([NONE, LOW, LOW, HIGH])
    inputs = np.stack([NONE, NONE, HIGH, NONE])
    numbers, table = at_rates(weights, inputs)
    assert numbers.tolist() == [0, 1, 2, 3]
    assert table.of_weights.tolist() == [0, 1, 1, 2]
    assert table.drawn.tolist() == [False, True, True, True]
    nowhere = FaultSites(np.zeros((1, 0), np.uint32), np.zeros((1, 0), np.uint32))
    assert not FaultTable(nowhere, nowhere).drawn.any()
