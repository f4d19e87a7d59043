"""The report of job `distribute`: what is left of the accuracy when devices disappear."""

from afpjax.jobs.distribute.view_chance import CHANCE
from afpjax.jobs.distribute.view_curve import CURVE
from afpjax.jobs.distribute.view_lost import LOST
from afpjax.jobs.distribute.view_measured import MEASURED, speed
from afpjax.jobs.distribute.view_resources import COSTS
from afpjax.jobs.distribute.view_scores import SCORES
from afpjax.jobs.distribute.view_search import SEARCH
from afpjax.jobs.distribute.view_where import WHERE
from afpjax.jobs.distribute.view_words import (
    SCALES,
    SUBSTITUTES,
    Record,
    find,
    first,
    one_of,
    scores_words,
    share,
    thresholds,
)
from afpjax.report.markup import Html, html, paragraph
from afpjax.report.story import Result, Story
from afpjax.report.wording import interval, percent

__all__ = ["STORY"]


def answer(result: Result) -> Html:
    """What RobustDiCE keeps with a device lost, at which memory, beside LOP."""
    records = result.get("methods", ())
    if not records:
        return html("What is left when devices are lost")
    setting = first(records)
    own, lop = find(records, "robustdice", setting), find(records, "lop", setting)
    if own is None:
        return html("What is left when devices are lost")
    clean = result.get("clean", {})
    whole = f" ({percent(clean['accuracy'])} with none lost)" if "accuracy" in clean else ""
    return Html(
        f"With {one_of(setting)} lost, RobustDiCE has {_right(own)} of the images right{whole} "
        f"where a device holds up to {share(own['memory'])}{_spread(own)} of the weights"
        f"{_beside(lop)}."
    )


def _spread(record: Record) -> Html:
    """Where other images to score on would put a placement's memory."""
    if "memory_interval" not in record:
        return Html()
    limits = interval(record["memory_interval"])
    return Html(f" <small class=nobr>{limits} with other scoring images</small>")


def _right(record: Record) -> Html:
    """`82.3 % [80.3, 84.3]`."""
    limits = record.get("accuracy_interval")
    small = f" <small class=nobr>{interval(limits)}</small>" if limits else ""
    return Html(f"<b>{percent(record['accuracy'])}</b>{small}")


def _beside(lop: Record | None) -> Html:
    """The rival, and whether the images tell the two apart."""
    if lop is None:
        return Html()
    low, high = lop.get("difference_interval", (1, 1))
    unsure = "; these images do not tell the two apart" if low <= 0 <= high else ""
    return Html(
        f"; contiguous slices without replicas (LOP) have {_right(lop)} with "
        f"{share(lop['memory'])}{unsure}"
    )


def lead(result: Result) -> Html:
    """What was measured on, from which scores, and how fast."""
    scores, data, clean = (result.get(key, {}) for key in ("scores", "data", "clean"))
    if not scores:
        return Html()
    images = f"{data['images']:,} held-out images" if "images" in data else "held-out images"
    right = f", {percent(clean['accuracy'])} of them right with all devices" * ("accuracy" in clean)
    scale = SCALES.get(scores["normalise"], scores["normalise"])
    values = result.get("thresholds", ())
    below = f", threshold {thresholds(values)}" if values else ""
    gives = SUBSTITUTES.get(result.get("substitute", ""), "")
    lost = f" A lost neuron gives {gives}." if gives else ""
    return paragraph(
        f"Measured on {images}{right}. Neurons are spread by {scores_words(scores['names'])} "
        f"({scale}{below}).{lost}{speed(result)}"
    )


STORY = Story(answer, lead, (*LOST, *CURVE, *SEARCH, *WHERE, *SCORES, *CHANCE, *COSTS, *MEASURED))
