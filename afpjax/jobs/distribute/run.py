"""Job `distribute`: neurons shared out over devices, and what is left when devices are lost."""

from collections.abc import Sequence
from time import monotonic

import numpy as np

from afpjax.config.config import Config
from afpjax.config.work import Work, summed
from afpjax.experiment.prepare import Experiment, prepare
from afpjax.hardware.board import Board, load_board
from afpjax.hardware.platform import Link, load_link
from afpjax.jobs.distribute import chance, compared
from afpjax.jobs.distribute.cases import Case, Distribution, Right, difference, full
from afpjax.jobs.distribute.search import searched
from afpjax.jobs.distribute.summary import summary
from afpjax.jobs.shared import plans, records, scoring
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.records import Record
from afpjax.neurons.placement import Placement, largest_share
from afpjax.neurons.resources import resources
from afpjax.statistics.intervals import wilson

_SPENT = b"distribute: seconds and passes"

_LOADED_ALIKE = ("robustdice", "random", "topk")  # what they hold follows from the clusters


def plan(config: Config, work: Work) -> object:
    """Scores, and every method's placement under every set of lost devices."""
    experiment, given = prepare(config, work), config.distribute
    _ = load_board(given.board), load_link(given.link)  # refused now, if at all
    images, held = plans.counts(experiment)
    losses = {n: [lost for lost in given.lost or range(1, n) if lost < n] for n in given.devices}
    first = given.devices[0]
    some = sum(plans.failures(first, lost) for lost in losses[first])
    every = sum(plans.failures(n, lost) for n, each in losses.items() for lost in each)
    rows = every * (len(given.methods) + ("cdc" in given.methods))
    rows += some * (len(compared.RIVALS) * len(given.curve) + 2 * bool(given.curve))
    rows += some * compared.CASES * given.compare
    chance = len(given.methods) * bool(given.failure) * min(2**first, plans.MOST)
    flips = len(given.methods) * given.flips * (some + chance) * config.search.final_trials
    mappings = config.search.population * (config.search.generations + 1) * (given.search != 0)
    scores = [] if given.importance else plans.scoring(experiment)
    steps = [
        *scores,
        plans.Step("losing devices", (rows + chance) * held, every * held),
        plans.Step("losing devices, bits flipped too", flips * held),
        plans.Step("searching thresholds", mappings * some * images, 0),
    ]
    return plans.shown(experiment, steps)


def run(config: Config, work: Work) -> Outcome:
    """Accuracy of every method when devices are lost, what it costs, and who computes what."""
    experiment, given = prepare(config, work), config.distribute
    board, link = (
        load_board(given.board),
        load_link(given.link, "distribute.link"),
    )  # refused now, if at all
    link = link.resending(experiment.faults.sent_times)
    distribution = Distribution(experiment, scoring.scored(experiment))
    placements = list(distribution.methods())  # these too
    parts = {**compared.parts(distribution), "methods": placements}
    cases = [case for part in parts.values() for case in part]
    rights, throughput = _timed(distribution, cases)
    found = dict(zip(map(id, cases), rights, strict=True))
    distinct = {(c.placement.method, c.placement.devices): c.placement for c in placements}
    stable = [row for count in distribution.given.devices if (row := distribution.stability(count))]
    result: Record = {
        "model": records.model(experiment),
        "data": {"name": config.data.name, "images": len(experiment.held.labels)},
        "format": {"kind": config.format.kind, "bits": experiment.format.width},
        "clean": _clean(experiment),
        "scores": _scores(distribution),
        "substitute": given.substitute,
        "classifier": given.classifier,
        "thresholds": list(distribution.thresholds),
        "methods": _intervals(
            _methods(distribution, [(case, found[id(case)]) for case in placements]), stable
        ),
        **({"stability": stable} if stable else {}),
        **compared.records(distribution, parts, found),
        **_costs(distribution, list(distinct.values()), board, link),
        "placement": _where(distribution),
        **chance.found(distribution),
        **searched(distribution, board, link),
        "throughput": throughput,
    }
    result["notes"] = [*records.notes(experiment), *result.get("notes", ())]
    return Outcome(result, summary(result))


def _timed(distribution: Distribution, cases: Sequence[Case]) -> tuple[list[Right], Record]:
    """What was measured, and its speed: over all attempts, where it was interrupted."""
    experiment = distribution.experiment
    evaluator = experiment.without(distribution.given.substitute)
    before, start = evaluator.evaluations, monotonic()

    def spent() -> tuple[float, float]:
        return monotonic() - start, float((evaluator.evaluations - before) * evaluator.count)

    with summed(experiment.work.memory, _SPENT, spent) as total:
        rights = distribution.measured(cases, "Losing devices")
        seconds, passes = total()
    return rights, {
        "inferences_per_second": passes / seconds,
        "clean_inferences_per_second": evaluator.clean_rate(losing=True),
        "passes": int(passes),
    }


def _clean(experiment: Experiment) -> Record:
    right = experiment.without(experiment.config.distribute.substitute).whole()
    bounds = wilson(int(right.sum()), len(right))
    return {"accuracy": right.mean(), "accuracy_interval": list(bounds)}


def _scores(distribution: Distribution) -> Record:
    scored, given = distribution.scored, distribution.given
    return {
        "names": list(given.scores),
        "normalise": given.normalise,
        "images": scored.images,
        "from": scored.source,
        "divergence": scored.divergence,
        "target": scored.target,
    }


def _methods(distribution: Distribution, pairs: Sequence[tuple[Case, Right]]) -> list[Record]:
    own = {
        (case.about["devices"], case.about["failed"]): (case, right)
        for case, right in pairs
        if case.about["method"] == "robustdice"
    }
    rows = []
    for case, right in pairs:
        row, key = full(case, right), (case.about["devices"], case.about["failed"])
        if case.about["method"] == "lop":
            row |= _optimistic(distribution, case, right)
        if key in own and case.about["method"] != "robustdice":
            row |= difference(own[key], (case, right))
        rows.append(row)
    return rows


def _intervals(rows: list[Record], stable: Sequence[Record]) -> list[Record]:
    """With the memory's interval over scoring images, where it is RobustDiCE's by construction."""
    known = {row["devices"]: row["memory_interval"] for row in stable}
    return [
        row | {"memory_interval": known[row["devices"]]}
        if row["devices"] in known and row["method"] in _LOADED_ALIKE
        else row
        for row in rows
    ]


def _optimistic(distribution: Distribution, case: Case, right: Right) -> Record:
    """The accuracy where the devices with the least important neurons fail: the paper's LOP."""
    worth = np.zeros(case.placement.devices)
    for name, held in zip(case.placement.layers, case.placement.holds, strict=True):
        points = distribution.points(name).sum(axis=1)
        worth += held @ points / max(points.sum(), np.finfo(np.float64).tiny)
    least = tuple(sorted(np.argsort(worth, kind="stable")[: case.about["failed"]].tolist()))
    if least not in case.failures.sets:  # where sets are a sample
        return {}
    return {"optimistic": float(right[case.failures.sets.index(least)].mean())}


def _costs(
    distribution: Distribution, placements: Sequence[Placement], board: Board, link: Link
) -> Record:
    """Memory, energy and frames per second of every method, with no device lost."""
    given, batch = distribution.given, distribution.experiment.config.platform.batch
    graph, rows = distribution.experiment.graph, []
    for placement in placements:
        cost = resources(graph, placement.loads(), board, link, batch=batch, images=given.stream)
        rows.append(
            {
                "method": placement.method,
                "devices": placement.devices,
                "memory_mb": float(cost.memory_mb.max()),
                "energy_j": float(cost.energy_j.max()),
                "fps": cost.fps,
                "memory": largest_share(placement, distribution.layers),
            }
        )
    of = {"name": board.name, "link": link.name, "images": given.stream, "batch": batch}
    return {"resources": rows, "board": of}


def _where(distribution: Distribution) -> list[Record]:
    """Which devices hold each neuron: bit d of a neuron's number is device d."""
    devices = distribution.given.devices[0]
    placement = distribution.place("robustdice", devices)
    rows = []
    for name, threshold, held in zip(
        placement.layers, distribution.thresholds, placement.holds, strict=True
    ):
        masks = (held * (1 << np.arange(devices, dtype=object))[:, None]).sum(axis=0)
        rows.append(
            {
                "layer": name,
                "neurons": held.shape[1],
                "threshold": threshold,
                "clusters": len(distribution.clusters(name, threshold)),
                "copies": held.sum() / held.shape[1],
                "held": [int(mask) for mask in masks],
            }
        )
    return rows
