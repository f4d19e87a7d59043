"""Devices that fail by chance, and devices whose bits flip while others are lost."""

from dataclasses import replace

import numpy as np

from afpjax.faults.model import FaultModel
from afpjax.inputs import notes
from afpjax.jobs.distribute.cases import Distribution, full
from afpjax.jobs.shared import few_faults
from afpjax.jobs.shared.records import Record
from afpjax.neurons.failures import expected, outcomes, probable
from afpjax.neurons.methods import method
from afpjax.neurons.placement import Placement, largest_share


def found(distribution: Distribution) -> Record:
    """What is asked for of the two."""
    rows: Record = {}
    if distribution.given.flips:
        devices, _ = distribution.first
        own = few_faults.of_shared_out(distribution.experiment, _faults(distribution), devices)
        rows["notes"] = notes.records(own)
    if distribution.given.failure:
        rows["expected"] = _expected(distribution, None)
    if distribution.given.failure and distribution.given.flips:
        rows["expected"] += _expected(distribution, _faults(distribution))
    if distribution.given.flips:
        rows["flips"] = _flips(distribution)
    return rows


def _placements(distribution: Distribution) -> list[Placement]:
    devices, _ = distribution.first
    return [
        distribution.place(name, devices)
        for name in distribution.given.methods
        if devices >= method(name).fewest_devices
    ]


def _faults(distribution: Distribution) -> FaultModel:
    return of_devices(distribution.experiment.faults, distribution.first[0])


def _order(faults: FaultModel) -> list[int]:
    """Devices with fewer soft errors first: their copies are preferred."""
    return np.argsort(faults.rates("weight").max(axis=1), kind="stable").tolist()


def _expected(distribution: Distribution, faults: FaultModel | None) -> list[Record]:
    """The accuracy of every method where each device fails with its probability."""
    experiment, given = distribution.experiment, distribution.given
    devices, _ = distribution.first
    chances = given.failure * devices if len(given.failure) == 1 else given.failure
    failures = probable(chances, seed=experiment.config.run.seed)
    pairs = [(placement, failures) for placement in _placements(distribution)]
    evaluator = experiment.without(given.substitute)
    trials = range(1 if faults is None else experiment.config.search.final_trials)
    order = None if faults is None else _order(faults)
    total = len(pairs) * len(failures.sets) * len(trials)
    with experiment.work.progress.task("Losing devices by chance", total) as task:
        rights = outcomes(evaluator, pairs, faults, trials, order=order, progress=task.advance)
    rows = []
    for (placement, _), right in zip(pairs, rights, strict=True):
        kept = expected(failures, right)
        rows.append(
            {
                "method": placement.method,
                "devices": devices,
                "failure": list(chances),
                "memory": largest_share(placement, distribution.layers),
                "accuracy": kept.accuracy,
                "accuracy_interval": list(kept.interval),
                "deviation_run": kept.deviation_run,
                "deviation_image": kept.deviation_image,
                "quantiles": kept.quantiles,
                "sets": len(failures.sets),
                "sampled": failures.sampled,
            }
            | ({} if faults is None else {"trials": len(trials)})
        )
    return rows


def _flips(distribution: Distribution) -> list[Record]:
    """Every method under soft errors, with no device lost and with every loss."""
    experiment, (devices, _) = distribution.experiment, distribution.first
    faults = _faults(distribution)
    losses = sorted({0, *distribution.losses(devices)})
    cases = [
        distribution.case(placement, lost)
        for placement in _placements(distribution)
        for lost in losses
    ]
    trials = range(experiment.config.search.final_trials)
    evaluator = experiment.without(distribution.given.substitute)
    total = sum(len(case.failures.sets) for case in cases) * len(trials)
    with experiment.work.progress.task("Losing devices while bits flip", total) as task:
        rights = outcomes(
            evaluator,
            [(case.placement, case.failures) for case in cases],
            faults,
            trials,
            order=_order(faults),
            progress=task.advance,
        )
    rates = {
        f"{target}_rate": faults.rates(target).max(axis=1).tolist()
        for target in ("weight", "activation")
    }
    return [
        full(case, right) | {"trials": len(trials)} | rates
        for case, right in zip(cases, rights, strict=True)
    ]


def of_devices(faults: FaultModel, devices: int) -> FaultModel:
    """The fault model of so many devices: device d has the rates of platform device d mod n."""

    def rates(given: object) -> tuple[float, ...]:
        every = np.atleast_1d(np.asarray(given, np.float64))
        return tuple(np.resize(every, devices).tolist())

    return replace(
        faults,
        weight_rate=rates(faults.weight_rate),
        activation_rate=rates(faults.activation_rate),
    )
