"""What job `distribute` measures beside its methods.

Scores and scales put different placements at the same threshold; so that more memory does not pass
for a better score, each gets the threshold that leads to the memory of the experiment's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np

from afpjax.faults.model import FaultModel
from afpjax.jobs.distribute.cases import Case, Distribution, Outcome, difference
from afpjax.jobs.distribute.result import (
    ExpectedResult,
    FlipsResult,
    KeptBeside,
)
from afpjax.jobs.shared import few_faults
from afpjax.jobs.shared.result import Estimate, NoteResult
from afpjax.jobs.shared.scoring import without_neurons
from afpjax.neurons import failures, methods
from afpjax.neurons.cluster_thresholds import threshold_for
from afpjax.neurons.distribute import NORMALISATIONS
from afpjax.neurons.failures import SUBSTITUTES, outcomes
from afpjax.neurons.importance import NAMES
from afpjax.neurons.placement import Placement, largest_share

OWN = "robustdice"
#: Every subset of the scores, as in the paper's Table I.
SUBSETS = tuple(chain.from_iterable(combinations(NAMES, count) for count in (1, 2, 3)))
CASES = len(SUBSETS) + len(NORMALISATIONS) + 2 * len(SUBSTITUTES)  # about, for a plan
_CURVE = (OWN, "topk", "random", "randomk", "lop", "replication")  # first on the curve


def curve_methods(distribution: Distribution) -> list[str]:
    """Those whose memory follows from thresholds first; coded computing has no place on it."""
    names = distribution.settings.methods
    some = [name for name in names if not methods.method(name).spare]
    order = [*_CURVE, *some]
    return sorted(some, key=lambda n: (not methods.method(n).by_threshold, order.index(n)))


def curve_cases(distribution: Distribution) -> Iterator[Case]:
    """Accuracy over memory: thresholds, and the methods that have no choice of memory."""
    devices, _ = distribution.first
    thresholds = distribution.settings.curve
    losses = [lost for lost in distribution.losses(devices) if lost]
    names = curve_methods(distribution) if thresholds else []
    for threshold in thresholds:
        for name in names:
            if methods.method(name).by_threshold:
                placement = distribution.place(name, devices, threshold)
                yield from (distribution.case(placement, lost, threshold) for lost in losses)
    for name in names:
        if not methods.method(name).by_threshold:
            placement = distribution.place(name, devices)
            yield from (distribution.case(placement, lost) for lost in losses)


def curve(measured: Sequence[Outcome]) -> list[KeptBeside]:
    """RobustDiCE is held against the others at every threshold."""
    own = {
        (case.threshold, case.failed): (case, right)
        for case, right in measured
        if case.method == OWN
    }

    def beside(case: Case, right: Any) -> Estimate | None:
        rival = own.get((case.threshold, case.failed))
        if case.method == OWN or rival is None:
            return None
        return difference(rival, (case, right))

    return [
        KeptBeside(**case.kept(right), difference=beside(case, right)) for case, right in measured
    ]


def scores_cases(distribution: Distribution) -> list[Case]:
    """RobustDiCE from every subset of the scores."""
    return [_at_equal_memory(distribution, scores=scores) for scores in SUBSETS]


def scale_cases(distribution: Distribution) -> list[Case]:
    """RobustDiCE from scores on every scale."""
    return [_at_equal_memory(distribution, normalise=scale) for scale in NORMALISATIONS]


def _at_equal_memory(distribution: Distribution, **ways: Any) -> Case:
    """Another way to cluster, at the memory that the experiment's own settings lead to."""
    devices, lost = distribution.first
    memory = largest_share(distribution.place(OWN, devices), distribution.layers)

    def place(threshold: float) -> Placement:
        return distribution.place(OWN, devices, threshold, **ways)

    threshold, placement = threshold_for(memory, place, distribution.layers)
    return distribution.case(placement, lost, threshold)


def substitutes(distribution: Distribution) -> list[KeptBeside]:
    """What a lost neuron gives: RobustDiCE with every loss, beside zero."""
    devices, _ = distribution.first
    placement = distribution.place(OWN, devices)
    losses = [lost for lost in distribution.losses(devices) if lost]
    cases = [distribution.case(placement, lost) for lost in losses]
    measured = {
        kind: distribution.measured(cases, f"Losing devices, {kind} for lost neurons", kind)
        for kind in SUBSTITUTES
    }
    return [
        KeptBeside(
            substitute=kind,
            **case.kept(right),
            difference=None if kind == "zero" else difference((case, right), (case, zero)),
        )
        for kind, rights in measured.items()
        for case, right, zero in zip(cases, rights, measured["zero"], strict=True)
    ]


def notes(distribution: Distribution) -> list[NoteResult]:
    """Where bits flip besides, whether enough of them do for an answer."""
    if not distribution.settings.flips:
        return []
    devices, _ = distribution.first
    few = few_faults.of_shared_out(distribution.experiment, faults_of(distribution), devices)
    return [NoteResult.of(note) for note in few]


def expected(distribution: Distribution) -> list[ExpectedResult]:
    """The accuracy of every method where devices fail by chance, and where bits flip besides."""
    if not distribution.settings.failure:
        return []
    rows = _expected(distribution, None)
    if distribution.settings.flips:
        rows += _expected(distribution, faults_of(distribution))
    return rows


def _expected(distribution: Distribution, faults: FaultModel | None) -> list[ExpectedResult]:
    experiment, settings = distribution.experiment, distribution.settings
    devices, _ = distribution.first
    chances = settings.failure * devices if len(settings.failure) == 1 else settings.failure
    sets = failures.probable(chances, seed=experiment.config.run.seed)
    pairs = [(placement, sets) for _, placement in distribution.methods(devices)]
    evaluator = without_neurons(experiment, settings.substitute)
    trials = range(1 if faults is None else experiment.config.search.final_trials)
    order = None if faults is None else _order(faults)
    total = len(pairs) * len(sets.sets) * len(trials)
    with experiment.work.progress.task("Losing devices by chance", total) as task:
        rights = outcomes(evaluator, pairs, faults, trials, order=order, progress=task.advance)
    rows = []
    for (placement, _), right in zip(pairs, rights, strict=True):
        kept = failures.expected(sets, right)
        rows.append(
            ExpectedResult(
                placement.method,
                devices,
                chances,
                largest_share(placement, distribution.layers),
                Estimate(kept.accuracy, *kept.interval),
                kept.deviation_run,
                kept.deviation_image,
                kept.quantiles,
                len(sets.sets),
                sets.sampled,
                None if faults is None else len(trials),
            )
        )
    return rows


def flips(distribution: Distribution) -> list[FlipsResult]:
    """Every method under soft errors, with no device lost and with every loss."""
    if not distribution.settings.flips:
        return []
    experiment, (devices, _) = distribution.experiment, distribution.first
    faults = faults_of(distribution)
    cases = [
        distribution.case(placement, lost)
        for _, placement in distribution.methods(devices)
        for lost in sorted({0, *distribution.losses(devices)})
    ]
    trials = range(experiment.config.search.final_trials)
    evaluator = without_neurons(experiment, distribution.settings.substitute)
    pairs = [(case.placement, case.failures) for case in cases]
    total = sum(len(sets.sets) for _, sets in pairs) * len(trials)
    with experiment.work.progress.task("Losing devices while bits flip", total) as task:
        rights = outcomes(
            evaluator, pairs, faults, trials, order=_order(faults), progress=task.advance
        )
    weights, activations = (
        faults.rates(target).max(axis=1).tolist() for target in ("weight", "activation")
    )
    return [
        FlipsResult(
            **case.kept_by_sets(right),
            trials=len(trials),
            weight_rate=weights,
            activation_rate=activations,
        )
        for case, right in zip(cases, rights, strict=True)
    ]


def _order(faults: FaultModel) -> list[int]:
    """Devices with fewer soft errors first: their copies are preferred."""
    return np.argsort(faults.rates("weight").max(axis=1), kind="stable").tolist()


def faults_of(distribution: Distribution) -> FaultModel:
    """The experiment's, of the first number of devices."""
    return of_devices(distribution.experiment.faults, distribution.first[0])


def of_devices(faults: FaultModel, devices: int) -> FaultModel:
    """The fault model of so many devices: device d has the rates of platform device d mod n."""

    def rates(own: object) -> tuple[float, ...]:
        values = np.atleast_1d(np.asarray(own, np.float64))
        return tuple(np.resize(values, devices).tolist())

    return replace(
        faults,
        weight_rate=rates(faults.weight_rate),
        activation_rate=rates(faults.activation_rate),
    )
