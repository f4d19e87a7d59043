"""Faults struck again by their names, as a report lists them: LAYER/TARGET/ELEMENT/BIT."""

from collections.abc import Sequence

import numpy as np

from afpjax.campaigns.counts import OutcomeCounts
from afpjax.campaigns.strata import single_kinds
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import CLASS_SHIFT
from afpjax.experiment import Experiment
from afpjax.faults import kinds
from afpjax.faults.sites import Fault, Site, check_site
from afpjax.inputs.errors import InputError
from afpjax.jobs.campaign.result import CellResult, Changed, Design, Endings, Found
from afpjax.jobs.campaign.single import confusion
from afpjax.jobs.shared.result import Estimate
from afpjax.statistics.proportions import interval


def faults(experiment: Experiment, sites: Sequence[str]) -> dict[str, Fault]:
    """The fault of each name. Raises `InputError` for one that is not in the network."""
    if not sites:
        raise InputError("campaign.sites: name faults to strike, LAYER/TARGET/ELEMENT/BIT")
    if experiment.faults.kind not in single_kinds():
        raise InputError(
            f"faults.kind: {experiment.faults.kind} has no single faults; use "
            f"campaign.design = bernoulli, or one of {', '.join(single_kinds())}"
        )
    how = kinds.named(experiment.faults.kind).how
    found = {name: _parsed(experiment, name) for name in sites}
    for name, parts in found.items():
        try:
            for site in parts:
                check_site(site, experiment.graph.layers, experiment.format.width)
        except InputError as error:
            raise InputError(f"campaign.sites: {name}: {error}") from error
    return {name: Fault.at(*parts, how=how) for name, parts in found.items()}


def found(experiment: Experiment, evaluator: Evaluator, wanted: dict[str, Fault]) -> Found:
    """One cell for each fault: its images are what varies."""
    with experiment.work.progress.task("Striking", len(wanted)) as task:
        answers = evaluator.evaluate_sites(
            list(wanted.values()), task.advance, shared=experiment.config.faults.shared
        )
    reference, settings = evaluator.reference, experiment.config.campaign
    before = reference.argmax(axis=1)
    counts = OutcomeCounts(len(wanted), evaluator.count, before, reference.shape[1])
    for place in range(len(wanted)):
        counts.add(place, 0, answers[place : place + 1])
    return Found(
        design=Design(
            name="listed",
            fault=experiment.faults.kind,
            estimand={"listed": "share of images, drawn like these, that the fault reaches"},
            interval="wilson",
            confidence=settings.confidence,
            level=settings.confidence,
            trials=len(wanted),
            strata=len(wanted),
            not_finite=settings.not_finite,
        ),
        cells=[
            _cell(name, counts, place, settings.confidence) for place, name in enumerate(wanted)
        ],
        confusion=confusion(counts.confusion),
        changed=[
            Changed(name, image, int(old), int(new))
            for name, row in zip(wanted, answers, strict=True)
            for image, (old, new) in enumerate(zip(before, row >> CLASS_SHIFT, strict=True))
            if old != new
        ],
    )


def _parsed(experiment: Experiment, name: str) -> list[Site]:
    names = list(experiment.graph.names)
    layer, *rest = name.rsplit("/", 3)  # a layer's own name may hold slashes
    if len(rest) != 3 or layer not in names:
        raise InputError(
            f"campaign.sites: {name} is not LAYER/TARGET/ELEMENT/BIT with one of the layers "
            f"{', '.join(names)}"
        )
    target, element, bits = rest
    try:
        return [Site(names.index(layer), int(element), int(b), target) for b in bits.split("+")]
    except ValueError as error:
        raise InputError(
            f"campaign.sites: {name}: element and bit are whole numbers, bits joined by +"
        ) from error


def _cell(name: str, counts: OutcomeCounts, place: int, confidence: float) -> CellResult:
    layer, target, _, bits = name.rsplit("/", 3)
    images = np.array([counts.images])

    def estimate(of: str) -> Estimate:
        share = float(counts.sums(of)[place])
        hits = np.array([round(share * counts.images)])
        (low,), (high,) = interval("wilson", hits, images, confidence=confidence)
        return Estimate(share, float(low), float(high))

    return CellResult(
        layer=layer,
        bit=int(bits) if bits.isdigit() else bits,
        target=target,
        site=name,
        trials=1,
        images=counts.images,
        accuracy=estimate("right"),
        sdc_rate=estimate("sdc1"),
        endings=Endings(**counts.shares([place], np.ones(1))),
    )
