"""A stream under one policy: what is watched, when the system acts, and what that costs.

- "never": the first mapping stays.
- "online": canaries are watched; after an alarm devices are probed, and NSGA-II looks for a mapping
  for the rates that were estimated (AFarePart, Algorithm 1).
- "safest": as online, but without a search: the network on the device whose estimated rate is the
  lowest, but for what the limits do not allow there. It tells what NSGA-II itself is worth.
- "stored": as online, but the best mapping of the offline front is taken, without a search.
- "oracle": the true rates are known, and every change of the environment is searched for at once.

Whatever is decided takes time: the search's whole budget, the probes, and the weights of moved
layers on the link. The old mapping goes on meanwhile. Shape legend: D devices, L layers, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple

import jax
import numpy as np

from afpjax.online import watch
from afpjax.online.costs_now import Front, safest_within, scaled
from afpjax.online.current import Estimate
from afpjax.online.environment import State
from afpjax.online.online import Decision, best_stored, choose, repartition
from afpjax.online.operation import Event, Operation, Price, Streamed
from afpjax.online.probes import built_as, probed, with_rates, worst_allowed
from afpjax.online.stream import Mapping, answers
from afpjax.online.switching import DEARER, above_limits, switch
from afpjax.search.objectives import costs

POLICIES = ("never", "online", "safest", "stored", "oracle")
_WATCH = ("online", "safest", "stored")  # canaries, for alarms
_SEARCH = ("online", "oracle")
WINDOW = 8  # steps that the observed drop is told of
_MORE = 4  # searches that may follow one which has not found a mapping well below theta
_MORE_ORACLE = 8
_AGAIN = "search again"


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
    exhausted: tuple[State, Mapping] | None = None  # rates and mapping for which none is left
    switches: int = 0
    alarms: int = 0
    searches: int = 0
    paid: Price = field(default_factory=Price)
    delay_ms: float = 0.0  # of probes that a decision has waited for


def streamed(
    operation: Operation,
    policy: str,
    states: Sequence[State],
    first: Mapping,
    front: Front,
    seed: int,
) -> Streamed:
    """Run a stream of T steps; a pure function of its arguments unless time cuts a search."""
    run = Run(first, front, built_as(operation.system.faults, len(states[0].present)))
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
    if policy not in _WATCH:
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
    if step - run.decided >= operation.dwell and above_limits(
        operation, state, run.belief, run.mapping
    ):
        return DEARER
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
    known = reason == "review" and run.belief == before
    if known or (run.belief, run.mapping) == run.exhausted:  # nothing new to search for
        return event._replace(reason=reason, estimated=estimated)
    decision = _look(operation, policy, run, first)
    chosen, expected = switch(operation, run.belief, run.mapping, decision, reason, first)
    # What a search expects flatters what it has found: theta itself is too near.
    enough = expected <= operation.theta / 2 or policy not in _SEARCH
    more = _MORE_ORACLE if policy == "oracle" else _MORE
    run.again = 0 if enough else run.again - 1 if reason == _AGAIN else more
    if not enough and not run.again:
        run.exhausted = run.belief, chosen or run.mapping
    if chosen is not None:
        _plan(operation, policy, run, chosen, step)
    run.delay_ms = 0.0  # what follows does not wait for these probes again
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
    run.belief = with_rates(state, run.belief.weight_rate, run.belief.activation_rate)
    if reason in ("device lost", _AGAIN):  # known without asking
        return ()
    answer, believed = probed(operation, run.belief, state, seed, event.step), run.belief
    run.belief, run.paid, run.delay_ms = answer.belief, run.paid + answer.price, answer.price.ms
    if reason == "accuracy" and run.belief == believed:
        # Probes say what was thought before, and yet too much fails: the worst that they allow.
        run.belief = worst_allowed(operation, run.belief, run.mapping, answer.estimated)
    return answer.estimated


def _look(operation: Operation, policy: str, run: Run, first: Mapping) -> Decision:
    """Search from the front that is known, or look at it alone."""
    if policy == "stored":
        return best_stored(operation.system, run.belief, run.mapping, run.front, (first,))
    if policy == "safest":
        only = (safest_within(operation.system, run.belief),)
        return choose(operation.system, run.belief, run.mapping, only, (first,))
    key = jax.random.fold_in(operation.system.key, run.searches)
    system = replace(operation.system, key=key)
    decision = repartition(system, run.belief, run.mapping, run.front, (first,))
    run.searches += 1
    run.front = decision.front
    return decision


def _plan(operation: Operation, policy: str, run: Run, chosen: Mapping, step: int) -> None:
    """Go over to a mapping once probes, search and moved weights have taken their time."""
    moving = operation.moving([i for i, d in enumerate(chosen) if d != run.mapping[i]])
    searched = operation.system.budget_ms if policy in _SEARCH else 0.0
    took = run.delay_ms + moving.ms + searched
    delay = 1 if policy == "oracle" else 1 + ceil(took / operation.step_ms)
    run.pending, run.paid = Pending(step + delay, chosen), run.paid + moving
