"""Job `partition`: AFarePart's offline phase beside its baselines (AFarePart, Sections V-A and VI).

For each kind of fault (weights, activations, both) the search runs by itself, as the rows of the
paper's Table II do. What is reported was measured afterwards, on held-out images and fresh draws.
"""

import numpy as np
from jaxtyping import Bool

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.experiment.prepare import SCENARIOS, prepare
from afpjax.inputs import notes
from afpjax.jobs.shared import few_faults, measured, plans, records, searched
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.summary import comparison
from afpjax.search.partition import Front

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
    chosen = points[selected["both"]]
    result = {
        "model": records.model(experiment),
        "devices": list(experiment.platform.names),
        **records.conditions(experiment),
        "notes": [
            *records.notes(experiment),
            *notes.records(
                few_faults.of_mapping(
                    experiment, front.mappings[selected["both"]], "The selected mapping"
                )
            ),
        ],
        "clean": measured.fault_free(experiment),
        "selected": chosen
        | {"flips": measured.flips(experiment, front.mappings[selected["both"]])},
        "table": measured.table(experiment, mappings),
        "advantages": measured.advantages(experiment, mappings),
        "front": list(points.values()),
        "search": _searched(front),
        "sensitivity": measured.sensitivities(experiment),
        "sweep": measured.sweep(experiment, mappings),
        "costs": records.layer_costs(experiment, experiment.tables),
    }
    return Outcome(result, comparison(result))


def _point(
    front: Front,
    index: int,
    correct: Bool[np.ndarray, "K B"],
    clean: Bool[np.ndarray, " B"],
) -> records.Record:
    """One mapping of the front as it was measured."""
    return {
        "mapping": records.as_list(front.mappings[index]),
        "latency_ms": front.latency_ms[index],
        "energy_mj": front.energy_mj[index],
        **records.estimate(correct),
        "accuracy_drop": clean.mean() - correct.mean(),
    }


def _searched(front: Front) -> records.Record:
    return {
        "method": front.method,
        "generations": front.generations,
        "evaluations": front.evaluations,
        "hypervolume": front.hypervolume,
        "reference_point": list(front.reference_point),
        "history": list(front.history),
        **_effort(front),
    }


def _effort(front: Front) -> records.Record:
    """Passes of an image under faults, and how many mappings met how many fault draws."""
    spent = front.spent
    if spent is None:
        return {}
    draws = [{"draws": draws, "mappings": count} for draws, count in spent.mappings]
    limit = {"total": spent.total} if spent.total else {}
    return {"effort": limit | {"spent": spent.passes, "draws": draws}}
