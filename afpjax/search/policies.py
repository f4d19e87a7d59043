"""A stream under one policy: what is watched, when the system acts, and what that costs.

- "never": the first mapping stays.
- "online": canaries are watched; after an alarm devices are probed, and NSGA-II looks for a mapping
  for the rates that were estimated (AFarePart, Algorithm 1).
- "stored": as online, but the best mapping of the offline front is taken, without a search.
- "oracle": the true rates are known, and every change of the environment is searched for at once.

Whatever is decided takes time: the search's whole budget, the probes, and the weights of moved
layers on the link. The old mapping goes on meanwhile. Shape legend: D devices, L layers, T steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from afpjax.search import watch
from afpjax.search.current import Curve, Estimate, estimate
from afpjax.search.environment import State
from afpjax.search.online import (
    Decision,
    Front,
    System,
    best_stored,
    repartition,
    scaled,
)
from afpjax.search.problem import costs
from afpjax.search.stream import Mapping, Stream, answers, shares

POLICIES = ("never", "online", "stored", "oracle")
WINDOW = 8  # steps that the observed drop is told of
_MORE = 4  # searches that may follow one which has not found a mapping well below theta
_MORE_ORACLE = 8
_AGAIN = "search again"


class Price(NamedTuple):
    """What something costs once, beside the images of the stream."""

    ms: float = 0.0
    mj: float = 0.0

    def __add__(self, other: "Price") -> "Price":  # pyright: ignore
        return Price(self.ms + other.ms, self.mj + other.mj)


@dataclass(frozen=True)
class Operation:
    """How the system is run. `moving(layers)` prices the weights of some layers on the link."""

    system: System
    stream: Stream
    curves: tuple[Curve, ...]  # of each device
    rule: watch.Rule
    theta: float
    gain: float
    dwell: int
    review: int
    canaries: int
    probes: int
    batch: int
    step_ms: float
    oracle: bool
    moving: Callable[[Sequence[int]], Price]


class Event(NamedTuple):
    """One step: what was, what was seen, and what was done."""

    step: int
    state: State
    mapping: Mapping
    accuracy: float  # true, of held-out images
    drop: float  # true
    latency_ms: float
    energy_mj: float
    observed: float | None = None  # share of failing canaries over the last steps
    observed_interval: tuple[float, float] | None = None
    evidence: float | None = None
    repartitioned: bool = False  # another mapping runs from this step on
    reason: str = ""  # why something was decided after this step
    estimated: tuple[Estimate | None, ...] = ()  # rates, where devices were probed
    expected_drop: float | None = None  # of what was decided
    cut: bool = False  # time ended the search


class Pending(NamedTuple):
    """A mapping that has been decided on and runs from a step on."""

    step: int
    mapping: Mapping


@dataclass
class Run:
    """What a policy knows while its stream runs."""

    mapping: Mapping
    front: Front
    belief: State  # rates as they are thought to be
    pending: Pending | None = None
    evidence: watch.Evidence = field(default_factory=watch.nothing_seen)
    shares: list[float] = field(default_factory=list)
    decided: int = -(10**9)  # step of the last decision
    again: int = 0  # searches left, where the last one has not found enough
    switches: int = 0
    alarms: int = 0
    searches: int = 0
    paid: Price = field(default_factory=Price)
    delay_ms: float = 0.0  # of probes that a decision has waited for


class Streamed(NamedTuple):
    """A whole stream under one policy."""

    events: tuple[Event, ...]
    switches: int
    alarms: int
    searches: int
    paid: Price  # switches and probes


def streamed(
    operation: Operation,
    policy: str,
    states: Sequence[State],
    first: Mapping,
    front: Front,
    seed: int,
) -> Streamed:
    """Run a stream of T steps; a pure function of its arguments unless time cuts a search."""
    run = Run(first, front, states[0])
    events = []
    for step, state in enumerate(states):
        switched = _take_up(run, step)
        event = _met(operation, policy, run, state, seed, step)._replace(repartitioned=switched)
        before = states[step - 1] if step else state
        reason = _reason(operation, policy, run, before, state, step, first)
        if reason:
            event = _act(operation, policy, run, event, reason, first, seed)
        events.append(event)
    return Streamed(tuple(events), run.switches, run.alarms, run.searches, run.paid)


def _take_up(run: Run, step: int) -> bool:
    """Go over to a mapping whose time has come."""
    if run.pending is None or step < run.pending.step:
        return False
    run.mapping, run.pending = run.pending.mapping, None
    run.evidence, run.shares = watch.nothing_seen(), []
    run.switches += 1
    return True


def _met(operation: Operation, policy: str, run: Run, state: State, seed: int, step: int) -> Event:
    """One batch of the stream, its canaries among them."""
    stream, cost = (
        operation.stream,
        costs(scaled(operation.system.tables, state), np.array([run.mapping], np.int32)),
    )
    accuracy = stream.accuracy(run.mapping, state)
    event = Event(
        step,
        state,
        run.mapping,
        accuracy,
        stream.clean - accuracy,
        float(cost.latency_ms[0]),
        float(cost.energy_mj[0]),
    )
    if policy not in ("online", "stored"):
        return event
    share = stream.failing(run.mapping, state, operation.canaries, seed, step)
    run.evidence = watch.seen(operation.rule, run.evidence, share)
    run.shares = [*run.shares, share][-WINDOW:]
    mean, interval = watch.observed(run.shares, operation.canaries)
    return event._replace(
        observed=mean, observed_interval=interval, evidence=float(run.evidence.mean())
    )


def _reason(
    operation: Operation,
    policy: str,
    run: Run,
    before: State,
    state: State,
    step: int,
    first: Mapping,
) -> str:
    """Why to act after this step; empty: there is no reason."""
    if policy == "never":
        return ""
    going = run.mapping if run.pending is None else run.pending.mapping
    if not answers(going, state):
        return "device lost"
    if policy == "oracle" and (step == 0 or state != before):
        return "environment"
    if run.pending is None and run.again:
        return _AGAIN
    if policy == "oracle" or run.pending is not None:
        return ""
    return _noticed(operation, run, before, state, step, first)


def _noticed(
    operation: Operation, run: Run, before: State, state: State, step: int, first: Mapping
) -> str:
    """What a system that watches has noticed after a step."""
    if watch.alarms(operation.rule, run.evidence):
        run.alarms += 1
        run.evidence = watch.nothing_seen()
        return "accuracy" if step - run.decided >= operation.dwell else ""
    if any(now and not then for now, then in zip(state.present, before.present, strict=True)):
        return "device back"
    due = operation.review and step - run.decided >= operation.review
    return "review" if due and run.mapping != first else ""


def _act(
    operation: Operation,
    policy: str,
    run: Run,
    event: Event,
    reason: str,
    first: Mapping,
    seed: int,
) -> Event:
    """Estimate, search, choose; the mapping follows when all that has taken its time."""
    step = event.step
    before, estimated = run.belief, _informed(operation, policy, run, event, reason, seed)
    run.decided = step
    if reason == "review" and run.belief == before:  # nothing new to search for
        return event._replace(reason=reason, estimated=estimated)
    decision = _look(operation, policy, run, first)
    chosen, expected = _choice(operation, run, decision, reason, first)
    # What a search expects flatters what it has found: theta itself is too near.
    enough = expected <= operation.theta / 2 or policy == "stored"
    more = _MORE_ORACLE if policy == "oracle" else _MORE
    run.again = 0 if enough else run.again - 1 if reason == _AGAIN else more
    if chosen is not None:
        _plan(operation, policy, run, chosen, step)
    return event._replace(
        reason=reason, estimated=estimated, expected_drop=expected, cut=decision.cut
    )


def _informed(
    operation: Operation, policy: str, run: Run, event: Event, reason: str, seed: int
) -> tuple[Estimate | None, ...]:
    """What is known of the environment once it is asked for; estimates, where devices are probed.

    Latency, energy and which devices are there are profiled; rates are the truth for an oracle.
    """
    state = event.state
    if policy == "oracle" or operation.oracle:
        run.belief = state
        return ()
    run.belief = replace_rates(state, run.belief.weight_rate, run.belief.activation_rate)
    if reason in ("device lost", _AGAIN):  # known without asking
        return ()
    believed = run.belief
    estimated, price = _probed(operation, run, state, seed, event.step)
    run.paid, run.delay_ms = run.paid + price, price.ms
    if reason == "accuracy" and run.belief == believed:
        # Probes say what was thought before, and yet too much fails: the worst that they allow.
        run.belief = _worst(operation, run, estimated)
    return estimated


def _worst(operation: Operation, run: Run, estimated: Sequence[Estimate | None]) -> State:
    """The belief with the highest rate that probes allow of every device in use."""
    weight, activation = list(run.belief.weight_rate), list(run.belief.activation_rate)
    for device in {*run.mapping}:
        if (made := estimated[device]) is not None:
            ratio = _ratio(operation, device)
            weight[device], activation[device] = (made.interval[1] * each for each in ratio)
    return replace_rates(run.belief, weight, activation)


def _ratio(operation: Operation, device: int) -> tuple[float, float]:
    """A device's rates as shares of the larger, as it was built for."""
    built = operation.system.faults
    return shares(_rate(built.weight_rate, device), _rate(built.activation_rate, device))


def _look(operation: Operation, policy: str, run: Run, first: Mapping) -> Decision:
    """Search from the front that is known, or look at it alone."""
    if policy == "stored":
        return best_stored(operation.system, run.belief, run.mapping, run.front, (first,))
    key = jax.random.fold_in(operation.system.key, run.searches)
    system = replace(operation.system, key=key)
    decision = repartition(system, run.belief, run.mapping, run.front, (first,))
    run.searches += 1
    run.front = decision.front
    return decision


def _plan(operation: Operation, policy: str, run: Run, chosen: Mapping, step: int) -> None:
    """Go over to a mapping once probes, search and moved weights have taken their time."""
    moving = operation.moving([i for i, d in enumerate(chosen) if d != run.mapping[i]])
    took = run.delay_ms + moving.ms + (0.0 if policy == "stored" else operation.system.budget_ms)
    delay = 1 if policy == "oracle" else 1 + ceil(took / operation.step_ms)
    run.pending, run.paid, run.delay_ms = Pending(step + delay, chosen), run.paid + moving, 0.0


def _choice(
    operation: Operation, run: Run, decision: Decision, reason: str, first: Mapping
) -> tuple[Mapping | None, float]:
    """The mapping to go over to, None to stay; and its expected drop.

    A switch is for an expected gain, or away from a lost device. A look without an alarm may also
    go back to the first mapping, which is cheaper, where that is expected to stay well below theta.
    """
    (drop_first,) = decision.drops
    lost = not answers(run.mapping, run.belief)
    well_below = drop_first <= max(operation.theta - operation.gain, operation.theta / 2)
    if reason != "accuracy" and answers(first, run.belief) and well_below and not lost:
        cheaper = _product(operation, run.belief, first) < _product(
            operation, run.belief, run.mapping
        )
        if run.mapping != first and cheaper:
            return first, drop_first
        return None, decision.drop_now
    if lost or decision.drop <= decision.drop_now - operation.gain:
        return (None if decision.mapping == run.mapping else decision.mapping), decision.drop
    return None, decision.drop_now


def _product(operation: Operation, state: State, mapping: Mapping) -> float:
    cost = costs(scaled(operation.system.tables, state), np.array([mapping], np.int32))
    return float(cost.latency_ms[0]) * float(cost.energy_mj[0])


def _probed(
    operation: Operation, run: Run, state: State, seed: int, step: int
) -> tuple[tuple[Estimate | None, ...], Price]:
    """Each present device's rate from canaries on it alone; `run.belief` takes them up."""
    stream, found = operation.stream, list[Estimate | None]()
    weight, activation = list(run.belief.weight_rate), list(run.belief.activation_rate)
    built = operation.system.faults
    price, layers = Price(), range(operation.system.layers)
    size = min(operation.canaries, len(stream.pool))
    for device, here in enumerate(state.present):
        if not here:
            found.append(None)
            continue
        failed = stream.probed(device, state, size, operation.probes, seed, step)
        own = (_rate(built.weight_rate, device), _rate(built.activation_rate, device))
        known = [max(weight[device], activation[device]), max(own)]
        made = estimate(operation.curves[device], failed, size, known)
        ratio = _ratio(operation, device)
        weight[device], activation[device] = made.rate * ratio[0], made.rate * ratio[1]
        found.append(made)
        price += _probe_price(operation, state, device, size, layers)
    run.belief = replace_rates(run.belief, weight, activation)
    return tuple(found), price


def _probe_price(
    operation: Operation, state: State, device: int, size: int, layers: Sequence[int]
) -> Price:
    """The whole network is loaded, and its probes are run."""
    mapping = np.full((1, operation.system.layers), device, np.int32)
    cost = costs(scaled(operation.system.tables, state), mapping)
    images = size * operation.probes
    passes = Price(float(cost.latency_ms[0]) * images, float(cost.energy_mj[0]) * images)
    return operation.moving(layers) + passes


def replace_rates(state: State, weight: Sequence[float], activation: Sequence[float]) -> State:
    """The state at other rates."""
    return state._replace(
        weight_rate=tuple(map(float, weight)), activation_rate=tuple(map(float, activation))
    )


def _rate(rates: float | Sequence[float], device: int) -> float:
    every = np.atleast_1d(rates)
    return float(every[min(device, len(every) - 1)])


def time_above(events: Sequence[Event], theta: float) -> float:
    """Share of the steps whose true drop is above theta."""
    return float(np.mean([event.drop > theta for event in events]))


def means(streamed: Streamed, batch: int) -> dict[str, Float[np.ndarray, ""] | float]:
    """Accuracy over all steps; latency and energy per answered image, switches and probes paid."""
    events = streamed.events
    answered = [event for event in events if answers(event.mapping, event.state)]
    images = max(len(answered), 1) * batch
    latency, energy = (
        float(np.mean([getattr(event, name) for event in answered] or [0.0]))
        for name in ("latency_ms", "energy_mj")
    )
    return {
        "accuracy": float(np.mean([event.accuracy for event in events])),
        "latency_ms": latency + streamed.paid.ms / images,
        "energy_mj": energy + streamed.paid.mj / images,
        "switches": float(streamed.switches),
    }
