"""Small results of job `campaign`, made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from afpjax.jobs.campaign.result import (
    CampaignResult,
    CellResult,
    Changed,
    CleanImages,
    Confusion,
    Design,
    Endings,
    MaskedShares,
    PublishedResult,
    PublishedShare,
    Scores,
    WorstFault,
)
from afpjax.jobs.shared.result import Estimate, HeldOutImages, ModelResult, NumberFormat, Speed

IMAGES = 64


def near(value: float, wide: float = 0.01) -> Estimate:
    return Estimate(value, max(value - wide, 0.0), min(value + wide, 1.0))


def cell(
    layer: str, bit: int | str, sdc: float, target: str = "weights", **more: Any
) -> CellResult:
    """Half of what is not another class is masked, and a quarter of it tolerable."""
    kept = 1 - sdc
    return CellResult(
        layer=layer,
        bit=bit,
        target=target,
        trials=100,
        images=IMAGES,
        accuracy=near(0.95 - sdc / 2),
        sdc_rate=near(sdc),
        endings=Endings(
            kept / 2, kept / 4, sdc, sdc / 2, sdc + kept / 4, sdc + kept / 8, more.pop("odd", 0.0)
        ),
        **more,
    )


def names(layers: int) -> list[str]:
    return [f"block{index}.conv" for index in range(layers)]


def single(
    layers: int = 3, bits: int = 8, targets: Sequence[str] = ("weights",), form: str = "fixed"
) -> CampaignResult:
    """Single faults: the last layer and the sign bit are the worst, layer 0 is the biggest."""
    cells = []
    for place, target in enumerate(targets):
        scale = 0.5**place
        for index, name in enumerate(names(layers)):
            for bit in range(bits):
                cells.append(cell(name, bit, _rate(index, bit, layers, bits) * scale, target))
            mean, size = 0.25 * (index + 1) / layers * scale, 1000 * (layers - index)
            cells.append(cell(name, "all", mean, target, population=size, critical_rate=near(mean)))
        for bit in range(bits):
            cells.append(cell("all", bit, _rate(layers - 1, bit, layers, bits) * scale, target))
        cells.append(cell("all", "all", 0.125 * scale, target, population=6000))
    worst = [
        WorstFault(
            layer="block0.conv", bit=7, target="weights", trial=60, sdc_rate=1.0,
            sites=["block0.conv/weights/14/7"], same_in_every_image=True,
        ),
        WorstFault(
            layer="block1.conv", bit=6, target="activations", trial=9, sdc_rate=0.5,
            sites=["a", "b"], same_in_every_image=False,
        ),
    ]  # fmt: skip
    made = _result(cells, targets)
    return replace(made, format=NumberFormat(form, bits), worst=worst)


def _rate(layer: int, bit: int, layers: int, bits: int) -> float:
    """0 for the lowest bit, a half for the sign bit of the last layer."""
    return 0.5 * bit / (bits - 1) * (layer + 1) / layers


def masks(
    layers: int = 3, rates: Sequence[float] = (0.001, 0.01, 0.1), devices: Sequence[str] = ()
) -> CampaignResult:
    """Masks: the highest rate tells layers apart best; `layers` 0 strikes all at once."""
    cells = []
    for index, name in enumerate(names(layers) or ["all"]):
        for place, rate in enumerate(rates):
            own = {"device": devices[place]} if devices else {}
            sdc = rate * (index + 1) / max(layers, 1)
            cells.append(cell(name, "all", sdc, rate=rate, **own))
    made = _result(cells, ("weights",))
    design = replace(
        made.design, name="bernoulli", interval="two-way", level=0.95,
        faults_per_trial=None, population=None,
    )  # fmt: skip
    worst = WorstFault(
        layer="block2.conv", bit="all", target="weights", rate=0.1, trial=3, sdc_rate=0.25
    )
    return replace(made, design=design, worst=[worst])


def listed() -> CampaignResult:
    """Two faults struck again."""
    cells = [
        cell("block0.conv", 7, 0.75, site="block0.conv/weights/14/7"),
        cell("block1.conv", 6, 0.875, site="block1.conv/weights/3/6"),
    ]
    made = _result(cells, ("weights",))
    return replace(
        made,
        design=replace(made.design, name="listed", trials=2, strata=2, margin=None),
        changed=[Changed("block0.conv/weights/14/7", 5, 1, 2)],
    )


def published(rms: float | None = 1.02) -> CampaignResult:
    """A list's result: the sign bit's share is not what others found."""
    made = single()
    part = PublishedShare(
        faults=7, sdc_rate=Estimate(0.012, 0.01, 0.014), published_rate=0.0128, inside=True
    )
    return replace(
        made,
        design=replace(made.design, name="listed", interval="by image", not_finite="argmax"),
        published=PublishedResult(
            faults=16627,
            images=250,
            published_images=10000,
            confidence=0.95,
            whole=part,
            masked=MaskedShares(0.18, 0.34),
            scores=Scores(5, 240, rms=rms, mean=0.1, inside=0.95),
            bits_inside=1,
            bits=[
                replace(part, bit=30),
                replace(part, bit=31, published_rate=0.4, inside=False),
            ],
            layers_inside=1,
            layers=[replace(part, layer="block0.conv")],
        ),
    )


def _result(cells: list[CellResult], targets: Sequence[str]) -> CampaignResult:
    return CampaignResult(
        model=ModelResult("toy", []),
        data=HeldOutImages("digits", IMAGES),
        format=NumberFormat("fixed", 8),
        clean=CleanImages(0.953, IMAGES),
        targets=list(targets),
        design=Design(
            name="single",
            fault="flip",
            faults_per_trial=1,
            estimand={target: f"share of pairs in {target}" for target in targets},
            interval="wilson",
            margin=0.1,
            confidence=0.95,
            level=0.966,
            population=6000,
            trials=2400,
            strata=24,
            not_finite="detected",
        ),
        cells=cells,
        confusion=[
            Confusion(before=0, after=1, count=60),
            Confusion(before=2, after=1, count=30),
            Confusion(before=1, after=0, count=10),
        ],
        notes=[],
        throughput=Speed(10898.2, 7281.9, 153600),
    )
