"""A stream under one policy: what is watched, when the system acts, and what that costs.

- "never": the first mapping stays.
- "online": canaries are watched; after an alarm devices are probed, and NSGA-II looks for a mapping
  for the rates that were estimated (AFarePart, Algorithm 1).
- "safest": as online, but without a search: the network on the device whose estimated rate is the
  lowest, but for what the limits do not allow there. It tells what NSGA-II itself is worth.
- "safest-within-limits": as safest, but the fewest faulty bits that any mapping within the limits
  has, by the exact program (`exposure`).
- "stored": as online, but the best mapping of the offline front is taken, without a search.
- "surrogate": what faults in each layer cost was learnt offline (`exposure.ExposureLearner`); for
  the estimated rates the exact program finds the least sum within the limits, in one solve.
- "oracle": the true rates are known, and every change of the environment is searched for at once.

Whatever is decided takes time: the search's whole budget (the program's too), the probes, and the
weights of moved layers on the link. The old mapping goes on meanwhile. Shape legend: D devices, L
layers, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple

import jax
import numpy as np

from afpjax.online.change_detection import Evidence, no_evidence, observed_share
from afpjax.online.controller import ABOVE_LIMITS, OnlineController, Price
from afpjax.online.environment import MappingKey, PlatformState
from afpjax.online.exposure import carried, least_exposed
from afpjax.online.rate_estimation import RateEstimate
from afpjax.online.repartition import Decision, best_stored, choose, repartition
from afpjax.online.runtime_costs import MappingKeys, safest_mapping
from afpjax.search.objectives import costs

POLICIES = (
    "never",
    "online",
    "safest",
    "safest-within-limits",
    "stored",
    "surrogate",
    "oracle",
)
_WATCH = tuple(each for each in POLICIES if each not in ("never", "oracle"))  # canaries, for alarms
_SEARCH = ("online", "oracle")
_SOLVE = ("safest-within-limits", "surrogate")  # the exact program, which may take as long
WINDOW = 8  # steps that the observed drop is told of
_MORE = 4  # searches that may follow one which has not found a mapping well below theta
_MORE_ORACLE = 8
_AGAIN = "search again"


class Question(NamedTuple):
    """All that a decision follows from, under one controller and first mapping."""

    kind: str  # a policy without a search, or "search"
    searches: int  # before this one: each has its own random numbers
    belief: PlatformState
    mapping: MappingKey
    front: MappingKeys


class StreamEvent(NamedTuple):
    """One step: what was, what was seen, and what was done."""

    step: int
    state: PlatformState
    mapping: MappingKey
    accuracy: float  # true, of held-out images
    drop: float  # true
    latency_ms: float
    energy_mj: float
    observed: float | None = None  # share of failing canaries over the last steps
    observed_interval: tuple[float, float] | None = None
    evidence: float | None = None
    repartitioned: bool = False  # another mapping runs from this step on
    reason: str = ""  # why something was decided after this step
    estimated: tuple[RateEstimate | None, ...] = ()  # rates, where devices were probed
    expected_drop: float | None = None  # of what was decided
    cut: bool = False  # time ended the search


class StreamResult(NamedTuple):
    """A whole stream under one policy."""

    events: tuple[StreamEvent, ...]
    switches: int
    alarms: int
    searches: int
    paid: Price  # switches and probes

    def time_above(self, theta: float) -> float:
        """Share of the steps whose true drop is above theta."""
        return float(np.mean([event.drop > theta for event in self.events]))

    def means(self, inferences: float) -> dict[str, float]:
        """Accuracy over all steps; latency and energy of an answered inference, of which a step
        has so many, with its share of what probes and switches took."""
        answered = [event for event in self.events if event.state.runs(event.mapping)]
        count = max(len(answered), 1) * inferences
        latency, energy = (
            float(np.mean([getattr(event, name) for event in answered] or [0.0]))
            for name in ("latency_ms", "energy_mj")
        )
        return {
            "accuracy": float(np.mean([event.accuracy for event in self.events])),
            "latency_ms": latency + self.paid.ms / count,
            "energy_mj": energy + self.paid.mj / count,
            "switches": float(self.switches),
        }


def run_policy(
    controller: OnlineController,
    policy: str,
    states: Sequence[PlatformState],
    first: MappingKey,
    front: MappingKeys,
    seed: int,
    known: dict[Question, Decision] | None = None,
) -> StreamResult:
    """Run a stream of T steps; a pure function of its arguments.

    `known` are decisions of other streams under the same controller: equal questions have equal
    answers, and are asked once.
    """
    run = _PolicyRun(
        controller,
        policy,
        first,
        seed,
        first,
        front,
        controller.nominal,
        {} if known is None else known,
    )
    events = []
    for step, state in enumerate(states):
        switched = run.take_up(step)
        event = run.batch(state, step)._replace(repartitioned=switched)
        before = states[step - 1] if step else state
        if reason := run.reason(before, state, step):
            event = run.act(event, reason)
        events.append(event)
    return StreamResult(tuple(events), run.switches, run.alarms, run.searches, run.paid)


@dataclass
class _PolicyRun:
    """One stream under one policy, and what the system knows while it runs."""

    controller: OnlineController
    policy: str
    first: MappingKey
    seed: int
    mapping: MappingKey  # in use
    front: MappingKeys
    belief: PlatformState  # rates as they are thought to be
    known: dict[Question, Decision]
    expected: float = 0.0  # drop of the mapping in use, by what was decided last
    pending: tuple[int, MappingKey] | None = None  # the step from which a mapping runs, and it
    evidence: Evidence = field(default_factory=no_evidence)
    shares: list[float] = field(default_factory=list)  # of canaries that failed, last steps
    decided: int = -(10**9)  # step of the last decision
    again: int = 0  # searches left, where the last one has not found enough
    exhausted: set[tuple[PlatformState, MappingKey]] = field(default_factory=set)  # searched enough
    met: dict[tuple[MappingKey, PlatformState], tuple[float, float, float]] = field(
        default_factory=dict
    )
    switches: int = 0
    alarms: int = 0
    searches: int = 0
    paid: Price = field(default_factory=Price)
    delay_ms: float = 0.0  # of probes that a decision has waited for

    def take_up(self, step: int) -> bool:
        """Go over to a mapping whose time has come."""
        if self.pending is None or step < self.pending[0]:
            return False
        (_, self.mapping), self.pending = self.pending, None
        self.evidence, self.shares = no_evidence(), []
        self.switches += 1
        return True

    def batch(self, state: PlatformState, step: int) -> StreamEvent:
        """One batch of the stream, its canaries among them."""
        controller, stream = self.controller, self.controller.stream
        accuracy, latency_ms, energy_mj = self._truth(state)
        event = StreamEvent(
            step,
            state,
            self.mapping,
            accuracy,
            stream.clean_accuracy - accuracy,
            latency_ms,
            energy_mj,
        )
        if self.policy not in _WATCH:
            return event
        share = stream.failing_share(self.mapping, state, controller.canaries, self.seed, step)
        self.evidence = controller.rule.updated(self.evidence, share)
        self.shares = [*self.shares, share][-WINDOW:]
        mean, interval = observed_share(self.shares, controller.canaries)
        return event._replace(
            observed=mean, observed_interval=interval, evidence=float(self.evidence.mean())
        )

    def _truth(self, state: PlatformState) -> tuple[float, float, float]:
        """True accuracy, latency (ms) and energy (mJ) of the mapping in use: the same all along."""
        if (self.mapping, state) not in self.met:
            controller = self.controller
            tables = controller.search.tables_now(state)
            cost = costs(tables, np.array([self.mapping], np.int32))
            accuracy = controller.stream.accuracy(self.mapping, state)
            each = accuracy, float(cost.latency_ms[0]), float(cost.energy_mj[0])
            self.met[self.mapping, state] = each
        return self.met[self.mapping, state]

    def reason(self, before: PlatformState, state: PlatformState, step: int) -> str:
        """Why to act after this step; empty: there is no reason."""
        if self.policy == "never":
            return ""
        if not state.runs(self.pending[1] if self.pending else self.mapping):
            return "device lost"
        if self.policy == "oracle" and (step == 0 or state != before):
            return "environment"
        if self.pending is None and self.again:
            return _AGAIN
        if self.policy == "oracle" or self.pending is not None:
            return ""
        return self._noticed(before, state, step)

    def act(self, event: StreamEvent, reason: str) -> StreamEvent:
        """Estimate, search, choose; the mapping follows when all that has taken its time."""
        before, estimated = self.belief, self._inform(event, reason)
        self.decided = event.step
        unchanged = reason == "review" and self.belief == before
        if unchanged or (self.belief, self.mapping) in self.exhausted:  # nothing new to search for
            return event._replace(reason=reason, estimated=estimated)
        decision, controller = self._decided(), self.controller
        chosen, expected = controller.switch(
            self.belief, self.mapping, decision, reason, self.first
        )
        self.expected = expected
        # What a search expects flatters what it has found: theta itself is too near.
        enough = expected <= controller.theta / 2 or self.policy not in _SEARCH
        done = enough or (reason == _AGAIN and chosen is None)  # the last one found no more
        more = _MORE_ORACLE if self.policy == "oracle" else _MORE
        self.again = 0 if done else self.again - 1 if reason == _AGAIN else more
        if not enough and not self.again:
            self.exhausted.add((self.belief, chosen or self.mapping))
        if chosen is not None:
            self._plan(chosen, event.step)
        self.delay_ms = 0.0  # what follows does not wait for these probes again
        return event._replace(
            reason=reason, estimated=estimated, expected_drop=expected, cut=decision.cut
        )

    def _noticed(self, before: PlatformState, state: PlatformState, step: int) -> str:
        """What a system that watches has noticed after a step."""
        controller, waited = self.controller, step - self.decided
        if controller.rule.alarms(self.evidence):
            self.alarms += 1
            self.evidence = no_evidence()
            return "accuracy" if waited >= controller.dwell else ""
        if any(now and not then for now, then in zip(state.present, before.present, strict=True)):
            return "device back"
        if waited >= controller.dwell and controller.above_limits(state, self.belief, self.mapping):
            return ABOVE_LIMITS
        due = controller.review and waited >= controller.review
        return "review" if due and self.mapping != self.first else ""

    def _inform(self, event: StreamEvent, reason: str) -> tuple[RateEstimate | None, ...]:
        """Learn what the environment is like; gives the estimates, where devices are probed.

        Latency, energy and which devices are there are profiled; rates are the truth for an oracle.
        """
        controller, state = self.controller, event.state
        if self.policy == "oracle" or controller.oracle:
            self.belief = state
            return ()
        self.belief = state.with_rates(self.belief.weight_rate, self.belief.activation_rate)
        if reason in ("device lost", _AGAIN):  # known without asking
            return ()
        believed = self.belief
        result = controller.probe(believed, state, self.seed, event.step)
        self.belief, self.delay_ms = result.belief, result.price.ms
        self.paid += result.price
        explained = self.expected > controller.theta  # that too much fails is no news
        if reason == "accuracy" and self.belief == believed and not explained:
            # Probes say what was thought before, and yet too much fails: the worst that they allow.
            self.belief = controller.worst_allowed(believed, self.mapping, result.estimates)
        return result.estimates

    def _decided(self) -> Decision:
        """What this policy decides now, known from another stream or worked out."""
        kind = "search" if self.policy in _SEARCH else self.policy
        question = Question(kind, self.searches, self.belief, self.mapping, self.front)
        if question not in self.known:
            self.known[question] = self._decide()
        decision = self.known[question]
        if self.policy in _SEARCH:
            self.searches += 1
            self.front = decision.front
        return decision

    def _decide(self) -> Decision:
        """Search from the front that is known, or look at what there is without a search."""
        search, state, first = self.controller.search, self.belief, (self.first,)
        if self.policy == "stored":
            return best_stored(search, state, self.mapping, self.front, first)
        if self.policy == "safest":
            return choose(search, state, self.mapping, (safest_mapping(search, state),), first)
        if self.policy in _SOLVE:
            return self._solved(state)
        search = replace(search, key=jax.random.fold_in(search.key, self.searches))
        return repartition(search, state, self.mapping, self.front, first)

    def _solved(self, state: PlatformState) -> Decision:
        """One solve of the exact program, then beside the mapping in use under a few draws."""
        controller, search = self.controller, self.controller.search
        learnt = controller.exposure if self.policy == "surrogate" else carried(search.tables)
        found = least_exposed(search, state, learnt)
        others = (safest_mapping(search, state),) if found is None else (found,)
        return choose(search, state, self.mapping, others, (self.first,))

    def _plan(self, chosen: MappingKey, step: int) -> None:
        """Go over to a mapping once probes, search and moved weights have taken their time."""
        controller = self.controller
        moving = controller.moving(
            [layer for layer, device in enumerate(chosen) if device != self.mapping[layer]]
        )
        waits = self.policy in (*_SEARCH, *_SOLVE)
        searched = controller.search.budget_ms if waits else 0.0
        took = self.delay_ms + moving.ms + searched
        delay = 1 if self.policy == "oracle" else 1 + ceil(took / controller.step_ms)
        self.pending = step + delay, chosen
        self.paid += moving
