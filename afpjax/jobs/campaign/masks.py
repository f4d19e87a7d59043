"""What a campaign of masks found."""

from collections.abc import Sequence

import numpy as np

from afpjax.campaigns import masks
from afpjax.campaigns.counts import OutcomeCounts
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import RIGHT_BIT, SDC1
from afpjax.experiment import Experiment
from afpjax.jobs.campaign.result import (
    ALL,
    CellResult,
    Design,
    Endings,
    Found,
    Struck,
    WorstFault,
)
from afpjax.jobs.campaign.single import confusion
from afpjax.jobs.shared import few_faults
from afpjax.jobs.shared.result import Estimate, NoteResult

_ESTIMAND = (
    "accuracy, and share of images whose class is another than without faults, when every "
    "faulty bit (or value) of the cell is struck at its rate: {over}"
)
_OVER = "over new masks and new images"
_OVER_RUN = "under the one mask of this seed, over new images"


def found(
    experiment: Experiment, evaluator: Evaluator, wanted: Sequence[masks.Cell]
) -> tuple[Found, list[NoteResult]]:
    """Cells by layer, bit and rate or device; confusion; the worst masks. And their notes."""
    settings, faults, images = experiment.config.campaign, experiment.faults, evaluator.count
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
    counts = OutcomeCounts(len(counted), images, reference.argmax(axis=1), reference.shape[1])
    for place, each in enumerate(counted):
        counts.add(place, 0, each.answers)
    few = few_faults.of_cells(experiment, wanted, [len(each.answers) for each in counted], images)
    made = Found(
        design=Design(
            name=settings.design,
            fault=faults.kind,
            estimand=dict.fromkeys(settings.targets, estimand),
            interval="two-way",
            margin=settings.margin,
            confidence=settings.confidence,
            level=counted[0].confidence,
            trials=int(counts.trials.sum()),
            strata=len(counted),
            not_finite=settings.not_finite,
        ),
        cells=[_cell(experiment, counts, place, each) for place, each in enumerate(counted)],
        confusion=confusion(counts.confusion),
        worst=[
            WorstFault(
                **vars(_where(experiment, counted[each.stratum].cell)),
                trial=each.trial,
                sdc_rate=each.sdc,
            )
            for each in counts.worst
        ],
    )
    return made, [NoteResult.of(note) for note in few]


def _where(experiment: Experiment, cell: masks.Cell) -> Struck:
    names, faults = experiment.graph.names, experiment.faults
    alone = len(cell.columns) == 1 and faults.rates("weight").shape[1] > 1
    return Struck(
        layer=names[cell.layers[0]] if len(cell.layers) == 1 else ALL,
        bit=faults.bits[cell.columns[0]] if alone else ALL,
        target=cell.target,
        rate=cell.rate,
        device=None if cell.device is None else experiment.platform.names[cell.device],
    )


def _cell(
    experiment: Experiment, counts: OutcomeCounts, place: int, counted: masks.Counted
) -> CellResult:
    def estimate(flag: int) -> Estimate:
        hits = (counted.answers & flag) > 0
        bounds = masks.interval(experiment.faults, hits, counted.confidence)
        return Estimate(float(hits.mean()), *bounds)

    return CellResult(
        **vars(_where(experiment, counted.cell)),
        trials=len(counted.answers),
        images=counts.images,
        accuracy=estimate(RIGHT_BIT),
        sdc_rate=estimate(SDC1),
        endings=Endings(**counts.shares([place], np.ones(1))),
    )
