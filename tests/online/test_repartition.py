"""The search while the system runs, beside enumeration of all mappings and forward runs."""

import dataclasses
import time

import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.inputs.errors import InputError
from afpjax.online.environment import nominal_state
from afpjax.online.repartition import (
    _FIRST_CHOICE_DRAW,
    best_stored,
    choose,
    expected_drops,
    repartition,
)
from afpjax.online.runtime_costs import (
    as_keys,
    least_energy_delay,
    off_lost_devices,
    safest_mapping,
)
from afpjax.search.objectives import costs

BUILT = nominal_state((0.02, 0.2, 0.0), (0.05, 0.3, 0.0))
FAULTY = BUILT._replace(weight_rate=(0.4, 0.2, 0.0), activation_rate=(0.4, 0.3, 0.0))
LOST = BUILT._replace(present=(False, True, True))
ALONE = BUILT._replace(present=(False, False, True))
HOT = BUILT._replace(latency=(3.0, 1.0, 1.0), energy=(1.0, 1.5, 0.5))


@pytest.fixture(scope="module")
def product(tables, every_mapping):
    """Latency x energy of all mappings: layer by layer in NumPy, and what the links add."""

    def of(state):
        link = costs(tables, every_mapping)
        layers = np.arange(every_mapping.shape[1])
        latency, energy = (
            (np.asarray(table, np.float64) * np.array(factor))[layers, every_mapping].sum(axis=1)
            for table, factor in (
                (tables.latency_ms, state.latency),
                (tables.energy_mj, state.energy),
            )
        )
        return (latency + link.link_latency_ms) * (energy + link.link_energy_mj)

    return of


@pytest.fixture(scope="module")
def cheapest(every_mapping, product):
    """The mapping of least energy-delay product on the devices that are there, and the product."""

    def of(state):
        there = np.array(state.present)[every_mapping].all(axis=1)
        products = np.where(there, product(state), np.inf)
        return tuple(every_mapping[products.argmin()].tolist()), products.min()

    return of


@pytest.fixture(scope="module")
def system(search_of, faults, cheapest):
    allowed = {"budget_ms": 1e9, "allow_latency": 0.5, "allow_energy": 0.5}
    return search_of(faults=faults, unaware=cheapest(BUILT)[0], choice_trials=2, **allowed)


@pytest.fixture(scope="module")
def with_(system):
    """The system with other settings; limits are its own."""

    def changed(**settings):
        return dataclasses.replace(system, known_limits={}, took_ms=[], **settings)

    return changed


@pytest.mark.parametrize("state", [BUILT, LOST, ALONE, HOT, HOT._replace(present=LOST.present)])
def test_the_cheapest_mapping_now_is_that_of_enumeration(system, cheapest, product, state):
    found = least_energy_delay(system, state)
    _, least = cheapest(state)
    place = np.ravel_multi_index(found, (3,) * 5)
    assert product(state)[place] == pytest.approx(least, rel=1e-6)
    assert all(state.present[device] for device in found)


def test_limits_are_so_much_more_than_the_fault_unaware_choice(system, with_, tables, cheapest):
    chosen = np.array([cheapest(BUILT)[0]])
    cost = costs(tables, chosen)
    system = with_(allow_latency=0.25, allow_energy=1.0)
    caps = system.limits(BUILT)
    assert caps.latency_ms == pytest.approx(1.25 * cost.latency_ms[0])
    assert caps.energy_mj == pytest.approx(2.0 * cost.energy_mj[0])
    assert system.limits(FAULTY) == caps  # fault rates cost nothing


def test_layers_of_lost_devices_move_to_the_cheapest_one_left(system, tables):
    alone = costs(tables, np.repeat(np.arange(3)[:, None], 5, axis=1))
    products = np.asarray(alone.latency_ms) * np.asarray(alone.energy_mj)
    goal = 1 + int(products[1:].argmin())
    assert off_lost_devices(system, LOST, (0, 1, 2, 0, 1)) == (goal, 1, 2, goal, 1)
    assert off_lost_devices(system, BUILT, (0, 1, 2, 0, 1)) == (0, 1, 2, 0, 1)


def test_the_safest_mapping_is_on_the_safest_device_as_far_as_the_limits_go(
    system, with_, tables, every_mapping
):
    roomy = with_(allow_latency=99.0, allow_energy=99.0)
    assert safest_mapping(roomy, FAULTY) == (2,) * 5
    assert safest_mapping(roomy, BUILT._replace(weight_rate=(0.0, 0.2, 0.5))) == (0,) * 5
    assert safest_mapping(roomy, LOST._replace(weight_rate=(0.0, 0.1, 0.5))) == (1,) * 5
    assert safest_mapping(system, ALONE) == (2,) * 5
    # Somewhat less may be spent: some layers move, no more than need be, and the limits hold.
    cost = costs(tables, every_mapping)
    whole = costs(tables, np.array([(2,) * 5]))
    least = with_(allow_latency=0.0, allow_energy=0.0).limits(FAULTY)
    share = 0.7 * float(whole.energy_mj[0]) / least.energy_mj - 1
    tight = with_(allow_latency=99.0, allow_energy=share)
    caps = tight.limits(FAULTY)
    assert whole.energy_mj[0] > caps.energy_mj
    found = safest_mapping(tight, FAULTY)
    assert within(tight, FAULTY, [found])[0]
    allowed = np.asarray(cost.energy_mj) <= caps.energy_mj
    fewest = (every_mapping[allowed] != 2).sum(axis=1).min()
    assert 0 < sum(device != 2 for device in found) <= fewest + 1


def test_expected_drops_are_those_of_forward_runs(system, directly):
    mappings = [(0, 1, 2, 0, 1), (0,) * 5, (2,) * 5]
    faults, trials = FAULTY.faults(system.faults), range(_FIRST_CHOICE_DRAW, _FIRST_CHOICE_DRAW + 2)
    clean = system.evaluator.clean().mean()
    wanted = [clean - directly(faults, each, trials).mean() for each in mappings]
    found = expected_drops(system, FAULTY, mappings)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert found[1] > 0.1 and found[2] == 0


def within(system, state, mappings):
    cost, caps = costs(system.tables_now(state), np.array(mappings)), system.limits(state)
    return (cost.latency_ms <= caps.latency_ms * (1 + 1e-6)) & (
        cost.energy_mj <= caps.energy_mj * (1 + 1e-6)
    )


def test_the_choice_loses_least_of_what_is_within_the_limits(system, every_mapping):
    some = as_keys(every_mapping[::7])
    found = choose(system, FAULTY, some[0], some)
    drops = expected_drops(system, FAULTY, some)
    allowed = within(system, FAULTY, some)
    assert 0 < allowed.sum() < len(some)
    assert found.drop == drops[allowed].min()
    assert within(system, FAULTY, [found.mapping])[0]
    assert found.drop_now == drops[0]


def test_the_mapping_in_use_is_among_what_is_chosen_from(system, with_):
    best, worse = (2,) * 5, (0,) * 5
    generous = with_(allow_latency=99.0, allow_energy=99.0)
    assert choose(generous, FAULTY, best, (worse,)).mapping == best
    assert choose(generous, FAULTY, worse, (best,)).mapping == best
    # What is only asked about is not chosen.
    found = choose(generous, FAULTY, worse, ((0, 0, 0, 0, 1),), (best,))
    assert found.mapping != best and found.drops == (0.0,)


@pytest.mark.parametrize("state", [BUILT, FAULTY, LOST, HOT])
def test_a_search_ends_within_the_limits_on_devices_that_are_there(system, state):
    current = (0, 1, 0, 1, 0)
    found = repartition(system, state, current, ((1, 1, 2, 2, 0),), ((2,) * 5,))
    for mapping in (found.mapping, *found.front):
        assert all(state.present[device] for device in mapping)
        assert within(system, state, [mapping])[0]
    assert found.drop == expected_drops(system, state, [found.mapping])[0]
    # It begins with what must not be missed: the mapping in use, the safest, each device alone.
    begun = [current, safest_mapping(system, state), *((device,) * 5 for device in range(3))]
    begun = [each for each in begun if all(state.present[device] for device in each)]
    begun = [each for each in begun if within(system, state, [each])[0]]
    assert found.drop <= min(expected_drops(system, state, begun), default=1)
    assert not found.cut and found.evaluations > 0
    # The same conditions, the same answer.
    assert repartition(system, state, current, ((1, 1, 2, 2, 0),), ((2,) * 5,)) == found


def test_few_mappings_are_all_tried(system, with_, every_mapping):
    """Two devices are left: 32 mappings, no more than the generations may evaluate."""
    roomy = with_(allow_latency=9.0, allow_energy=9.0, choice_trials=1)
    found = repartition(roomy, LOST, (0,) * 5, ())
    left = as_keys(every_mapping[(every_mapping > 0).all(axis=1)])
    assert found.evaluations == len(left) == 32 and found.generations == 0
    assert found.drop == expected_drops(roomy, LOST, left).min() == 0
    searched = repartition(roomy, BUILT, (0,) * 5, ())
    assert searched.generations == 3 and searched.evaluations < len(every_mapping)


def test_the_search_finds_what_removes_the_drop(system, with_, every_mapping):
    """Everything may be spent: the best of all mappings loses nothing, and so does the search's."""
    roomy = with_(allow_latency=99.0, allow_energy=99.0)
    found = repartition(roomy, FAULTY, (0,) * 5, ())
    assert found.drop_now > 0.1 and found.drop <= 0.0


def test_time_ends_a_search_and_a_busy_machine_changes_nothing(system, with_, monkeypatch):
    """Time for 12 mappings, where the first population has 8; then on a slow machine."""
    passes = 12 * system.trials * system.evaluator.count
    hasty = with_(budget_ms=2000.0, passes_per_s=passes / 2.0 / 0.7)
    found = repartition(hasty, BUILT, (0,) * 5, ())
    assert 1 <= found.generations < 3 and found.cut
    assert within(system, BUILT, [found.mapping])[0]
    drawn = Evaluator.evaluate

    def slowly(*given, **settings):
        time.sleep(1.0)
        return drawn(*given, **settings)

    monkeypatch.setattr(Evaluator, "evaluate", slowly)
    assert repartition(hasty, BUILT, (0,) * 5, ()) == found
    assert len(hasty.took_ms) == 2 and hasty.took_ms[1] > 1e3


def test_limits_that_nothing_meets_end_with_what_misses_them_least(system, with_):
    mean = with_(allow_latency=-0.9, allow_energy=-0.9)
    current = (0, 1, 0, 1, 0)
    found = repartition(mean, BUILT, current, ())
    given = [current, safest_mapping(mean, BUILT), (0,) * 5, (1,) * 5, (2,) * 5]
    cost, caps = costs(system.tables, np.array(given)), mean.limits(BUILT)
    excess = np.maximum(cost.latency_ms / caps.latency_ms, cost.energy_mj / caps.energy_mj)
    assert found.mapping == given[int(excess.argmin())]


@pytest.mark.parametrize("decide", [repartition, best_stored])
def test_one_device_left_leaves_no_choice_and_none_is_an_error(system, decide):
    found = decide(system, ALONE, (0, 1, 2, 0, 1), ((1,) * 5,))
    assert found.mapping == (2,) * 5 and found.generations == 0 and not found.cut
    gone = BUILT._replace(present=(False,) * 3)
    with pytest.raises(InputError, match="all devices are gone"):
        decide(system, gone, (0,) * 5, ((1,) * 5,))


def test_the_stored_front_is_looked_at_where_it_can_be_used(system, with_):
    front = ((0, 0, 0, 0, 0), (1, 1, 2, 1, 2), (2, 2, 2, 2, 1))
    roomy = with_(allow_latency=99.0, allow_energy=99.0)
    found = best_stored(roomy, LOST, (0,) * 5, front)
    drops = expected_drops(roomy, LOST, front[1:])
    assert found.mapping in front[1:] and found.drop == drops.min()
    assert found.front == front and found.generations == found.evaluations == 0
    # Where all of it needs a lost device, one device does all.
    found = best_stored(roomy, LOST, (0,) * 5, front[:1])
    assert found.mapping == (2,) * 5
