"""Job `partition`: AFarePart's offline phase beside its baselines (AFarePart, Sections V-A and VI).

For each kind of fault (weights, activations, both) the search runs by itself, as the rows of the
paper's Table II do. What is reported was measured afterwards, on held-out images and fresh draws.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.experiment import SCENARIOS, prepare
from afpjax.jobs.partition import measured
from afpjax.jobs.partition.result import Draws, Effort, PartitionResult, Point, SearchResult
from afpjax.jobs.partition.view import view
from afpjax.jobs.shared import few_faults, plans, records, searched
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import NoteResult, real
from afpjax.search.partition import Front
from afpjax.statistics.intervals import estimated

TOOLS = ("cnnparted", "fault-unaware", "afarepart")


def plan(config: Config, work: Work) -> object:
    """Three searches, then what is measured: the front, the tools' mappings, layers alone."""
    experiment = prepare(config, work)
    images, held = plans.counts(experiment)
    final, half = config.search.final_trials, max(2, config.search.final_trials // 2)
    rows = len(TOOLS) * len(SCENARIOS)
    layers, devices = len(experiment.tables.latency_ms), len(experiment.platform.names)
    steps = [
        *plans.search(experiment, len(SCENARIOS)),
        plans.Step("measuring the front", config.search.population * final * held, final * held),
        plans.Step("comparing the tools", rows * final * held),
        plans.Step("sweeping fault rates", rows * len(measured.FACTORS) * half * held),
        plans.Step("layer by layer", 2 * layers * devices * half * images),
    ]
    return plans.shown(experiment, steps)


def run(config: Config, work: Work) -> Outcome:
    """The whole comparison: `result.json` as the contract has it, and the printed table."""
    experiment = prepare(config, work)
    searched.refuse_effort(experiment)  # and memory that no mapping has
    with experiment.explained():
        baselines, cheap = searched.baselines(experiment)
        allowance = searched.allowance(experiment, baselines["fault-unaware"])
        fronts = {name: searched.search(experiment, name, cheap, allowance) for name in SCENARIOS}
    front, correct = fronts["both"], searched.measure_front(experiment, fronts["both"])
    kept = searched.still_best(front, correct)
    among = {name: list(range(len(each.mappings))) for name, each in fronts.items()}
    among["both"] = kept
    selected = {
        name: searched.select(experiment, name, each, allowance, among[name])
        for name, each in fronts.items()
    }
    mappings = {
        (tool, name): fronts[name].mappings[selected[name]]
        if tool == "afarepart"
        else baselines[tool]
        for name in SCENARIOS
        for tool in TOOLS
    }
    without = experiment.held_out.clean(experiment.scenario("both"))
    points = {index: _point(front, index, correct[index], without) for index in kept}
    chosen = front.mappings[selected["both"]]
    few = few_faults.of_mapping(experiment, chosen, "The selected mapping")
    flips = measured.flips(experiment, chosen)
    result = PartitionResult(
        model=records.model(experiment),
        devices=list(experiment.platform.names),
        data=records.data(experiment),
        faults=records.faults(experiment),
        notes=[*records.notes(experiment), *map(NoteResult.of, few)],
        clean=measured.fault_free(experiment),
        selected=replace(points[selected["both"]], flips=flips),
        table=measured.table(experiment, mappings),
        advantages=measured.advantages(experiment, mappings),
        front=list(points.values()),
        search=_search(front),
        sensitivity=measured.sensitivities(experiment),
        sweep=measured.sweep(experiment, mappings),
        costs=records.layer_costs(experiment, experiment.tables),
    )
    return Outcome(result, view=view(result))


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
