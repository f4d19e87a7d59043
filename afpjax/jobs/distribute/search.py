"""Thresholds that are searched for, measured on held-out images beside constant ones."""

from typing import NamedTuple

import numpy as np

from afpjax.hardware.board import Board
from afpjax.hardware.platform import Link
from afpjax.inputs.errors import InputError
from afpjax.jobs.distribute.cases import Distribution
from afpjax.jobs.distribute.result import ThresholdGain, ThresholdSearch, ThresholdsResult
from afpjax.jobs.shared.result import Estimate
from afpjax.jobs.shared.scoring import without_neurons
from afpjax.neurons.cluster_thresholds import (
    Chosen,
    Costs,
    Ladders,
    Trade,
    best_within,
    ladders,
    remeasured,
)
from afpjax.neurons.failures import Preserved
from afpjax.neurons.placement import Placement
from afpjax.neurons.resources import resources
from afpjax.neurons.threshold_search import search_thresholds
from afpjax.neurons.weighted import weighted

SHOWN = 24  # points of a front that are measured again, evenly spread over memory


class Searched(NamedTuple):
    """What a search found on its own images."""

    points: list[Chosen]
    constants: list[Chosen]
    rows: int  # networks under a set of failures that it ran


def searched(distribution: Distribution, board: Board, link: Link) -> ThresholdSearch | None:
    """What the search gains on held-out images; None where no search is asked for."""
    experiment, settings = distribution.experiment, distribution.settings
    if not settings.search:
        return None
    devices, lost = distribution.first
    own = settings.thresholds if len(settings.thresholds) == 1 else ()
    steps = ladders(
        experiment.graph,
        distribution.scored.scores,
        devices,
        groups=settings.search,
        constants=sorted({*settings.curve, *own}),
        names=settings.scores,
        normalise=settings.normalise,
        whole_classifier=settings.classifier == "whole",
    )
    costs = _costs(distribution, board, link)
    sets = distribution.fail(range(devices), lost)
    evaluator = without_neurons(experiment, settings.substitute, held=False)
    trade = Trade(steps, evaluator, sets, None if settings.objective == "front" else costs)
    search = _searched(distribution, trade)
    points = _some(search)
    held = without_neurons(experiment, settings.substitute)
    total = (len(points) + len(search.constants)) * len(sets.sets)
    with experiment.work.progress.task("Thresholds on held-out images", total) as task:
        again = remeasured(steps, points, search.constants, held, sets, task.advance)
    return ThresholdSearch(
        settings.objective,
        devices,
        lost,
        len(steps.cardinality),
        evaluator.count,
        search.rows,
        [
            _result(steps, costs, point, kept)
            for point, kept in zip(points, again.searched, strict=True)
        ],
        [
            _result(steps, costs, point, kept, threshold)
            for threshold, point, kept in zip(
                steps.constants, search.constants, again.constant, strict=True
            )
        ],
        [
            ThresholdGain(
                gain.memory,
                gain.searched,
                gain.constant,
                Estimate(gain.difference, *gain.interval),
            )
            for gain in again.gains
        ],
    )


def _searched(distribution: Distribution, trade: Trade) -> Searched:
    """By NSGA-II or by CMA-ES, within search.population x search.generations choices."""
    experiment, settings = distribution.experiment, distribution.settings
    search, key = experiment.config.search, experiment.key("thresholds")
    rows = search.population * search.generations * trade.rows_each
    if search.effort:
        rows = min(rows, search.effort // trade.evaluator.count)
    with experiment.work.progress.task("Searching thresholds", rows) as task:
        if settings.objective != "weighted":
            front = search_thresholds(
                key, trade, rows=rows, population=search.population, progress=task.advance
            )
            return Searched(
                trade.front(front.choices, front.objectives),
                trade.front(front.constants, front.of_constants),
                front.evaluations,
            )
        constants = trade.constants()
        of_constants = trade.of_choices(constants, task.advance)
        spent = len(constants) * trade.rows_each
        best = weighted(key, trade, settings.weights, rows=rows - spent, progress=task.advance)
    point = trade.chosen(best.thresholds.tolist(), best.objectives)
    return Searched([point], trade.front(constants, of_constants), best.evaluations + spent)


def _some(search: Searched) -> list[Chosen]:
    """Points to measure again: what stands against each constant, and some between them."""
    points = sorted(search.points, key=lambda point: (point.memory, -point.accuracy))
    if not points:
        raise InputError("distribute.search: found nothing; give more search.generations")
    rivals = [best_within(points, constant.memory) for constant in search.constants]
    between = np.linspace(0, len(points) - 1, min(SHOWN, len(points))).round().astype(int)
    indices = {*between.tolist(), *(index for index in rivals if index is not None)}
    return [points[index] for index in sorted(indices)]


def _result(
    steps: Ladders, costs: Costs, point: Chosen, kept: Preserved, threshold: float | None = None
) -> ThresholdsResult:
    energy, fps = costs(steps.placed(np.array(point.thresholds)))
    return ThresholdsResult(
        threshold=threshold,
        thresholds=point.thresholds,
        memory=point.memory,
        accuracy=Estimate(kept.accuracy, *kept.interval),
        search_accuracy=point.accuracy,
        energy_j=energy,
        fps=fps,
    )


def _costs(distribution: Distribution, board: Board, link: Link) -> Costs:
    """Energy of the device that takes most, J per image, and frames per second."""
    graph, images = distribution.experiment.graph, distribution.settings.stream
    batch = distribution.experiment.config.platform.batch

    def of(placement: Placement) -> tuple[float, float]:
        cost = resources(graph, placement.loads(), board, link, batch=batch, images=images)
        return float(cost.energy_j.max()), cost.fps

    return of
