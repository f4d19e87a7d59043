"""Job `partition`: AFarePart's offline phase beside its baselines (AFarePart, Sections V-A and VI).

For each kind of fault (weights, activations, both) the search runs by itself, as the rows of the
paper's Table II do. What is reported was measured afterwards, on held-out images and fresh draws.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.experiment import SCENARIOS, prepare
from afpjax.jobs.partition import allowances, measured, number_formats
from afpjax.jobs.partition.result import (
    Draws,
    Effort,
    LearntResult,
    PartitionResult,
    Point,
    SearchResult,
)
from afpjax.jobs.partition.view import view
from afpjax.jobs.shared import few_faults, learnt, plans, records, searched
from afpjax.jobs.shared.learnt import Learnt
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import NoteResult, real
from afpjax.jobs.shared.searched import Assignment
from afpjax.search.partition import Front
from afpjax.statistics.intervals import estimated

TOOLS = ("cnnparted", "fault-unaware", "afarepart")


def plan(config: Config, work: Work) -> object:
    """Three searches, then what is measured: the front, the tools' mappings, layers alone."""
    experiment = prepare(config, work)
    images, held = plans.counts(experiment)
    final, half = config.search.final_trials, max(2, config.search.final_trials // 2)
    learns = config.search.method == learnt.METHOD
    tools = len(TOOLS) + learns
    rows = tools * len(SCENARIOS)
    layers, devices = len(experiment.tables.latency_ms), len(experiment.platform.names)
    steps = [
        *plans.search(experiment, len(SCENARIOS)),
        *([plans.learning(experiment, len(SCENARIOS))] if learns else []),
        plans.Step("measuring the front", config.search.population * final * held, final * held),
        plans.Step("comparing the tools", rows * final * held),
        *number_formats.plan(experiment),
        plans.Step("sweeping fault rates", rows * len(measured.FACTORS) * half * held),
        plans.Step("layer by layer", 2 * layers * devices * half * images),
    ]
    return plans.shown(experiment, steps)


def run(config: Config, work: Work) -> Outcome:
    """The whole comparison: `result.json` as the contract has it, and the printed table."""
    experiment = prepare(config, work)
    learns = learnt.wanted(experiment)
    searched.refuse_effort(experiment)  # and memory that no mapping has
    with experiment.explained():
        baselines, cheap = searched.baselines(experiment)
        unaware = baselines["fault-unaware"]
        allowance = searched.allowance(experiment, unaware)
        fronts = {name: searched.search(experiment, name, cheap, allowance) for name in SCENARIOS}
    front, correct = fronts["both"], searched.measure_front(experiment, fronts["both"])
    kept = searched.still_best(front, correct)
    among = {name: list(range(len(each.mappings))) for name, each in fronts.items()}
    among["both"] = kept
    selected = {
        name: searched.select(experiment, name, each, allowance, among[name])
        for name, each in fronts.items()
    }
    own = {name: fronts[name].mappings[selected[name]] for name in SCENARIOS}
    found, curve, place = dict[str, Learnt](), None, selected["both"]
    if learns:
        found = {name: learnt.search(experiment, name, unaware, allowance) for name in SCENARIOS}
        candidates = [own["both"], found["both"].mapping]
        ahead = learnt.select(experiment, front, candidates, [], allowance)
        best = ahead.front.mappings[ahead.selected]
        curve = allowances.drawn(experiment, found["both"], unaware, best)
        others = [] if curve is None else [np.array(each.mapping) for each in curve.points]
        front, correct, kept, place = learnt.select(
            experiment, front, candidates, others, allowance
        )
    mappings = _by_tool(baselines, own, found)
    without = experiment.held_out.clean(experiment.scenario("both"))
    points = {index: _point(front, index, correct[index], without) for index in kept}
    chosen = front.mappings[place]
    few = few_faults.of_mapping(experiment, chosen, "The selected mapping")
    if learns:
        few += learnt.notes(found["both"])
    flips = measured.flips(experiment, chosen)
    result = PartitionResult(
        model=records.model(experiment),
        devices=list(experiment.platform.names),
        data=records.data(experiment),
        faults=records.faults(experiment),
        notes=[*records.notes(experiment), *map(NoteResult.of, few)],
        clean=measured.fault_free(experiment),
        selected=replace(points[place], flips=flips),
        table=measured.table(experiment, mappings),
        advantages=measured.advantages(experiment, mappings),
        front=list(points.values()),
        search=_search(fronts["both"]),
        sensitivity=measured.sensitivities(experiment),
        sweep=measured.sweep(experiment, mappings),
        costs=records.layer_costs(experiment, experiment.tables),
        surrogate=[_learnt(name, each) for name, each in found.items()] or None,
        curve=curve,
        formats=number_formats.rows(experiment, unaware),
    )
    return Outcome(result, view=view(result))


def _by_tool(
    baselines: Mapping[str, Assignment],
    own: Mapping[str, Assignment],
    found: Mapping[str, Learnt],
) -> dict[tuple[str, str], Assignment]:
    """(tool, scenario) -> mapping, in the order of the table."""
    mappings = {}
    for name in SCENARIOS:
        mappings |= {(tool, name): mapping for tool, mapping in baselines.items()}
        mappings["afarepart", name] = own[name]
        if name in found:
            mappings[learnt.METHOD, name] = found[name].mapping
    return mappings


def _learnt(name: str, each: Learnt) -> LearntResult:
    """How the search that learns went."""
    first = each.search.first_factor
    return LearntResult(name, each.found.method, each.found.maximal, each.passes, first)


def _point(
    front: Front,
    index: int,
    correct: Bool[np.ndarray, "K B"],
    clean: Bool[np.ndarray, " B"],
) -> Point:
    """One mapping of the front as it was measured."""
    return Point(
        front.mappings[index].tolist(),
        real(front.latency_ms[index]),
        real(front.energy_mj[index]),
        estimated(correct),
        float(clean.mean() - correct.mean()),
    )


def _search(front: Front) -> SearchResult:
    """How the front was found, and how many mappings met how many fault draws."""
    effort, spent = None, front.spent
    if spent is not None:
        draws = [Draws(draws, count) for draws, count in spent.mappings]
        effort = Effort(spent.total or None, spent.passes, draws)
    return SearchResult(
        front.method,
        front.generations,
        front.evaluations,
        front.hypervolume,
        list(front.reference_point),
        list(front.history),
        effort,
    )
