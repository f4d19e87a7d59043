"""Small results of job `campaign`, made by hand."""

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]

IMAGES = 64


def near(value: float, wide: float = 0.01) -> list[float]:
    return [max(value - wide, 0.0), min(value + wide, 1.0)]


def cell(layer: str, bit: int | str, sdc: float, target: str = "weights", **more: object) -> Result:
    """Half of what is not another class is masked, and a quarter of it tolerable."""
    kept = 1 - sdc
    return {
        "layer": layer,
        "bit": bit,
        "target": target,
        "trials": 100,
        "images": IMAGES,
        "accuracy": 0.95 - sdc / 2,
        "accuracy_interval": near(0.95 - sdc / 2),
        "sdc_rate": sdc,
        "sdc_interval": near(sdc),
        "masked": kept / 2,
        "tolerable": kept / 4,
        "sdc1": sdc,
        "sdc5": sdc / 2,
        "sdc10": sdc + kept / 4,
        "sdc20": sdc + kept / 8,
        "non_finite": 0.0,
        **more,
    }


def names(layers: int) -> list[str]:
    return [f"block{index}.conv" for index in range(layers)]


def single(
    layers: int = 3, bits: int = 8, targets: Sequence[str] = ("weights",), form: str = "fixed"
) -> Result:
    """Single faults: the last layer and the sign bit are the worst, layer 0 is the biggest."""
    cells = []
    for place, target in enumerate(targets):
        scale = 0.5**place
        for index, name in enumerate(names(layers)):
            for bit in range(bits):
                cells.append(cell(name, bit, _rate(index, bit, layers, bits) * scale, target))
            mean = 0.25 * (index + 1) / layers * scale
            size = 1000 * (layers - index)
            cells.append(
                cell(name, "all", mean, target, population=size, critical_rate=mean)
                | {"critical_interval": near(mean)}
            )
        for bit in range(bits):
            cells.append(cell("all", bit, _rate(layers - 1, bit, layers, bits) * scale, target))
        cells.append(cell("all", "all", 0.125 * scale, target, population=6000))
    return _result(cells, targets) | {
        "format": {"kind": form, "bits": bits},
        "worst": [
            {"layer": "block0.conv", "bit": 7, "target": "weights", "trial": 60, "sdc_rate": 1.0}
            | {"sites": ["block0.conv/weights/14/7"], "same_in_every_image": True},
            {"layer": "block1.conv", "bit": 6, "target": "activations", "trial": 9}
            | {"sdc_rate": 0.5, "sites": ["a", "b"], "same_in_every_image": False},
        ],
    }


def _rate(layer: int, bit: int, layers: int, bits: int) -> float:
    """0 for the lowest bit, a half for the sign bit of the last layer."""
    return 0.5 * bit / (bits - 1) * (layer + 1) / layers


def masks(
    layers: int = 3, rates: Sequence[float] = (0.001, 0.01, 0.1), devices: Sequence[str] = ()
) -> Result:
    """Masks: the highest rate tells layers apart best; `layers` 0 strikes all at once."""
    cells = []
    for index, name in enumerate(names(layers) or ["all"]):
        for place, rate in enumerate(rates):
            own = {"device": devices[place]} if devices else {}
            sdc = rate * (index + 1) / max(layers, 1)
            cells.append(cell(name, "all", sdc, rate=rate, **own))
    whole = _result(cells, ("weights",))
    whole["design"] |= {"name": "bernoulli", "interval": "two-way", "level": 0.95}
    del whole["design"]["population"]
    whole["worst"] = [
        {"layer": "block2.conv", "bit": "all", "target": "weights", "rate": 0.1, "trial": 3}
        | {"sdc_rate": 0.25}
    ]
    return whole


def listed() -> Result:
    """Two faults struck again."""
    cells = [
        cell("block0.conv", 7, 0.75, site="block0.conv/weights/14/7"),
        cell("block1.conv", 6, 0.875, site="block1.conv/weights/3/6"),
    ]
    whole = _result(cells, ("weights",))
    whole["design"] |= {"name": "listed", "trials": 2, "strata": 2}
    whole["changed"] = [
        {"site": "block0.conv/weights/14/7", "image": 5, "before": 1, "after": 2},
    ]
    return whole


def _result(cells: list[Result], targets: Sequence[str]) -> Result:
    return {
        "job": "campaign",
        "version": "0.4.0",
        "seed": 0,
        "model": {"name": "toy", "layers": []},
        "data": {"name": "digits", "images": IMAGES},
        "format": {"kind": "fixed", "bits": 8},
        "clean": {"accuracy": 0.953, "images": IMAGES},
        "targets": list(targets),
        "design": {
            "name": "single",
            "fault": "flip",
            "faults_per_trial": 1,
            "estimand": {target: f"share of pairs in {target}" for target in targets},
            "interval": "wilson",
            "margin": 0.1,
            "confidence": 0.95,
            "level": 0.966,
            "population": 6000,
            "trials": 2400,
            "strata": 24,
        },
        "cells": cells,
        "confusion": [
            {"from": 0, "to": 1, "count": 60},
            {"from": 2, "to": 1, "count": 30},
            {"from": 1, "to": 0, "count": 10},
        ],
        "throughput": {
            "inferences_per_second": 10898.2,
            "clean_inferences_per_second": 7281.9,
            "passes": 153600,
        },
        "seconds": 9.0,
    }
