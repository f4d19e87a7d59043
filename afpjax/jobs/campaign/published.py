"""What others measured of a list's faults beside what was measured here: do they agree?

Both struck the very same faults, so that nothing is left to chance but the images. Those of one
are taken for drawn from those of the other, all of theirs being published as counts alone. Faults
share the images, and are no independent witnesses: for one fault a standard score is right, for
many together the interval is over images (`statistics.images_interval`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from afpjax.jobs.campaign.fault_file import ListOutcomes
from afpjax.jobs.campaign.fault_lists import Counts
from afpjax.jobs.campaign.result import (
    ALL,
    MaskedShares,
    PublishedResult,
    PublishedShare,
    Scores,
)
from afpjax.jobs.shared.result import Estimate
from afpjax.statistics.intervals import images_interval, subset_scores

ENOUGH = 5  # images that are expected to be critical, and not to be, for a normal score
_EQUAL = 1e-12  # shares that are as good as one
_TWO_SIDED = 1.959964  # what one standard score in twenty is beyond


def compared(ended: ListOutcomes, theirs: Counts, confidence: float) -> PublishedResult:
    """Scores of the faults, and shares over bits, layers and all."""
    scores, enough = _scores(ended, theirs)
    shares = {
        (layer, bit): _beside(ended, theirs, members, confidence)
        for layer, bit, members in ended.parts()
        if ALL in (layer, bit)
    }
    bits = [replace(each, bit=bit) for (_, bit), each in shares.items() if bit != ALL]
    layers = [replace(each, layer=layer) for (layer, _), each in shares.items() if layer != ALL]
    ours = ended.counts
    return PublishedResult(
        faults=len(ended.faults),
        images=int(ours.images[0]),
        published_images=int(theirs.images.min()),
        confidence=confidence,
        whole=shares[ALL, ALL],
        masked=MaskedShares(_share(ours.masked, ours.images), _share(theirs.masked, theirs.images)),
        scores=_spread(scores[enough]),
        bits_inside=sum(bit.inside for bit in bits),
        bits=bits,
        layers_inside=sum(layer.inside for layer in layers),
        layers=layers,
    )


def columns(ended: ListOutcomes, theirs: Counts) -> dict[str, Sequence[object]]:
    """For the list's own file: their images and critical ones, and the score where it is one."""
    scores, enough = _scores(ended, theirs)
    told = [f"{z:.4g}" if known else "" for z, known in zip(scores, enough, strict=True)]
    return {
        "published_n_injections": theirs.images.tolist(),
        "published_critical": theirs.critical.tolist(),
        "z": told,
    }


def _scores(
    ended: ListOutcomes, theirs: Counts
) -> tuple[Float[np.ndarray, "F"], Bool[np.ndarray, "F"]]:
    """Every fault's standard score, and for which it is nearly normal."""
    ours = ended.counts
    scores = subset_scores(ours.critical, ours.images, theirs.critical, theirs.images)
    expected = theirs.critical / theirs.images * ours.images
    enough = (expected >= ENOUGH) & (ours.images - expected >= ENOUGH)
    return scores, enough & np.isfinite(scores)


def _spread(scores: Float[np.ndarray, "F"]) -> Scores:
    """Root mean square, mean, and how many are beyond what one in twenty should be."""
    if not len(scores):
        return Scores(ENOUGH, 0)
    return Scores(
        ENOUGH,
        len(scores),
        rms=float(np.sqrt((scores**2).mean())),
        mean=float(scores.mean()),
        inside=float((np.abs(scores) <= _TWO_SIDED).mean()),
    )


def _beside(
    ended: ListOutcomes, theirs: Counts, members: Sequence[int], confidence: float
) -> PublishedShare:
    """The share of critical pairs, ours with an interval over its images, and theirs."""
    mine = np.isin(ended.which, members)
    hits, faults = ended.changed[members].sum(axis=0), int(mine.sum())
    images = float(theirs.images[mine].min())
    low, high = images_interval(hits, faults, confidence, images=images)
    known = _share(theirs.critical[mine], theirs.images[mine])
    return PublishedShare(
        faults=faults,
        sdc_rate=Estimate(float(hits.mean() / faults), low, high),
        published_rate=known,
        inside=bool(low - _EQUAL <= known <= high + _EQUAL),
    )


def _share(hits: np.ndarray, images: np.ndarray) -> float:
    return float((hits / images).mean())
