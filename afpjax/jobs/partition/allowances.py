"""The whole trade-off: the best mapping under several allowances, measured on held-out images."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from afpjax.experiment import Experiment
from afpjax.hardware.tables import CostTables
from afpjax.jobs.partition.result import AllowancePoint, CurveResult
from afpjax.jobs.shared import learnt
from afpjax.jobs.shared.learnt import Learnt
from afpjax.jobs.shared.records import priced
from afpjax.jobs.shared.searched import Assignment
from afpjax.search import curve
from afpjax.search.objectives import Caps, costs
from afpjax.search.partition import measure
from afpjax.statistics.intervals import estimated, share_regained


@dataclass
class Curve:
    """The points as they are found, for both kinds of fault."""

    experiment: Experiment
    learner: Learnt
    reference: Assignment
    points: dict[float, AllowancePoint] = field(default_factory=dict)

    def correct(self, mapping: Assignment) -> Bool[np.ndarray, "K B"]:
        experiment, trials = self.experiment, self.experiment.config.search.final_trials
        faults = experiment.scenario("both")
        with experiment.work.progress.task("Measuring an allowance", trials) as task:
            return measure(experiment.held_out, faults, mapping[None], trials, task.advance)[0]

    def caps(self, factor: float) -> Caps:
        """What a mapping may cost at so many times the allowance."""
        given, cost = self.experiment.config.search, costs(self.tables, self.reference[None])
        base = Caps(float(cost.latency_ms[0]), float(cost.energy_mj[0]))
        return curve.scaled_caps(base, given.allow_latency, given.allow_energy, factor)

    @property
    def tables(self) -> CostTables:
        return self.experiment.tables

    def find(self, factor: float) -> None:
        """The best mapping at so many times the allowance."""
        self.add(factor, learnt.more(self.experiment, self.learner, self.caps(factor))[0])

    def add(self, factor: float, mapping: Assignment) -> None:
        """What a mapping keeps right, and which share of the reference's loss that regains."""
        given, own = self.experiment.config.search, self.correct(mapping)
        self.points[factor] = AllowancePoint(
            factor,
            factor * given.allow_latency,
            factor * given.allow_energy,
            mapping.tolist(),
            *priced(self.tables, mapping),
            estimated(own),
            share_regained(own, self.before, self.lost),
        )

    @cached_property
    def before(self) -> Bool[np.ndarray, "K B"]:
        """What the reference keeps right, held out."""
        return self.correct(self.reference)

    @cached_property
    def lost(self) -> float:
        """Accuracy that the reference loses to faults, held out."""
        clean = self.experiment.held_out.clean(self.experiment.scenario("both"))
        return float(clean.mean() - self.before.mean())

    def shares(self) -> tuple[list[float], list[float]]:
        """Factors in ascending order, and the share that each regains."""
        found = [(factor, each.regained) for factor, each in sorted(self.points.items())]
        told = [(factor, share.value) for factor, share in found if share is not None]
        return [factor for factor, _ in told], [share for _, share in told]


def drawn(
    experiment: Experiment, learner: Learnt, reference: Assignment, chosen: Assignment
) -> CurveResult | None:
    """The curve; `chosen` is the mapping at the experiment's own allowance.

    None where nothing is allowed, so that every factor is the same. The least allowance that
    regains the target is looked for between the factors by halving.
    """
    given, before = experiment.config.search, learner.search.evidence.passes
    if not given.allow_latency and not given.allow_energy:
        return None
    found = Curve(experiment, learner, reference)
    learner.search.prefer(chosen)
    found.add(1.0, chosen)
    if learner.found.method != "nothing lost" and found.lost > 0:
        for factor in curve.FACTORS:
            if factor != 1.0:
                found.find(factor)
        for _ in range(curve.HALVINGS):
            following = curve.between(*found.shares())
            if following is not None:
                found.find(following)
    factors, shares = found.shares()
    helps = [
        factor
        for factor, each in sorted(found.points.items())
        if each.regained is not None and each.regained.low > 0
    ]
    return CurveResult(
        estimated(found.before),
        found.lost,
        curve.TARGET,
        [found.points[factor] for factor in sorted(found.points)],
        curve.knee(factors, shares) if factors else None,
        curve.least(factors, shares),
        min(helps, default=None),
        learner.search.evidence.passes - before,
    )
