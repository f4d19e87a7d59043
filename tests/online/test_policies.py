"""Policies on a network of five layers: what is done when, what it costs, and no flapping."""

import dataclasses
import itertools
from math import ceil

import numpy as np
import pytest

from afpjax.config.config import all_settings
from afpjax.faults.model import FaultModel
from afpjax.online.change_detection import alarm_rule
from afpjax.online.controller import OnlineController, Price
from afpjax.online.environment import Change, Trace, nominal_state
from afpjax.online.exposure import Exposure, carried, least_exposed
from afpjax.online.policies import POLICIES, StreamEvent, StreamResult, run_policy
from afpjax.online.repartition import expected_drops
from afpjax.online.runtime_costs import safest_mapping
from afpjax.online.stream import Stream
from afpjax.search.objectives import costs

BUILT = nominal_state((0.0, 0.2, 0.0), (0.0, 0.2, 0.0))  # two devices to trust
NAMES = ("eyeriss", "simba", "simba-ecc")
FIRST = (0, 0, 0, 0, 0)
FRONT = (FIRST, (0, 0, 1, 0, 0), (2, 2, 0, 0, 0), (2, 2, 2, 2, 2))
THETA, STEP_MS, BUDGET_MS, SEED = 0.15, 1000.0, 2500.0, 4
BURST = (
    Change(20, 0, weight_rate=0.5, activation_rate=0.5),
    Change(120, 0, rate_factor=1.0),
)
LOSS = (Change(15, 0, present=False), Change(60, 0, present=True))


@pytest.fixture(scope="module")
def controller(evaluator, held, search_of):
    faults = FaultModel(weight_rate=BUILT.weight_rate, activation_rate=BUILT.activation_rate)
    stream = Stream(evaluator, held, faults, 12, 3)
    allowed = {"budget_ms": BUDGET_MS, "allow_latency": 99.0, "allow_energy": 99.0}
    search = search_of(faults=faults, unaware=FIRST, choice_trials=4, **allowed)
    return OnlineController(
        search=search,
        stream=stream,
        curves=(stream.failure_curve(1.0, 1.0, [0.2]),) * 3,
        rule=alarm_rule(THETA / stream.clean_accuracy, 3600.0, 6.0),
        theta=THETA,
        gain=0.05,
        dwell=5,
        review=30,
        canaries=8,
        probes=8,
        batch=4,
        per_inference=1,
        step_ms=STEP_MS,
        oracle=False,
        moving=lambda layers: Price(10.0 * len(layers), 1e-6 * len(layers)),
        exposure=Exposure(np.ones(5), np.linspace(0.5, 1.5, 5)),
    )


@pytest.fixture(scope="module")
def run(controller):
    """A stream of 180 steps under a policy; each is run once."""
    known = {}

    def of(policy, changes=(), steps=180, seed=SEED, **other) -> StreamResult:
        name = repr((policy, changes, steps, seed, sorted(other.items())))
        if name not in known:
            environment = Trace("t", steps, tuple(changes)).states(NAMES, BUILT, {}, seed)
            changed = dataclasses.replace(controller, **other)
            known[name] = run_policy(changed, policy, environment, FIRST, FRONT, seed)
        return known[name]

    return of


def reasons(found):
    return [(event.step, event.reason) for event in found.events if event.reason]


@pytest.mark.in_ci("never", "online", "stored")
@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_done_while_nothing_happens(run, policy):
    found = run(policy)
    assert {event.mapping for event in found.events} == {FIRST}
    assert found.switches == found.alarms == 0
    assert [step for step, _ in reasons(found)] in ([], [0])  # an oracle looks once
    assert found.paid == Price()
    assert found.time_above(THETA) == 0


def test_never_stays_whatever_happens(run, controller):
    found = run("never", BURST)
    assert {event.mapping for event in found.events} == {FIRST} and not reasons(found)
    drops = [event.drop for event in found.events]
    clean = controller.stream.clean_accuracy
    struck = clean - controller.stream.accuracy(FIRST, found.events[50].state)
    assert struck > THETA
    np.testing.assert_allclose(drops, [0.0] * 20 + [struck] * 100 + [0.0] * 60, atol=1e-12)
    assert found.time_above(THETA) == pytest.approx(100 / 180)
    assert all(event.observed is None for event in found.events)


def test_online_acts_after_an_alarm_and_what_it_does_helps(run, controller):
    found = run("online", BURST)
    step, reason = reasons(found)[0]
    assert reason == "accuracy" and 20 < step < 60
    event = found.events[step]
    rates = [made.rate for made in event.estimated if made is not None]
    assert len(rates) == 3 and rates[0] >= 0.2 and rates[2] == 0.0
    assert event.expected_drop is not None and event.expected_drop <= THETA
    switched = next(e.step for e in found.events if e.repartitioned)
    after = found.events[switched]
    assert after.mapping != FIRST and after.drop <= THETA < event.drop
    assert all(e.drop <= THETA for e in found.events[switched:120])
    never = run("never", BURST)
    assert found.time_above(THETA) <= never.time_above(THETA) / 2
    # Observed drops follow the true ones.
    assert all(e.observed == 0.0 for e in found.events[:20])
    seen = [e.observed for e in found.events[28:switched] if e.observed is not None]
    true = 1 - found.events[28].accuracy / controller.stream.clean_accuracy
    assert np.mean(seen) == pytest.approx(true, abs=0.2)
    # After the burst the cheaper first mapping is back.
    prices = costs(controller.search.tables, np.array([FIRST, found.events[100].mapping]))
    products = np.asarray(prices.latency_ms) * np.asarray(prices.energy_mj)
    assert products[0] < products[1] and found.events[-1].mapping == FIRST
    assert [e.step for e in found.events if e.repartitioned][-1] > 120


def test_a_switch_waits_for_search_probes_and_moved_weights(run, controller):
    found = run("online", BURST)
    step = reasons(found)[0][0]
    switched = next(e.step for e in found.events if e.repartitioned)
    moved = sum(a != b for a, b in zip(FIRST, found.events[switched].mapping, strict=True))
    whole = 3 * 5 * 10.0  # the network moves to each of three devices, for its probes
    assert ceil((BUDGET_MS + 10.0 * moved + whole) / STEP_MS) <= switched - step
    assert switched - step <= 2 + ceil((BUDGET_MS + 10.0 * moved + 2 * whole) / STEP_MS)
    assert {e.mapping for e in found.events[:switched]} == {FIRST}


def test_a_system_begins_with_what_it_was_built_for(run):
    """Device 2 is bad from the start and nobody has asked: when 0 is lost, 2 is what it trusts."""
    found = run("online", (Change(0, 2, weight_rate=0.5, activation_rate=0.5), *LOSS))
    assert reasons(found)[0] == (15, "device lost")
    after = next(event for event in found.events if event.repartitioned)
    assert after.mapping == (2,) * 5 and after.drop > THETA
    # Soon canaries tell, and it is left again.
    assert any(reason == "accuracy" for _, reason in reasons(found))
    assert found.events[-1].drop <= THETA


def test_inferences_of_several_images_cost_a_share_each(run, controller):
    """Probes of 8 canaries, 8 times, on three devices, are as many passes or a quarter of them."""
    one, four = (run("online", BURST, steps=60, per_inference=each) for each in (1, 4))
    assert reasons(one) == reasons(four)
    probed = sum(bool(event.estimated) for event in one.events)
    alone = costs(controller.search.tables, np.repeat(np.arange(3)[:, None], 5, axis=1))
    passes = probed * 64 * float(np.asarray(alone.energy_mj).sum())
    assert one.paid.mj - four.paid.mj == pytest.approx(0.75 * passes, rel=1e-4)


def test_a_mapping_that_comes_above_the_limits_is_left_without_an_alarm(run, controller):
    """The first device slows down; nothing fails more often."""
    slow = (Change(20, 0, latency=30.0, energy=30.0),)
    tight = dataclasses.replace(
        controller.search, allow_latency=0.5, allow_energy=0.5, known_limits={}
    )
    found = run("online", slow, steps=60, search=tight, review=0)
    reasons = [(event.step, event.reason) for event in found.events if event.reason]
    assert reasons[0] == (20, "above limits")
    moved = next(event for event in found.events if event.repartitioned)
    caps = tight.limits(moved.state)
    assert moved.latency_ms <= caps.latency_ms * (1 + 1e-6)
    assert moved.energy_mj <= caps.energy_mj * (1 + 1e-6)
    assert moved.drop <= THETA
    # What could be done has been done: no look after look.
    assert [step for step, reason in reasons if reason == "above limits"] == [20]


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "never"])
def test_a_lost_device_is_left_at_once(run, policy):
    found = run(policy, LOSS)
    step, reason = next(each for each in reasons(found) if each[0] > 0)
    assert step == 15 and reason in ("device lost", "environment")
    event = found.events[15]
    assert (event.accuracy, event.mapping) == (0.0, FIRST)
    gone = [e for e in found.events if not e.state.runs(e.mapping)]
    assert len(gone) <= 1 + ceil((BUDGET_MS + 50.0) / STEP_MS) + 1
    assert all(e.drop <= THETA for e in found.events[25:60])


def test_stored_mappings_are_of_the_stored_front(run):
    found = run("stored", BURST)
    assert {event.mapping for event in found.events} <= set(FRONT)
    assert found.switches >= 1 and found.searches == 0
    assert found.time_above(THETA) < run("never", BURST).time_above(THETA) / 2


def test_the_safest_mapping_is_taken_without_a_search(run, controller):
    found = run("safest", BURST)
    acted = next(event for event in found.events if event.reason)
    moved = next(event for event in found.events if event.repartitioned)
    rates = [made.rate for made in acted.estimated if made is not None]
    believed = BUILT._replace(weight_rate=tuple(rates), activation_rate=tuple(rates))
    assert moved.mapping == safest_mapping(controller.search, believed) == (2,) * 5
    assert found.searches == 0 and not any(event.cut for event in found.events)
    # It waits for probes and weights, but for no search.
    online = run("online", BURST)
    later = next(event.step for event in online.events if event.repartitioned)
    assert later - moved.step >= int(BUDGET_MS // STEP_MS)


@pytest.mark.parametrize("policy", ["surrogate", "safest-within-limits"])
def test_the_program_is_solved_for_the_rates_that_were_estimated(run, controller, policy):
    """The least exposed within the limits, whatever these are; nothing else is gone over to."""
    tight = dataclasses.replace(
        controller.search, allow_latency=0.5, allow_energy=0.5, known_limits={}
    )
    found = run(policy, BURST, search=tight)
    acted = next(event for event in found.events if event.reason)
    moved = next(event for event in found.events if event.repartitioned)
    rates = [made.rate for made in acted.estimated if made is not None]
    believed = BUILT._replace(weight_rate=tuple(rates), activation_rate=tuple(rates))
    exposure = controller.exposure if policy == "surrogate" else carried(tight.tables)
    assert moved.mapping == least_exposed(tight, believed, exposure) != FIRST
    assert found.searches == 0 and not any(event.cut for event in found.events)
    for event in found.events:
        cost, caps = costs(tight.tables, np.array([event.mapping])), tight.limits(event.state)
        assert event.mapping == FIRST or cost.latency_ms[0] <= caps.latency_ms * (1 + 1e-6)
        assert event.mapping == FIRST or cost.energy_mj[0] <= caps.energy_mj * (1 + 1e-6)
    # It waits as long as a search: a solve takes time too.
    assert moved.step - acted.step >= ceil(BUDGET_MS / STEP_MS)
    if policy == "surrogate":
        assert found.time_above(THETA) < run("never", BURST).time_above(THETA)


def test_decisions_that_other_streams_met_change_nothing(controller):
    """Streams under all policies, with what is known in common, and each by itself."""
    environment = Trace("t", 60, BURST).states(NAMES, BUILT, {}, SEED)
    known: dict = {}
    for policy in (*POLICIES, *POLICIES):
        alone = run_policy(controller, policy, environment, FIRST, FRONT, SEED)
        asked = len(known)
        assert run_policy(controller, policy, environment, FIRST, FRONT, SEED, known) == alone
    assert asked == len(known) > 0  # at the end all was known


def test_an_alarm_that_was_expected_is_no_news(run, controller):
    """All devices are struck alike: what is expected is above theta, and what comes is no worse."""
    changes = [Change(10, d, weight_rate=0.5, activation_rate=0.5) for d in range(3)]
    found = run("online", changes)
    acted = [event for event in found.events if event.reason == "accuracy"]
    decided = [event for event in acted if event.expected_drop is not None]
    assert len(acted) > len(decided) and found.alarms >= 4
    assert found.searches <= 2 * len({event.estimated for event in decided})


def test_every_policy_is_offered():
    assert all_settings()["online.policies"].choices == POLICIES


def test_an_oracle_is_there_first(run):
    oracle, online, never = (run(policy, BURST) for policy in ("oracle", "online", "never"))
    above = [each.time_above(THETA) for each in (oracle, online, never)]
    assert above[0] < above[1] < above[2]
    assert min(e.step for e in oracle.events if e.repartitioned) <= 22
    assert all(event.observed is None for event in oracle.events)


@pytest.mark.in_ci("safest", "stored")
@pytest.mark.parametrize("policy", ["online", "safest", "stored", "surrogate"])
def test_where_nothing_helps_nothing_flaps(run, controller, policy):
    """All devices are struck alike: alarms go on, but every mapping loses the same."""
    changes = [Change(10, d, weight_rate=0.5, activation_rate=0.5) for d in range(3)]
    found = run(policy, changes)
    # Draws are common, so mappings of equal rates are equal: no gain is expected of any.
    state = found.events[50].state
    drops = expected_drops(controller.search, state, list(FRONT))
    assert len(set(drops)) == 1 and drops[0] > THETA
    assert found.alarms >= 1
    # A rate that is estimated a step of its grid apart may move it once or twice, and no more.
    assert found.switches <= 3
    acted = [step for step, reason in reasons(found) if reason == "accuracy"]
    assert all(b - a >= controller.dwell for a, b in itertools.pairwise(acted))


def test_equal_arguments_give_equal_streams_and_seeds_other_ones(run, controller):
    environment = Trace("t", 60, BURST).states(NAMES, BUILT, {}, SEED)
    again = run_policy(controller, "online", environment, FIRST, FRONT, SEED)
    assert again == run("online", BURST, steps=60)
    other = run("online", BURST, steps=60, seed=SEED + 1)
    assert [e.observed for e in other.events] != [e.observed for e in again.events]


def event(step, drop, latency, energy, mapping=FIRST, state=BUILT):
    return StreamEvent(step, state, mapping, 0.9 - drop, drop, latency, energy)


def test_means_are_over_answered_images_and_pay_what_was_paid():
    gone = BUILT._replace(present=(False, True, True))
    events = (
        event(0, 0.0, 2.0, 1.0),
        event(1, 0.2, 4.0, 3.0),
        event(2, 0.9, 50.0, 50.0, FIRST, gone),
    )
    whole = StreamResult(events, 2, 1, 1, Price(8.0, 0.8))
    found = whole.means(inferences=4.0)
    assert found["accuracy"] == pytest.approx((0.9 + 0.7 + 0.0) / 3)
    assert found["latency_ms"] == pytest.approx(3.0 + 8.0 / 8)
    assert found["energy_mj"] == pytest.approx(2.0 + 0.8 / 8)
    assert found["switches"] == 2
    assert whole.time_above(0.2) == pytest.approx(1 / 3)  # at theta is not above it


def test_what_has_been_searched_in_vain_is_not_searched_again(run):
    """All devices have one rate, rates are read: alarms go on, searches do not."""
    changes = [Change(10, d, weight_rate=0.5, activation_rate=0.5) for d in range(3)]
    found = run("online", changes, oracle=True, review=0)
    assert found.alarms >= 4 and found.searches == 2  # one, and one more that finds no more
    assert {event.reason for event in found.events} == {"", "accuracy", "search again"}
    # Another environment is another question.
    later = [*changes, Change(100, 2, weight_rate=0.0, activation_rate=0.0)]
    again = run("online", later, oracle=True, review=0)
    assert again.searches > 2 and again.events[-1].drop <= THETA
