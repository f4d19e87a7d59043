"""What job `online` writes into result.json."""

from collections.abc import Mapping as Table
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from afpjax.experiment import Experiment
from afpjax.jobs.shared.records import Record, as_list, estimate, price
from afpjax.online.controller import OnlineController
from afpjax.online.environment import MappingKey, PlatformState, Trace
from afpjax.online.policies import StreamEvent, StreamResult
from afpjax.online.runtime_costs import MappingKeys
from afpjax.search.partition import measure

#: By trace and policy, the streams of all seeds.
Runs = Table[tuple[str, str], Sequence[StreamResult]]
_MEASURES = ("accuracy", "above", "latency_ms", "energy_mj", "switches")


def settings(experiment: Experiment, controller: OnlineController) -> Record:
    """The stream, the alarm, and the search while the system runs."""
    given, rule = experiment.config.online, controller.rule
    return {
        "stream": {
            "batch": given.batch,
            "fps": given.fps,
            "seeds": given.seeds,
            "canaries": controller.canaries,
            "pool": len(controller.stream.pool),
            "labels": given.labels,
            "steps_per_hour": 3600e3 / controller.step_ms,
        },
        "watch": {
            "limit": rule.limit,
            "alarm": rule.alarm,
            "false_alarms_per_hour": given.false_alarms,
            "bound": "mean time between false alarms at least `alarm` batches",
        },
        "searches": {
            "budget_ms": given.budget_ms,
            "passes_per_s": given.passes_per_s,
            "generations": given.generations,
            "population": given.population,
        },
    }


def searching(controller: OnlineController) -> Record:
    """How long searches took on this machine, which decides nothing: see `online.passes_per_s`."""
    took = controller.search.took_ms
    if not took:
        return {}
    return {"throughput": {"searches": len(took), "search_ms": {"longest": max(took)}}}


def first(experiment: Experiment, mapping: MappingKey) -> Record:
    """The mapping that every stream begins with, measured on held-out images."""
    faults, chosen = experiment.scenario("both"), np.array(mapping, np.int32)
    trials = experiment.config.search.final_trials
    (correct,) = measure(experiment.held_out, faults, chosen[None], trials)
    drop = experiment.held_out.clean(faults).mean() - correct.mean()
    return {
        "mapping": list(mapping),
        **price(experiment.tables, chosen),
        **estimate(correct),
        "accuracy_drop": drop,
    }


def front(experiment: Experiment, mappings: MappingKeys) -> list[Record]:
    """The offline front that searches begin from."""
    return [
        {"mapping": list(mapping), **price(experiment.tables, np.array(mapping, np.int32))}
        for mapping in mappings
    ]


def trace(of_seeds: Sequence[Trace]) -> Record:
    """One environment; those drawn from the seed have one for each."""
    first = of_seeds[0]
    return {"trace": first.name, "description": first.description, "steps": first.steps}


def policies(runs: Runs, controller: OnlineController) -> list[Record]:
    """Every trace and policy, means over its streams with 95 % intervals; then all traces."""
    values = _values(runs, controller)
    rows = [_row(name, policy, values[name, policy], runs[name, policy]) for name, policy in runs]
    every_policy = list(dict.fromkeys(policy for _, policy in runs))
    for policy in every_policy if len(runs) > len(every_policy) else ():
        names = [name for name, of in runs if of == policy]
        every = {
            key: np.concatenate([values[name, policy][key] for name in names]) for key in _MEASURES
        }
        rows.append(_row("all", policy, every, [s for n in names for s in runs[n, policy]]))
    return rows


def gains(runs: Runs, controller: OnlineController) -> list[Record]:
    """What the online policy has more than each other one, paired stream by stream."""
    values, rows = _values(runs, controller), []
    names = list(dict.fromkeys(name for name, _ in runs))
    for name in [*names, *(["all"] if len(names) > 1 else [])]:
        of = names if name == "all" else [name]
        for other in dict.fromkeys(policy for _, policy in runs if policy != "online"):
            row: Record = {"trace": name, "over": other}
            for key in _MEASURES:
                mine, theirs = (
                    np.concatenate([values[trace, policy][key] for trace in of])
                    for policy in ("online", other)
                )
                row |= _mean(key, mine - theirs)
            rows.append(row)
    return rows


def events(runs: Runs, devices: Sequence[str], controller: OnlineController) -> list[Record]:
    """Every step of the first stream under the online policy."""
    stream = next(streams[0] for (_, policy), streams in runs.items() if policy == "online")
    whole = controller.theta / controller.rule.limit  # what canaries are right of without faults
    return [_event(event, devices, whole) for event in stream.events]


def timelines(runs: Runs) -> list[Record]:
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
                    {
                        "trace": name,
                        "policy": policy,
                        "step": event.step,
                        "accuracy": event.accuracy,
                        "accuracy_drop": event.drop,
                        "latency_ms": event.latency_ms,
                        "energy_mj": event.energy_mj,
                        "worst_rate": worst,
                        "switched": event.repartitioned,
                    }
                )
            before = now
    return rows


def _event(event: StreamEvent, devices: Sequence[str], whole: float) -> Record:
    row: Record = {
        "step": event.step,
        **_environment(event.state),
        "mapping": as_list(event.mapping),
        "accuracy": event.accuracy,
        "accuracy_drop": event.drop,
        "latency_ms": event.latency_ms,
        "energy_mj": event.energy_mj,
        "repartitioned": event.repartitioned,
    }
    if event.observed is not None and event.observed_interval is not None:
        low, high = event.observed_interval
        row |= {
            "accuracy_observed": whole * (1 - event.observed),
            "accuracy_observed_interval": [whole * (1 - high), whole * (1 - low)],
            "evidence": event.evidence,
        }
    if event.reason:
        row |= {"reason": event.reason, "cut": event.cut}
    if event.expected_drop is not None:
        row["expected_drop"] = event.expected_drop
    if event.estimated:
        row["estimated"] = [
            {"device": name, "rate": estimate.rate, "rate_interval": list(estimate.interval)}
            for name, estimate in zip(devices, event.estimated, strict=True)
            if estimate is not None
        ]
    return row


def _environment(state: PlatformState) -> Record:
    return {
        "rates": {"weight": list(state.weight_rate), "activation": list(state.activation_rate)},
        "latency": list(state.latency),
        "energy": list(state.energy),
        "present": list(state.present),
    }


def _values(
    runs: Runs, controller: OnlineController
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Every measure of every stream."""
    values = {}
    for key, streams in runs.items():
        measures = [
            {
                **stream.means(controller.batch / controller.per_inference),
                "above": stream.time_above(controller.theta),
            }
            for stream in streams
        ]
        values[key] = {name: np.array([m[name] for m in measures], float) for name in _MEASURES}
    return values


def _row(
    name: str, policy: str, values: dict[str, np.ndarray], streams: Sequence[StreamResult]
) -> Record:
    row: Record = {"trace": name, "policy": policy, "seeds": len(streams)}
    for key in _MEASURES:
        row |= _mean(key, values[key])
    for key in ("accuracy_interval", "above_interval"):  # shares
        if key in row:
            row[key] = [min(max(bound, 0.0), 1.0) for bound in row[key]]
    return row | {
        "alarms": float(np.mean([each.alarms for each in streams])),
        "searches": float(np.mean([each.searches for each in streams])),
    }


def _mean(name: str, values: np.ndarray) -> Record:
    """A mean over streams, with Student's 95 % interval where there are several."""
    mean = float(values.mean())
    if len(values) < 2:
        return {name: mean}
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    low, high = mean - half, mean + half
    return {name: mean, f"{name}_interval": [low, high]}
