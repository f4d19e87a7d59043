"""Results of job `campaign`, made from what golden runs found."""

from collections.abc import Sequence
from dataclasses import replace

from afpjax.jobs.campaign.result import (
    ALL,
    CampaignResult,
    CellResult,
    Endings,
    MaskedShares,
    PublishedResult,
    PublishedShare,
    Scores,
)

from .kept import about, kept

RATES = (0.001, 0.01, 0.1)


def cell(layer: str, bit: int | str, sdc: float, odd: float = 0.0) -> CellResult:
    """Half of what is not another class is masked, and a quarter of it tolerable."""
    rest = 1 - sdc
    endings = Endings(rest / 2, rest / 4, sdc, sdc / 2, sdc + rest / 4, sdc + rest / 8, odd)
    first = kept("campaign").cells[0]
    return replace(first, layer=layer, bit=bit, sdc_rate=about(sdc), endings=endings)


def single(*targets: str) -> CampaignResult:
    """Single faults; of a second target half as many change a class, and so on."""
    result = kept("campaign")
    targets = targets or ("weights",)
    return replace(
        result,
        targets=targets,
        design=replace(result.design, estimand=dict.fromkeys(targets, "share of pairs")),
        cells=[
            replace(each, target=target, sdc_rate=about(each.sdc_rate.value * 0.5**place))
            for place, target in enumerate(targets)
            for each in result.cells
        ],
    )


def masks(layers: Sequence[str] = (ALL,), devices: Sequence[str] = ()) -> CampaignResult:
    """Masks at three rates, or those of three devices; the last layer fares worst."""
    result = kept("campaign-bernoulli")
    cells = [
        replace(
            result.cells[0],
            layer=name,
            bit=ALL,
            rate=rate,
            device=devices[place] if devices else None,
            sdc_rate=about(rate * (index + 1) / len(layers), 0.01),
        )
        for index, name in enumerate(layers)
        for place, rate in enumerate(RATES)
    ]
    return replace(result, cells=cells)


def published(rms: float | None = 1.02) -> CampaignResult:
    """A list's result: the sign bit's share is not what others found."""
    made = single()
    part = PublishedShare(
        faults=7, sdc_rate=about(0.012, 0.002), published_rate=0.0128, inside=True
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
            layers=[replace(part, layer="stem")],
        ),
    )
