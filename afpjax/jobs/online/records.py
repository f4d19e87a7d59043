"""What job `online` writes into result.json."""

from collections.abc import Mapping as Table
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from afpjax.experiment.prepare import Experiment
from afpjax.jobs.shared.records import Record, as_list, estimate, price
from afpjax.online.costs_now import Front
from afpjax.online.environment import State, Trace
from afpjax.online.operation import Event, Operation, Streamed, means, time_above
from afpjax.online.stream import Mapping
from afpjax.search.partition import measure

#: By trace and policy, the streams of all seeds.
Found = Table[tuple[str, str], Sequence[Streamed]]
_MEASURES = ("accuracy", "above", "latency_ms", "energy_mj", "switches")


def settings(experiment: Experiment, operation: Operation) -> Record:
    """The stream, the alarm, and the search while the system runs."""
    given, rule = experiment.config.online, operation.rule
    return {
        "stream": {
            "batch": given.batch,
            "fps": given.fps,
            "seeds": given.seeds,
            "canaries": operation.canaries,
            "pool": len(operation.stream.pool),
            "labels": given.labels,
            "steps_per_hour": 3600e3 / operation.step_ms,
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


def searching(operation: Operation) -> Record:
    """How long searches took on this machine, which decides nothing: see `online.passes_per_s`."""
    took = operation.system.took_ms
    if not took:
        return {}
    return {"throughput": {"searches": len(took), "search_ms": {"longest": max(took)}}}


def first(experiment: Experiment, mapping: Mapping) -> Record:
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


def front(experiment: Experiment, mappings: Front) -> list[Record]:
    """The offline front that searches begin from."""
    return [
        {"mapping": list(each), **price(experiment.tables, np.array(each, np.int32))}
        for each in mappings
    ]


def trace(of_seeds: Sequence[Trace]) -> Record:
    """One environment; those drawn from the seed have one for each."""
    one = of_seeds[0]
    return {"trace": one.name, "description": one.description, "steps": one.steps}


def policies(found: Found, operation: Operation) -> list[Record]:
    """Every trace and policy, means over its streams with 95 % intervals; then all traces."""
    values = _values(found, operation)
    rows = [_row(name, policy, values[name, policy], found[name, policy]) for name, policy in found]
    every_policy = list(dict.fromkeys(policy for _, policy in found))
    for policy in every_policy if len(found) > len(every_policy) else ():
        names = [name for name, of in found if of == policy]
        every = {
            key: np.concatenate([values[name, policy][key] for name in names]) for key in _MEASURES
        }
        rows.append(_row("all", policy, every, [s for n in names for s in found[n, policy]]))
    return rows


def gains(found: Found, operation: Operation) -> list[Record]:
    """What the online policy has more than each other one, paired stream by stream."""
    values, rows = _values(found, operation), []
    names = list(dict.fromkeys(name for name, _ in found))
    for name in [*names, *(["all"] if len(names) > 1 else [])]:
        of = names if name == "all" else [name]
        for other in dict.fromkeys(policy for _, policy in found if policy != "online"):
            row: Record = {"trace": name, "over": other}
            for key in _MEASURES:
                mine, theirs = (
                    np.concatenate([values[each, policy][key] for each in of])
                    for policy in ("online", other)
                )
                row |= _mean(key, mine - theirs)
            rows.append(row)
    return rows


def events(found: Found, devices: Sequence[str], operation: Operation) -> list[Record]:
    """Every step of the first stream under the online policy."""
    stream = next(streams[0] for (_, policy), streams in found.items() if policy == "online")
    whole = operation.theta / operation.rule.limit  # what canaries are right of without faults
    return [_event(event, devices, whole) for event in stream.events]


def timelines(found: Found) -> list[Record]:
    """The first seed of every trace and policy: a row where anything changes, and the last."""
    rows = []
    for (name, policy), streams in found.items():
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


def _event(event: Event, devices: Sequence[str], whole: float) -> Record:
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
            {"device": name, "rate": made.rate, "rate_interval": list(made.interval)}
            for name, made in zip(devices, event.estimated, strict=True)
            if made is not None
        ]
    return row


def _environment(state: State) -> Record:
    return {
        "rates": {"weight": list(state.weight_rate), "activation": list(state.activation_rate)},
        "latency": list(state.latency),
        "energy": list(state.energy),
        "present": list(state.present),
    }


def _values(found: Found, operation: Operation) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Every measure of every stream."""
    values = {}
    for key, streams in found.items():
        each = [
            {
                **means(s, operation.batch / operation.per_inference),
                "above": time_above(s.events, operation.theta),
            }
            for s in streams
        ]
        values[key] = {name: np.array([one[name] for one in each], float) for name in _MEASURES}
    return values


def _row(
    name: str, policy: str, values: dict[str, np.ndarray], streams: Sequence[Streamed]
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
