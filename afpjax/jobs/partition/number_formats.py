"""What another number format alone regains, for the fault-unaware mapping and at the same cost.

Costs follow from a format's width alone. In the lowest bits a fault does as much harm as a step is
large, so that the choice of steps may be worth more than that of a mapping.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from afpjax.evaluate.evaluator import Evaluator
from afpjax.experiment import Experiment
from afpjax.jobs.partition.result import FormatRow
from afpjax.jobs.shared.plans import Step
from afpjax.jobs.shared.result import Estimate
from afpjax.jobs.shared.searched import Assignment
from afpjax.network.fixed_point import QFormat
from afpjax.search.partition import measure
from afpjax.statistics.intervals import difference_interval, estimated, share_regained, wilson

_MOST = 3  # other formats


def plan(experiment: Experiment) -> list[Step]:
    """Passes that this takes beside those of the table."""
    search, (_, held) = experiment.config.search, experiment.image_counts
    if not search.formats or experiment.format.kind != "fixed":
        return []
    passes = (search.final_trials + 1) * held
    return [Step("other number formats", _MOST * passes, (_MOST - 1) * passes)]


def rows(experiment: Experiment, mapping: Assignment) -> Sequence[FormatRow] | None:
    """The experiment's own format and the others; None where these are not asked for or none are.

    On the images and under the draws of the table.
    """
    if not experiment.config.search.formats or not experiment.other_formats:
        return None
    own, others = experiment.format, experiment.other_formats
    faults, trials = experiment.scenario("both"), experiment.config.search.final_trials
    correct, clean = {}, {}
    with experiment.work.progress.task(
        "Comparing number formats", (1 + len(others)) * trials
    ) as task:
        for fmt in (own, *others):
            evaluator = _evaluator(experiment, fmt)
            (correct[fmt],) = measure(evaluator, faults, mapping[None], trials, task.advance)
            clean[fmt] = evaluator.clean(faults)
    return [
        _row(fmt, clean[fmt], correct[fmt], None if fmt == own else (clean[own], correct[own]))
        for fmt in (own, *others)
    ]


def _evaluator(experiment: Experiment, fmt: QFormat) -> Evaluator:
    return experiment.held_out if fmt == experiment.format else experiment.held_out_in(fmt)


def _row(
    fmt: QFormat,
    clean: Bool[np.ndarray, " B"],
    correct: Bool[np.ndarray, "K B"],
    own: tuple[Bool[np.ndarray, " B"], Bool[np.ndarray, "K B"]] | None,
) -> FormatRow:
    difference = regained = None
    if own is not None:
        before, faulty = own
        gained = float(correct.mean() - faulty.mean())
        difference = Estimate(gained, *difference_interval(correct, faulty))
        regained = share_regained(correct, faulty, float(before.mean() - faulty.mean()))
    return FormatRow(
        fmt.short,
        fmt.scale,
        fmt.frac if fmt.scale == "global" else None,
        Estimate(float(clean.mean()), *wilson(int(clean.sum()), clean.size)),
        estimated(correct),
        difference,
        regained,
    )
