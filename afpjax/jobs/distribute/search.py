"""Thresholds that are searched for, measured on held-out images beside constant ones."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from afpjax.hardware.board import Board
from afpjax.hardware.platform import Link
from afpjax.inputs.errors import InputError
from afpjax.jobs.distribute.cases import Distribution
from afpjax.jobs.shared.records import Record
from afpjax.neurons.failures import Preserved
from afpjax.neurons.placement import Placement
from afpjax.neurons.resources import resources
from afpjax.neurons.threshold_search import search_thresholds
from afpjax.neurons.thresholds import Chosen, Ladders, Trade, best_within, ladders, remeasured
from afpjax.neurons.weighted import weighted

SHOWN = 24  # points of a front that are measured again, evenly spread over memory

Costs = Callable[[Placement], tuple[float, float]]


class Sought(NamedTuple):
    """What a search found on its own images."""

    points: list[Chosen]
    constants: list[Chosen]
    rows: int  # networks under a set of failures that it ran


def searched(distribution: Distribution, board: Board, link: Link) -> Record:
    """`search` of result.json, where a search is asked for."""
    experiment, given = distribution.experiment, distribution.given
    if not given.search:
        return {}
    devices, lost = distribution.first
    own = given.thresholds if len(given.thresholds) == 1 else ()
    steps = ladders(
        experiment.graph,
        distribution.scored.scores,
        devices,
        groups=given.search,
        constants=sorted({*given.curve, *own}),
        names=given.scores,
        normalise=given.normalise,
        whole_classifier=given.classifier == "whole",
    )
    costs = _costs(distribution, board, link)
    sets = distribution.fail(range(devices), lost)
    every = given.objective != "front"
    evaluator = experiment.without(given.substitute, held=False)
    trade = Trade(steps, evaluator, sets, costs if every else None)
    sought = _sought(distribution, trade)
    points = _some(sought)
    held = experiment.without(given.substitute)
    total = (len(points) + len(sought.constants)) * len(sets.sets)
    with experiment.work.progress.task("Thresholds on held-out images", total) as task:
        found = remeasured(steps, points, sought.constants, held, sets, task.advance)
    front = [
        _record(steps, costs, point, kept)
        for point, kept in zip(points, found.searched, strict=True)
    ]
    constants = [
        {"threshold": threshold} | _record(steps, costs, point, kept)
        for threshold, point, kept in zip(
            steps.constants, sought.constants, found.constant, strict=True
        )
    ]
    gains = [
        {
            "memory": gain.memory,
            "searched": gain.searched,
            "constant": gain.constant,
            "difference": gain.difference,
            "difference_interval": list(gain.interval),
        }
        for gain in found.gains
    ]
    return {
        "search": {
            "objective": given.objective,
            "devices": devices,
            "failed": lost,
            "groups": len(steps.cardinality),
            "images": evaluator.count,
            "evaluations": sought.rows,
            "front": front,
            "constant": constants,
            "gain": gains,
        }
    }


def _sought(distribution: Distribution, trade: Trade) -> Sought:
    """By NSGA-II or by CMA-ES, within search.population x search.generations choices."""
    experiment, given = distribution.experiment, distribution.given
    search, key = experiment.config.search, experiment.key("thresholds")
    rows = search.population * search.generations * trade.rows_each
    if search.effort:
        rows = min(rows, search.effort // trade.evaluator.count)
    with experiment.work.progress.task("Searching thresholds", rows) as task:
        if given.objective != "weighted":
            found = search_thresholds(
                key, trade, rows=rows, population=search.population, progress=task.advance
            )
            constants = trade.front(found.constants, found.of_constants)
            front = trade.front(found.choices, found.objectives)
            return Sought(front, constants, found.evaluations)
        constants = trade.constants()
        of_constants = trade.of_choices(constants, task.advance)
        left = rows - len(constants) * trade.rows_each
        best = weighted(key, trade, given.weights, rows=left, progress=task.advance)
    point = trade.chosen(best.thresholds.tolist(), best.objectives)
    spent = best.evaluations + len(constants) * trade.rows_each
    return Sought([point], trade.front(constants, of_constants), spent)


def _some(sought: Sought) -> list[Chosen]:
    """Points to measure again: what stands against each constant, and some between them."""
    points = sorted(sought.points, key=lambda point: (point.memory, -point.accuracy))
    if not points:
        raise InputError("distribute.search: found nothing; give more search.generations")
    rivals = [best_within(points, constant.memory) for constant in sought.constants]
    between = np.linspace(0, len(points) - 1, min(SHOWN, len(points))).round().astype(int)
    places = {*between.tolist(), *(place for place in rivals if place is not None)}
    return [points[place] for place in sorted(places)]


def _record(steps: Ladders, costs: Costs, point: Chosen, kept: Preserved) -> Record:
    energy, fps = costs(steps.placed(np.array(point.thresholds)))
    return {
        "thresholds": list(point.thresholds),
        "memory": point.memory,
        "accuracy": kept.accuracy,
        "accuracy_interval": list(kept.interval),
        "search_accuracy": point.accuracy,
        "energy_j": energy,
        "fps": fps,
    }


def _costs(distribution: Distribution, board: Board, link: Link) -> Costs:
    """Energy of the device that takes most, J per image, and frames per second."""
    graph = distribution.experiment.graph
    batch, images = distribution.experiment.config.platform.batch, distribution.given.stream

    def of(placement: Placement) -> tuple[float, float]:
        cost = resources(graph, placement.loads(), board, link, batch=batch, images=images)
        return float(cost.energy_j.max()), cost.fps

    return of
