"""Job `online`: AFarePart's online phase over environments that change (Section V-B, Algorithm 1).

Every trace is run with several seeds, and every stream under every policy (`online.policies`), so
that what the search while the system runs is worth can be told from what it costs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.evaluate.sensitivity import drops_alone
from afpjax.experiment import EvaluatorParts, Experiment, prepare
from afpjax.experiment.experiment import FEW_IMAGES
from afpjax.jobs.online import records as rows
from afpjax.jobs.online.alarms import false_alarms
from afpjax.jobs.online.result import CleanStream, OnlineResult, TraceResult
from afpjax.jobs.online.view import view
from afpjax.jobs.shared import few_faults, plans, records, searched
from afpjax.jobs.shared.earlier import (
    PartitionRun,
    mappings,
    result_of,
    same_devices,
    same_network,
    whole,
)
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import NoteResult
from afpjax.online.change_detection import alarm_rule
from afpjax.online.controller import OnlineController, Price
from afpjax.online.environment import (
    RANDOM,
    MappingKey,
    Trace,
    nominal_state,
    random_trace,
    read_trace,
)
from afpjax.online.exposure import Exposure, ExposureLearner, carried, measured, struck
from afpjax.online.policies import Question, StreamResult, run_policy
from afpjax.online.rate_estimation import FailureCurve
from afpjax.online.repartition import Decision, repartition
from afpjax.online.runtime_costs import MappingKeys, OnlineSearch, as_keys
from afpjax.online.stream import Stream, rate_proportions
from afpjax.search.explore import Budget
from afpjax.search.ridge import DRAWS

_DRAWS = 48  # of weight faults that a stream meets, in an order drawn from its seed
_PROBES = 8  # of every device after an alarm
_TRIALS = 1  # draw behind each accuracy that a search sees; warm starts make up for it
_CHOICE = 6  # draws by which a mapping is chosen
_SENSITIVE = 0.3  # rate at which layers are struck one by one, to find the most sensitive


class OfflineChoice(NamedTuple):
    """The mapping and the front that a system begins with, and the fault-unaware choice."""

    first: MappingKey
    front: MappingKeys
    unaware: MappingKey


def plan(config: Config, work: Work) -> object:
    """The offline search, then every stream: what canaries and searches may take at each change."""
    experiment, given = prepare(config, work), config.online
    traces, _ = _traces(experiment), experiment.tables
    images, held = plans.counts(experiment)
    changes = sum(len(trace.changes) + 1 for of_seeds in traces for trace in of_seeds)
    streams = sum(map(len, traces)) * len(given.policies)
    watched = changes * len(given.policies) * (_DRAWS * images + config.search.final_trials * held)
    mappings = given.population * (given.generations + 1) * _TRIALS + given.population * _CHOICE
    first = [] if given.front else plans.search(experiment, 1)
    learnt = measured(len(experiment.graph.layers)) * DRAWS * min(images, FEW_IMAGES)
    steps = [
        *first,
        plans.Step("learning what layers lose", learnt if "surrogate" in given.policies else 0),
        plans.Step("watching streams", watched, streams * images),
        plans.Step("searching while they run", 2 * changes * mappings * images, 0),
    ]
    note = f"{streams:,} streams; a mapping that was met before takes no pass."
    return plans.shown(experiment, steps, note)


def run(config: Config, work: Work) -> Outcome:
    """Every trace, seed and policy."""
    experiment = prepare(config, work)
    traces, _ = _traces(experiment), experiment.tables  # refused now, if at all
    offline = _offline_choice(experiment)
    controller = _controller(experiment, offline)
    roles = _roles(experiment, offline.first)
    _warm_up(controller, offline)
    streams = _all_streams(experiment, controller, traces, offline, roles)
    few = few_faults.of_mapping(
        experiment,
        np.array(offline.first),
        "The first mapping, at the rates that the system is built for,",
    )
    devices = experiment.platform.names
    result = OnlineResult(
        model=records.model(experiment),
        devices=list(devices),
        data=records.data(experiment),
        faults=records.faults(experiment),
        notes=[*records.notes(experiment), *map(NoteResult.of, few)],
        clean=CleanStream(controller.stream.clean_accuracy, experiment.held_out.count),
        theta=config.online.theta,
        stream=rows.stream_settings(experiment, controller),
        watch=rows.alarm_settings(experiment, controller),
        searches=rows.search_settings(experiment),
        false_alarms=false_alarms(controller, offline.first, _seed(experiment, -1)),
        first=rows.first(experiment, offline.first),
        front=rows.front(experiment, offline.front),
        roles={role: devices[device] for role, device in roles.items()},
        traces=[TraceResult(one.name, one.description, one.steps) for one, *_ in traces],
        policies=rows.policies(streams, controller),
        gains=rows.gains(streams, controller),
        timelines=rows.timelines(streams),
        events=rows.events(streams, devices, controller),
        throughput=rows.search_times(controller),
    )
    return Outcome(result, view=view(result))


def _traces(experiment: Experiment) -> list[tuple[Trace, ...]]:
    """By name in the order of the settings, the trace of each seed. Bad ones are refused now."""
    given, names = experiment.config.online, experiment.platform.names
    traces = []
    for name in given.trace:
        if name == RANDOM:
            seeds = [_seed(experiment, number) for number in range(given.seeds)]
            of_seeds = tuple(random_trace(seed, len(names)) for seed in seeds)
        else:
            of_seeds = (read_trace(name),) * given.seeds
        for trace in of_seeds:
            trace.check_devices(names)
        traces.append(of_seeds)
    return traces


def _offline_choice(experiment: Experiment) -> OfflineChoice:
    """The offline phase: an earlier run's, or one that is done here."""
    given = experiment.config.online
    earlier = _earlier(experiment, Path(given.front)) if given.front else None
    with experiment.explained():
        known, cheap = searched.baselines(experiment)
        unaware = as_keys(known["fault-unaware"][None])[0]
        if earlier:
            return OfflineChoice(*earlier, unaware)
        limit = searched.allowance(experiment, known["fault-unaware"])
        front = searched.search(experiment, "both", cheap, limit)
    every = list(range(len(front.mappings)))
    best = searched.select(experiment, "both", front, limit, every)
    mappings = as_keys(front.mappings)
    return OfflineChoice(mappings[best], mappings, unaware)


def _earlier(experiment: Experiment, folder: Path) -> tuple[MappingKey, MappingKeys]:
    """The selected mapping and the front of a run of job partition."""
    name = "online.front"
    result = result_of(name, folder, partition=PartitionRun)
    same_network(name, folder, result.model.layers, experiment)
    same_devices(name, folder, result.devices, experiment)
    with whole(name, folder):
        front = mappings([point.mapping for point in result.front], experiment)
        chosen = mappings([result.selected.mapping], experiment)
        return as_keys(chosen.astype(np.int32))[0], as_keys(front.astype(np.int32))


def _by_reference(experiment: Experiment) -> EvaluatorParts:
    """The search's images, with what the fault-free network says of them for labels."""
    labels = experiment.search_evaluator.reference.argmax(axis=1).astype(np.int32)
    return EvaluatorParts("reference", experiment.searched._replace(labels=labels))


def _controller(experiment: Experiment, offline: OfflineChoice) -> OnlineController:
    given, final = experiment.config.online, experiment.config.search.final_trials
    faults = experiment.scenario("both")
    evaluator = experiment.search_evaluator if given.labels else experiment.evaluator(_by_reference)
    stream = Stream(evaluator, experiment.held_out, faults, _DRAWS, final)
    step_ms = 1e3 * given.batch / given.fps
    # A drop of theta is a share of theta / clean of the canaries, all of which are right without
    # faults; of images that are compared with a reference, theta is the share itself.
    limit = given.theta / float(evaluator.clean(faults).mean())
    search = OnlineSearch(
        experiment.tables,
        faults,
        experiment.search_evaluator,
        Budget(given.population, given.generations),
        given.budget_ms,
        given.allow_latency,
        given.allow_energy,
        offline.unaware,
        _TRIALS,
        _CHOICE,
        experiment.key("online"),
        given.passes_per_s,
    )
    return OnlineController(
        search=search,
        stream=stream,
        curves=_curves(experiment, stream),
        rule=alarm_rule(limit, 3600e3 / step_ms, given.false_alarms),
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
        exposure=_exposure(experiment),
    )


def _curves(experiment: Experiment, stream: Stream) -> tuple[FailureCurve, ...]:
    """How canaries fail on each device at each rate; devices of equal proportions share one."""
    faults, devices = stream.faults, len(experiment.platform.names)
    built = nominal_state(faults.weight_rate, faults.activation_rate, devices)
    own = list(zip(built.weight_rate, built.activation_rate, strict=True))
    ratios = [rate_proportions(*pair) for pair in own]
    known = sorted({max(pair) for pair in own})
    with experiment.work.progress.task("Learning what rates look like", len(set(ratios))) as task:
        curves = {}
        for ratio in dict.fromkeys(ratios):
            curves[ratio] = stream.failure_curve(*ratio, known)
            task.advance()
    return tuple(curves[ratio] for ratio in ratios)


def _exposure(experiment: Experiment) -> Exposure:
    """What each layer loses, learnt on few images; bytes where no policy asks for it."""
    if "surrogate" not in experiment.config.online.policies:
        return carried(experiment.tables)
    learner = _learner(experiment)
    with experiment.work.progress.task(
        "Learning what layers lose", measured(learner.layers)
    ) as task:
        return learner.learn(task.advance)


def _learner(experiment: Experiment) -> ExposureLearner:
    return ExposureLearner(
        struck(experiment.loss_objective("both").evaluator, experiment.scenario("both")),
        len(experiment.graph.layers),
        1 / experiment.config.model.classes,
        int(jax.random.bits(experiment.key("exposure"))),
    )


def _moving(experiment: Experiment) -> Callable[[Sequence[int]], Price]:
    """What it takes to send the weights of some layers over the link, a transfer each."""
    link = experiment.platform.link.resending(experiment.faults.sent_times)
    bytes_of = np.asarray(experiment.tables.weight_bytes)

    def moving(layers: Sequence[int]) -> Price:
        sizes = [int(bytes_of[layer]) for layer in layers]
        return Price(sum(map(link.transfer_ms, sizes)), sum(map(link.transfer_mj, sizes)))

    return moving


def _roles(experiment: Experiment, first: MappingKey) -> dict[str, int]:
    """Devices by what they do in the first mapping."""
    macs = np.zeros(len(experiment.platform.names))
    for device, layer in zip(first, experiment.graph.layers, strict=True):
        macs[device] += layer.macs
    faults = nominal_state((_SENSITIVE,), (_SENSITIVE,)).faults(experiment.scenario("both"))
    drops = drops_alone(experiment.search_evaluator, faults, 1, range(4))[:, 0]
    return {"busiest": int(macs.argmax()), "sensitive": first[int(drops.argmax())]}


def _warm_up(controller: OnlineController, offline: OfflineChoice) -> None:
    """Compile what a search needs before the stream begins: its time is for searching."""
    once = replace(controller.search, budget_ms=float("inf"), took_ms=[])
    repartition(once, controller.nominal, offline.first, offline.front)


def _all_streams(
    experiment: Experiment,
    controller: OnlineController,
    traces: Sequence[tuple[Trace, ...]],
    offline: OfflineChoice,
    roles: dict[str, int],
) -> dict[tuple[str, str], list[StreamResult]]:
    """By trace and policy, the streams of all seeds."""
    names, streams = experiment.platform.names, dict[tuple[str, str], list[StreamResult]]()
    policies = experiment.config.online.policies
    total, known = sum(map(len, traces)) * len(policies), dict[Question, Decision]()
    with experiment.work.progress.task("Running streams", total) as task:
        for of_seeds in traces:
            for number, trace in enumerate(of_seeds):
                seed = _seed(experiment, number)
                states = trace.states(names, controller.nominal, roles, seed)
                for policy in policies:
                    stream = run_policy(
                        controller, policy, states, offline.first, offline.front, seed, known
                    )
                    streams.setdefault((trace.name, policy), []).append(stream)
                    task.advance()
    return streams


def _seed(experiment: Experiment, number: int) -> int:
    """Of a trace's stream of this number; -1 is for streams beside them."""
    return (experiment.config.run.seed << 16) + (number if number >= 0 else 2**16 - 1)
