"""Job `online`: AFarePart's online phase over environments that change (Section V-B, Algorithm 1).

Every trace is run with several seeds, and every stream under every policy (`search.policies`), so
that what the search while the system runs is worth can be told from what it costs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.evaluate.sensitivity import drops_alone
from afpjax.experiment.prepare import Experiment, prepare
from afpjax.inputs import notes
from afpjax.jobs.online import records as rows
from afpjax.jobs.online.alarms import false_alarms
from afpjax.jobs.online.summary import summary
from afpjax.jobs.shared import few_faults, plans, records, searched
from afpjax.jobs.shared.earlier import mappings, result_of, same_devices, same_network, whole
from afpjax.jobs.shared.outcome import Outcome
from afpjax.online import environment, watch
from afpjax.online.costs_now import Front, System, as_front
from afpjax.online.environment import State, Trace
from afpjax.online.online import repartition
from afpjax.online.operation import Operation, Price, Streamed
from afpjax.online.policies import streamed
from afpjax.online.probes import built_as
from afpjax.online.stream import Mapping, Stream, at, shares
from afpjax.online.trace_files import read_trace
from afpjax.search.explore import Budget

_DRAWS = 48  # of weight faults that a stream meets, in an order drawn from its seed
_PROBES = 8  # of every device after an alarm
_TRIALS = 1  # draw behind each accuracy that a search sees; warm starts make up for it
_CHOICE = 6  # draws by which a mapping is chosen
_SENSITIVE = 0.3  # rate at which layers are struck one by one, to find the most sensitive


class Begun(NamedTuple):
    """The mapping and the front that a system begins with, and the fault-unaware choice."""

    first: Mapping
    front: Front
    unaware: Mapping


def plan(config: Config, work: Work) -> object:
    """The offline search, then every stream: what canaries and searches may take at each change."""
    experiment, given = prepare(config, work), config.online
    traces, _ = _traces(experiment), experiment.tables
    images, held = plans.counts(experiment)
    changes = sum(len(trace.changes) + 1 for each in traces for trace in each)
    streams = sum(map(len, traces)) * len(given.policies)
    watched = changes * len(given.policies) * (_DRAWS * images + config.search.final_trials * held)
    mappings = given.population * (given.generations + 1) * _TRIALS + given.population * _CHOICE
    first = [] if given.front else plans.search(experiment, 1)
    steps = [
        *first,
        plans.Step("watching streams", watched, streams * images),
        plans.Step("searching while they run", 2 * changes * mappings * images, 0),
    ]
    note = f"{streams:,} streams; a mapping that was met before takes no pass."
    return plans.shown(experiment, steps, note)


def run(config: Config, work: Work) -> Outcome:
    """Every trace, seed and policy; `result.json` as the contract has it, and more."""
    experiment = prepare(config, work)
    traces, _ = _traces(experiment), experiment.tables  # refused now, if at all
    begun = _begun(experiment)
    operation = _operation(experiment, begun)
    built = built_as(operation.system.faults, len(experiment.platform.names))
    roles = _roles(experiment, begun.first)
    _warm_up(operation, built, begun)
    found = _all_streams(experiment, operation, traces, begun, built, roles)
    result = {
        "model": records.model(experiment),
        "devices": list(experiment.platform.names),
        **records.conditions(experiment),
        "notes": [
            *records.notes(experiment),
            *notes.records(
                few_faults.of_mapping(
                    experiment,
                    np.array(begun.first),
                    "The first mapping, at the rates that the system is built for,",
                )
            ),
        ],
        "clean": {"accuracy": operation.stream.clean, "images": experiment.held_out.count},
        "theta": config.online.theta,
        **rows.settings(experiment, operation),
        "false_alarms": false_alarms(operation, built, begun.first, _seed(experiment, -1)),
        "first": rows.first(experiment, begun.first),
        "front": rows.front(experiment, begun.front),
        "roles": {role: experiment.platform.names[device] for role, device in roles.items()},
        "traces": [rows.trace(each) for each in traces],
        "policies": rows.policies(found, operation),
        "gains": rows.gains(found, operation),
        "timelines": rows.timelines(found),
        "events": rows.events(found, experiment.platform.names, operation),
        **rows.searching(operation),
    }
    return Outcome(result, summary(result))


def _traces(experiment: Experiment) -> list[tuple[Trace, ...]]:
    """By name in the order of the settings, the trace of each seed. Bad ones are refused now."""
    given, names = experiment.config.online, experiment.platform.names
    found = []
    for name in given.trace:
        if name == environment.RANDOM:
            seeds = [_seed(experiment, number) for number in range(given.seeds)]
            each = tuple(environment.random_trace(seed, len(names)) for seed in seeds)
        else:
            each = (read_trace(name),) * given.seeds
        for trace in each:
            environment.check_devices(trace, names)
        found.append(each)
    return found


def _begun(experiment: Experiment) -> Begun:
    """The offline phase: an earlier run's, or one that is done here."""
    given = experiment.config.online
    earlier = _earlier(experiment, Path(given.front)) if given.front else None
    with experiment.explained():
        known, cheap = searched.baselines(experiment)
        unaware = as_front(known["fault-unaware"][None])[0]
        if earlier:
            return Begun(*earlier, unaware)
        limit = searched.allowance(experiment, known["fault-unaware"])
        front = searched.search(experiment, "both", cheap, limit)
    every = list(range(len(front.mappings)))
    best = searched.select(experiment, "both", front, limit, every)
    mappings = as_front(front.mappings)
    return Begun(mappings[best], mappings, unaware)


def _earlier(experiment: Experiment, folder: Path) -> tuple[Mapping, Front]:
    """The selected mapping and the front of a run of job partition."""
    name = "online.front"
    result = result_of(name, folder, ("partition",))
    with whole(name, folder):
        same_network(name, folder, result["model"]["layers"], experiment)
        same_devices(name, folder, result["devices"], experiment)
        front = mappings([point["mapping"] for point in result["front"]], experiment)
        chosen = mappings([result["selected"]["mapping"]], experiment)
        return as_front(chosen.astype(np.int32))[0], as_front(front.astype(np.int32))


def _operation(experiment: Experiment, begun: Begun) -> Operation:
    given, search = experiment.config.online, experiment.config.search
    faults = experiment.scenario("both")
    evaluator = experiment.search_evaluator if given.labels else experiment.by_reference
    stream = Stream(evaluator, experiment.held_out, faults, _DRAWS, search.final_trials)
    step_ms = 1e3 * given.batch / given.fps
    # A drop of theta is a share of theta / clean of the canaries, all of which are right without
    # faults; of images that are compared with a reference, theta is the share itself.
    right = float(evaluator.clean(faults).mean())
    limit = given.theta / right
    system = System(
        experiment.tables,
        faults,
        experiment.search_evaluator,
        Budget(given.population, given.generations),
        given.budget_ms,
        given.allow_latency,
        given.allow_energy,
        begun.unaware,
        _TRIALS,
        _CHOICE,
        experiment.key("online"),
        given.passes_per_s,
    )
    return Operation(
        system=system,
        stream=stream,
        curves=_curves(experiment, stream),
        rule=watch.rule(limit, 3600e3 / step_ms, given.false_alarms),
        theta=given.theta,
        gain=given.gain,
        dwell=given.dwell,
        review=given.review,
        canaries=max(1, round(given.canaries * given.batch)),
        probes=_PROBES,
        batch=given.batch,
        per_inference=experiment.config.platform.batch,
        step_ms=step_ms,
        oracle=given.oracle,
        moving=_moving(experiment),
    )


def _curves(experiment: Experiment, stream: Stream):
    """How canaries fail on each device at each rate; devices of equal proportions share one."""
    built = built_as(stream.faults, len(experiment.platform.names))
    own = list(zip(built.weight_rate, built.activation_rate, strict=True))
    ratios = [shares(*pair) for pair in own]
    known = sorted({max(pair) for pair in own})
    with experiment.work.progress.task("Learning what rates look like", len(set(ratios))) as task:
        curves = {}
        for ratio in dict.fromkeys(ratios):
            curves[ratio] = stream.curve(*ratio, known)
            task.advance()
    return tuple(curves[ratio] for ratio in ratios)


def _moving(experiment: Experiment):
    """What it takes to send the weights of some layers over the link, a transfer each."""
    link = experiment.platform.link.resending(experiment.faults.sent_times)
    bytes_of = np.asarray(experiment.tables.weight_bytes)

    def moving(layers: Sequence[int]) -> Price:
        sizes = [int(bytes_of[layer]) for layer in layers]
        return Price(sum(map(link.transfer_ms, sizes)), sum(map(link.transfer_mj, sizes)))

    return moving


def _roles(experiment: Experiment, first: Mapping) -> dict[str, int]:
    """Devices by what they do in the first mapping."""
    macs = np.zeros(len(experiment.platform.names))
    for device, layer in zip(first, experiment.graph.layers, strict=True):
        macs[device] += layer.macs
    one = at(experiment.scenario("both"), _alike(_SENSITIVE))
    drops = drops_alone(experiment.search_evaluator, one, 1, range(4))[:, 0]
    return {"busiest": int(macs.argmax()), "sensitive": first[int(drops.argmax())]}


def _alike(rate: float) -> State:
    return State((rate,), (rate,), (1.0,), (1.0,), (True,))


def _warm_up(operation: Operation, built: State, begun: Begun) -> None:
    """Compile what a search needs before the stream begins: its time is for searching."""
    once = replace(operation.system, budget_ms=float("inf"), took_ms=[])
    repartition(once, built, begun.first, begun.front)


def _all_streams(
    experiment: Experiment,
    operation: Operation,
    traces: Sequence[tuple[Trace, ...]],
    begun: Begun,
    built: State,
    roles: dict[str, int],
) -> dict[tuple[str, str], list[Streamed]]:
    """By trace and policy, the streams of all seeds."""
    names, found = experiment.platform.names, dict[tuple[str, str], list[Streamed]]()
    policies = experiment.config.online.policies
    total = sum(map(len, traces)) * len(policies)
    with experiment.work.progress.task("Running streams", total) as task:
        for each in traces:
            for number, trace in enumerate(each):
                seed = _seed(experiment, number)
                states = environment.states(trace, names, built, roles, seed)
                for policy in policies:
                    one = streamed(operation, policy, states, begun.first, begun.front, seed)
                    found.setdefault((trace.name, policy), []).append(one)
                    task.advance()
    return found


def _seed(experiment: Experiment, number: int) -> int:
    """Of a trace's stream of this number; -1 is for streams beside them."""
    return (experiment.config.run.seed << 16) + (number if number >= 0 else 2**16 - 1)
