"""What a campaign of masks found, as result.json has it."""

from collections.abc import Sequence

import numpy as np

from afpjax.campaigns import masks
from afpjax.campaigns.counts import OutcomeCounts
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import RIGHT_BIT, SDC1
from afpjax.experiment import Experiment
from afpjax.inputs import notes
from afpjax.jobs.campaign.single import ALL, confusion
from afpjax.jobs.shared import few_faults
from afpjax.jobs.shared.records import Record

_ESTIMAND = (
    "accuracy, and share of images whose class is another than without faults, when every "
    "faulty bit (or value) of the cell is struck at its rate: {over}"
)
_OVER = "over new masks and new images"
_OVER_RUN = "under the one mask of this seed, over new images"


def found(experiment: Experiment, evaluator: Evaluator, wanted: Sequence[masks.Cell]) -> Record:
    """Cells by layer, bit and rate or device; confusion; the worst masks."""
    settings, faults = experiment.config.campaign, experiment.faults
    total = len(wanted) * masks.looks(masks.asked(faults, settings.trials))[-1]
    with experiment.work.progress.task("Striking", total) as task:
        counted = masks.run(
            evaluator,
            faults,
            wanted,
            trials=settings.trials,
            margin=settings.margin,
            confidence=settings.confidence,
            advance=task.advance,
        )
    estimand = _ESTIMAND.format(over=_OVER_RUN if faults.scope == "run" else _OVER)
    reference = evaluator.reference
    counts = OutcomeCounts(
        len(counted), evaluator.count, reference.argmax(axis=1), reference.shape[1]
    )
    for place, each in enumerate(counted):
        counts.add(place, 0, each.answers)
    images = evaluator.count
    own = few_faults.of_cells(experiment, wanted, [len(each.answers) for each in counted], images)
    return {
        "notes": notes.records(own),
        "design": {
            "name": settings.design,
            "fault": faults.kind,
            "estimand": dict.fromkeys(settings.targets, estimand),
            "interval": "two-way",
            "margin": settings.margin,
            "confidence": settings.confidence,
            "level": counted[0].confidence,
            "trials": int(counts.trials.sum()),
            "strata": len(counted),
        },
        "cells": [_cell(experiment, counts, place, each) for place, each in enumerate(counted)],
        "confusion": confusion(counts.confusion),
        "worst": [
            {**_named(experiment, counted[each.stratum].cell)}
            | {"trial": each.trial, "sdc_rate": each.sdc}
            for each in counts.worst
        ],
    }


def _named(experiment: Experiment, cell: masks.Cell) -> Record:
    names, faults = experiment.graph.names, experiment.faults
    columns = faults.rates("weight").shape[1]
    alone = len(cell.columns) == 1 and columns > 1
    named: Record = {
        "layer": names[cell.layers[0]] if len(cell.layers) == 1 else ALL,
        "bit": faults.bits[cell.columns[0]] if alone else ALL,
        "target": cell.target,
        "rate": cell.rate,
    }
    device = {} if cell.device is None else {"device": experiment.platform.names[cell.device]}
    return named | device


def _cell(
    experiment: Experiment, counts: OutcomeCounts, place: int, counted: masks.Counted
) -> Record:
    def estimate(name: str, stem: str, flag: int) -> Record:
        hits = (counted.answers & flag) > 0
        bounds = masks.interval(experiment.faults, hits, counted.confidence)
        return {name: hits.mean(), f"{stem}_interval": list(bounds)}

    return {
        **_named(experiment, counted.cell),
        "trials": len(counted.answers),
        "images": counts.images,
        **estimate("accuracy", "accuracy", RIGHT_BIT),
        **estimate("sdc_rate", "sdc", SDC1),
        **counts.shares([place], np.ones(1)),
    }
