"""What job `online` tells of its settings and its streams, as its result has it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from afpjax.experiment import Experiment
from afpjax.jobs.online.result import (
    ALL,
    AlarmSettings,
    EstimatedRate,
    Event,
    Means,
    Moment,
    Policy,
    PolicyGain,
    PricedMapping,
    Rates,
    SearchSettings,
    SearchTimes,
    StreamSettings,
)
from afpjax.jobs.partition.result import Point
from afpjax.jobs.shared.records import priced
from afpjax.jobs.shared.result import Estimate
from afpjax.online.controller import OnlineController
from afpjax.online.environment import MappingKey
from afpjax.online.policies import StreamEvent, StreamResult
from afpjax.online.runtime_costs import MappingKeys
from afpjax.search.partition import measure
from afpjax.statistics.intervals import estimated

#: By trace and policy, the streams of all seeds.
Runs = Mapping[tuple[str, str], Sequence[StreamResult]]
#: Of each mean of `Means`, its value in every stream.
Measures = Mapping[str, np.ndarray]


def stream_settings(experiment: Experiment, controller: OnlineController) -> StreamSettings:
    """The stream of images."""
    given = experiment.config.online
    return StreamSettings(
        batch=given.batch,
        fps=given.fps,
        seeds=given.seeds,
        canaries=controller.canaries,
        pool=len(controller.stream.pool),
        labels=given.labels,
        steps_per_hour=3600e3 / controller.step_ms,
    )


def alarm_settings(experiment: Experiment, controller: OnlineController) -> AlarmSettings:
    """When the system acts."""
    rule = controller.rule
    return AlarmSettings(rule.limit, rule.alarm, experiment.config.online.false_alarms)


def search_settings(experiment: Experiment) -> SearchSettings:
    """The search while the system runs."""
    given = experiment.config.online
    return SearchSettings(given.budget_ms, given.passes_per_s, given.generations, given.population)


def search_times(controller: OnlineController) -> SearchTimes | None:
    """How long searches took on this machine."""
    took = controller.search.took_ms
    return SearchTimes(len(took), {"longest": max(took)}) if took else None


def first(experiment: Experiment, mapping: MappingKey) -> Point:
    """The mapping that every stream begins with, measured on held-out images."""
    faults, chosen = experiment.scenario("both"), np.array(mapping, np.int32)
    trials = experiment.config.search.final_trials
    (correct,) = measure(experiment.held_out, faults, chosen[None], trials)
    drop = float(experiment.held_out.clean(faults).mean() - correct.mean())
    return Point(list(mapping), *priced(experiment.tables, chosen), estimated(correct), drop)


def front(experiment: Experiment, mappings: MappingKeys) -> list[PricedMapping]:
    """The offline front that searches begin from."""
    return [
        PricedMapping(list(mapping), *priced(experiment.tables, np.array(mapping, np.int32)))
        for mapping in mappings
    ]


def policies(runs: Runs, controller: OnlineController) -> list[Policy]:
    """Every trace and policy; then all traces together, where there are several."""
    measures = _measures(runs, controller)
    rows = [_policy(*key, measures[key], streams) for key, streams in runs.items()]
    traces, names = (list(dict.fromkeys(each)) for each in zip(*runs, strict=True))
    for policy in names if len(traces) > 1 else ():
        every = _joined(measures, traces, policy)
        rows.append(_policy(ALL, policy, every, [s for t in traces for s in runs[t, policy]]))
    return rows


def gains(runs: Runs, controller: OnlineController) -> list[PolicyGain]:
    """What one policy has more than another, in each trace and in all.

    The online policy than each other one, and each of the others than the safest.
    """
    measures, rows = _measures(runs, controller), []
    traces, names = (list(dict.fromkeys(each)) for each in zip(*runs, strict=True))
    pairs = [("online", over) for over in names if over != "online"]
    if "safest" in names:
        pairs += [(name, "safest") for name in names if name not in ("online", "safest")]
    for name in [*traces, *([ALL] if len(traces) > 1 else [])]:
        among = traces if name == ALL else [name]
        every = {policy: _joined(measures, among, policy) for policy in names}
        for policy, over in pairs:
            more = {key: mine - every[over][key] for key, mine in every[policy].items()}
            rows.append(PolicyGain(name, policy, over, _means(more)))
    return rows


def events(runs: Runs, devices: Sequence[str], controller: OnlineController) -> list[Event]:
    """Every step of the first stream under the online policy."""
    stream = next(streams[0] for (_, policy), streams in runs.items() if policy == "online")
    whole = controller.theta / controller.rule.limit  # what canaries are right of without faults
    return [_event(event, devices, whole) for event in stream.events]


def timelines(runs: Runs) -> list[Moment]:
    """The first seed of every trace and policy: a row where anything changes, and the last."""
    rows = []
    for (name, policy), streams in runs.items():
        before: Any = None
        every = streams[0].events
        for event in every:
            worst = max(*event.state.weight_rate, *event.state.activation_rate)
            now = (event.accuracy, event.latency_ms, event.energy_mj, worst, event.mapping)
            if now != before or event is every[-1]:
                rows.append(
                    Moment(
                        trace=name,
                        policy=policy,
                        step=event.step,
                        accuracy=event.accuracy,
                        accuracy_drop=event.drop,
                        latency_ms=event.latency_ms,
                        energy_mj=event.energy_mj,
                        worst_rate=worst,
                        switched=event.repartitioned,
                    )
                )
            before = now
    return rows


def _event(event: StreamEvent, devices: Sequence[str], whole: float) -> Event:
    state, observed = event.state, None
    if event.observed is not None and event.observed_interval is not None:
        low, high = event.observed_interval
        observed = Estimate(*(whole * (1 - share) for share in (event.observed, high, low)))
    probed = [
        EstimatedRate(name, Estimate(found.rate, *found.interval))
        for name, found in zip(devices, event.estimated or [None] * len(devices), strict=True)
        if found is not None
    ]
    return Event(
        step=event.step,
        rates=Rates(state.weight_rate, state.activation_rate),
        latency=state.latency,
        energy=state.energy,
        present=state.present,
        mapping=event.mapping,
        accuracy=event.accuracy,
        accuracy_drop=event.drop,
        latency_ms=event.latency_ms,
        energy_mj=event.energy_mj,
        repartitioned=event.repartitioned,
        accuracy_observed=observed,
        evidence=event.evidence,
        reason=event.reason or None,
        cut=event.cut if event.reason else None,
        expected_drop=event.expected_drop,
        estimated=probed if event.estimated else None,
    )


def _measures(runs: Runs, controller: OnlineController) -> dict[tuple[str, str], Measures]:
    """Every measure of every stream."""
    measures = {}
    for key, streams in runs.items():
        each = [
            {
                **stream.means(controller.batch / controller.per_inference),
                "above": stream.time_above(controller.theta),
            }
            for stream in streams
        ]
        measures[key] = {name: np.array([one[name] for one in each], float) for name in each[0]}
    return measures


def _joined(
    measures: Mapping[tuple[str, str], Measures], traces: Sequence[str], policy: str
) -> Measures:
    """A policy's measures in the streams of several traces."""
    return {
        name: np.concatenate([measures[trace, policy][name] for trace in traces])
        for name in measures[traces[0], policy]
    }


def _policy(trace: str, policy: str, measures: Measures, streams: Sequence[StreamResult]) -> Policy:
    means = _means(measures)
    return Policy(
        trace=trace,
        policy=policy,
        seeds=len(streams),
        means=replace(
            means,
            accuracy_interval=_share(means.accuracy_interval),
            above_interval=_share(means.above_interval),
        ),
        alarms=float(np.mean([stream.alarms for stream in streams])),
        searches=float(np.mean([stream.searches for stream in streams])),
    )


def _means(measures: Measures) -> Means:
    """Means over streams, with Student's 95 % intervals where there are several."""
    fields: dict[str, Any] = {}
    for name, values in measures.items():
        mean, count = float(values.mean()), len(values)
        fields[name], fields[f"{name}_interval"] = mean, None
        if count > 1:
            half = float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5)
            fields[f"{name}_interval"] = (mean - half, mean + half)
    return Means(**fields)


def _share(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Within 0 and 1."""
    return bounds and (min(max(bounds[0], 0.0), 1.0), min(max(bounds[1], 0.0), 1.0))
