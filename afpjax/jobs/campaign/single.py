"""What a campaign of single faults found, as result.json has it."""

from collections.abc import Iterator, Sequence

import numpy as np

from afpjax.campaigns.counts import Worst
from afpjax.campaigns.strata import Stratum, faults_of, site_names
from afpjax.campaigns.walk import Walk
from afpjax.experiment import Experiment
from afpjax.jobs.shared.records import Record
from afpjax.statistics.proportions import interval, stratified

ALL = "all"
_SHOWN = 8  # images of a worst fault whose sites are listed, where each has its own
_ESTIMAND = {
    "weights": "share of (fault, image) pairs whose class is another than without faults, over all "
    "faults of the cell, one weight fault at a time, and these images",
    "activations": "share of (fault, image) pairs whose class is another than without faults, over "
    "all faults of the cell, one fault in what a layer reads of an image, and these images",
    "link": "share of (fault, image) pairs whose class is another than without faults, over all "
    "faults of the cell, one fault in what a layer reads across a link, and these images",
}


def found(experiment: Experiment, walk: Walk) -> Record:
    """Cells by stratum, by layer, by bit and over all; confusion; the worst faults."""
    names, rules = experiment.graph.names, walk.rules
    cells = [_cell(walk, names, place) for place in range(len(walk.strata))]
    for target in dict.fromkeys(stratum.target for stratum in walk.strata):
        cells += _together(walk, names, target)
    population = sum(stratum.faults for stratum in walk.strata)
    kind = walk.strata[0].kind
    return {
        "design": {
            "name": rules.design,
            "fault": kind.name,
            "faults_per_trial": kind.count,
            "estimand": {t: _ESTIMAND[t] for t in experiment.config.campaign.targets},
            "interval": rules.kind,
            "margin": rules.margin,
            "confidence": rules.confidence,
            "level": walk.level,
            "population": population,
            "trials": int(walk.counts.trials.sum()),
            "strata": len(walk.strata),
        },
        "cells": cells,
        "confusion": confusion(walk.counts.confusion),
        "worst": [_worst(experiment, walk, each) for each in walk.counts.worst],
    }


def confusion(counts: np.ndarray) -> list[Record]:
    """How often critical faults turned which class into which; never is left out."""
    return [
        {"from": int(before), "to": int(after), "count": int(counts[before, after])}
        for before, after in zip(*np.nonzero(counts), strict=True)
    ]


def _cell(walk: Walk, names: Sequence[str], place: int) -> Record:
    counts, stratum = walk.counts, walk.strata[place]
    one = slice(place, place + 1)

    def estimate(name: str, sums: np.ndarray, squares: np.ndarray | None) -> Record:
        low, high = interval(
            walk.rules.kind,
            sums[one],
            counts.trials[one],
            population=walk.sizes[one],
            squares=None if squares is None else squares[one],
            confidence=walk.level,
        )
        mean = sums[place] / counts.trials[place]
        return {name: mean, f"{_stem(name)}_interval": [low[0], high[0]]}

    return {
        **_named(names, stratum),
        "trials": int(counts.trials[place]),
        "images": counts.images,
        "population": stratum.faults,
        **estimate("accuracy", counts.sums("right"), counts.squares("right")),
        **estimate("sdc_rate", counts.sums("sdc1"), counts.squares("sdc1")),
        **estimate("critical_rate", counts.critical.astype(float), None),
        **counts.shares([place], np.ones(1)),
    }


def _stem(name: str) -> str:
    return name.removesuffix("_rate")


def _named(names: Sequence[str], stratum: Stratum) -> Record:
    layer = names[stratum.layers[0]] if len(stratum.layers) == 1 else ALL
    bit = stratum.bits[0] if len(stratum.bits) == 1 and stratum.kind.does.by_bit else ALL
    return {"layer": layer, "bit": bit, "target": stratum.target}


def _together(walk: Walk, names: Sequence[str], target: str) -> Iterator[Record]:
    """Layers over their bits, bits over the layers, and the whole, where there are several."""
    mine = [place for place, each in enumerate(walk.strata) if each.target == target]
    known = {tuple(_named(names, walk.strata[place]).values()) for place in mine}
    by_layer: dict[str, list[int]] = {}
    by_bit: dict[object, list[int]] = {}
    for place in mine:
        named = _named(names, walk.strata[place])
        by_layer.setdefault(named["layer"], []).append(place)
        by_bit.setdefault(named["bit"], []).append(place)
    groups = [((layer, ALL), places) for layer, places in by_layer.items()]
    groups += [((ALL, bit), places) for bit, places in by_bit.items()]
    for (layer, bit), places in [*groups, ((ALL, ALL), mine)]:
        if (layer, bit, target) not in known:
            known.add((layer, bit, target))
            one = len(places) == 1  # the same faults under another name
            made = _cell(walk, names, places[0]) if one else _over(walk, places)
            named: Record = {"layer": layer, "bit": bit, "target": target}
            yield named | {key: made[key] for key in made if key not in named}


def _over(walk: Walk, places: Sequence[int]) -> Record:
    counts, own = walk.counts, list(places)
    sizes = walk.sizes[own]

    def estimate(name: str, sums: np.ndarray, squares: np.ndarray | None) -> Record:
        made = stratified(
            walk.rules.kind,
            sums[own],
            counts.trials[own],
            sizes,
            squares=None if squares is None else squares[own],
            confidence=walk.level,
        )
        return {name: made.mean[0], f"{_stem(name)}_interval": [made.low[0], made.high[0]]}

    return {
        "trials": int(counts.trials[own].sum()),
        "images": counts.images,
        "population": sum(walk.strata[place].faults for place in own),
        **estimate("accuracy", counts.sums("right"), counts.squares("right")),
        **estimate("sdc_rate", counts.sums("sdc1"), counts.squares("sdc1")),
        **estimate("critical_rate", counts.critical.astype(float), None),
        **counts.shares(own, sizes / sizes.sum()),
    }


def _worst(experiment: Experiment, walk: Walk, worst: Worst) -> Record:
    """A fault that can be injected again: by its sites, or by its stratum and trial."""
    stratum = walk.strata[worst.stratum]
    (fault,) = faults_of(
        experiment.quantized, stratum, range(worst.trial, worst.trial + 1), **walk.source(stratum)
    )
    images = max(len(sites.elements) for sites in fault.sites.values())
    sites = [site_names(experiment.quantized, fault, i) for i in range(min(images, _SHOWN))]
    named = _named(experiment.graph.names, stratum)
    return {
        **named,
        "trial": worst.trial,
        "sdc_rate": worst.sdc,
        "sites": [site for of_image in sites for site in of_image],
        "same_in_every_image": images == 1,
    }
