"""What a campaign of single faults found."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from afpjax.campaigns.counts import Worst
from afpjax.campaigns.strata import Stratum, faults_of, site_names
from afpjax.campaigns.walk import Walk
from afpjax.experiment import Experiment
from afpjax.jobs.campaign.result import (
    ALL,
    CellResult,
    Confusion,
    Design,
    Endings,
    Found,
    Struck,
    WorstFault,
)
from afpjax.jobs.shared.result import Estimate
from afpjax.statistics.proportions import interval, stratified

_SHOWN = 8  # images of a worst fault whose sites are listed, where each has its own
_ESTIMAND = {
    "weights": "share of (fault, image) pairs whose class is another than without faults, over all "
    "faults of the cell, one weight fault at a time, and these images",
    "activations": "share of (fault, image) pairs whose class is another than without faults, over "
    "all faults of the cell, one fault in what a layer reads of an image, and these images",
    "link": "share of (fault, image) pairs whose class is another than without faults, over all "
    "faults of the cell, one fault in what a layer reads across a link, and these images",
}


def found(experiment: Experiment, walk: Walk) -> Found:
    """Cells by stratum, by layer, by bit and over all; confusion; the worst faults."""
    names, rules, kind = experiment.graph.names, walk.rules, walk.strata[0].kind
    settings = experiment.config.campaign
    cells = [
        _cell(walk, _where(names, stratum), [place]) for place, stratum in enumerate(walk.strata)
    ]
    for target in dict.fromkeys(stratum.target for stratum in walk.strata):
        cells += _together(walk, names, target)
    return Found(
        design=Design(
            name=rules.design,
            fault=kind.name,
            faults_per_trial=kind.count,
            estimand={target: _ESTIMAND[target] for target in settings.targets},
            interval=rules.kind,
            margin=rules.margin,
            confidence=rules.confidence,
            level=walk.level,
            population=sum(stratum.faults for stratum in walk.strata),
            trials=int(walk.counts.trials.sum()),
            strata=len(walk.strata),
            not_finite=settings.not_finite,
        ),
        cells=cells,
        confusion=confusion(walk.counts.confusion),
        worst=[_worst(experiment, walk, each) for each in walk.counts.worst],
    )


def confusion(counts: np.ndarray) -> list[Confusion]:
    """How often critical faults turned which class into which; never is left out."""
    return [
        Confusion(before=int(before), after=int(after), count=int(counts[before, after]))
        for before, after in zip(*np.nonzero(counts), strict=True)
    ]


def _where(names: Sequence[str], stratum: Stratum) -> Struck:
    layer = names[stratum.layers[0]] if len(stratum.layers) == 1 else ALL
    bit = stratum.bits[0] if len(stratum.bits) == 1 and stratum.kind.does.by_bit else ALL
    return Struck(layer=layer, bit=bit, target=stratum.target)


def _together(walk: Walk, names: Sequence[str], target: str) -> Iterator[CellResult]:
    """Layers over their bits, bits over the layers, and the whole, where there are several."""
    own = {n: _where(names, each) for n, each in enumerate(walk.strata) if each.target == target}
    layers = [replace(where, bit=ALL) for where in own.values()]
    bits = [replace(where, layer=ALL) for where in own.values()]
    for over in dict.fromkeys([*layers, *bits, Struck(layer=ALL, bit=ALL, target=target)]):
        if over not in own.values():
            yield _cell(
                walk,
                over,
                [
                    place
                    for place, where in own.items()
                    if over.layer in (ALL, where.layer) and over.bit in (ALL, where.bit)
                ],
            )


def _cell(walk: Walk, where: Struck, places: list[int]) -> CellResult:
    """Some strata together."""
    counts, sizes, trials = walk.counts, walk.sizes[places], walk.counts.trials[places]
    kind, confidence = walk.rules.kind, walk.level

    def estimate(sums: np.ndarray, squares: np.ndarray | None = None) -> Estimate:
        hits, squares = sums[places], None if squares is None else squares[places]
        if len(places) == 1:
            (mean,) = hits / trials
            (low,), (high,) = interval(
                kind, hits, trials, population=sizes, squares=squares, confidence=confidence
            )
        else:
            made = stratified(kind, hits, trials, sizes, squares=squares, confidence=confidence)
            (mean,), (low,), (high,) = made.mean, made.low, made.high
        return Estimate(float(mean), float(low), float(high))

    return CellResult(
        **vars(where),
        trials=int(trials.sum()),
        images=counts.images,
        population=sum(walk.strata[place].faults for place in places),
        accuracy=estimate(counts.sums("right"), counts.squares("right")),
        sdc_rate=estimate(counts.sums("sdc1"), counts.squares("sdc1")),
        critical_rate=estimate(counts.critical.astype(float)),
        endings=Endings(**counts.shares(places, sizes / sizes.sum())),
    )


def _worst(experiment: Experiment, walk: Walk, worst: Worst) -> WorstFault:
    """A fault that can be injected again: by its sites, or by its stratum and trial."""
    stratum = walk.strata[worst.stratum]
    (fault,) = faults_of(
        experiment.quantized, stratum, range(worst.trial, worst.trial + 1), **walk.source(stratum)
    )
    images = max(len(sites.elements) for sites in fault.sites.values())
    sites = [site_names(experiment.quantized, fault, i) for i in range(min(images, _SHOWN))]
    return WorstFault(
        **vars(_where(experiment.graph.names, stratum)),
        trial=worst.trial,
        sdc_rate=worst.sdc,
        sites=[site for of_image in sites for site in of_image],
        same_in_every_image=images == 1,
    )
