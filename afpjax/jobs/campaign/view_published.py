"""The part of job `campaign`'s report that holds a list's faults against what others measured."""

from collections.abc import Iterable

from afpjax.jobs.campaign.view_cells import Record, estimated, share
from afpjax.report.markup import Html, details, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import number, percent

__all__ = ["PUBLISHED"]


def published(result: Result) -> Block:
    """Their shares beside ours, and how far faults are from what their images say of ours."""
    found = result["published"]
    whole, bits, layers = found["whole"], found["bits"], found["layers"]
    text = (
        f"Others struck these {found['faults']:,} faults on {found['published_images']:,} images; "
        f"the {found['images']:,} here are taken for drawn from theirs. Of all (fault, image) "
        f"pairs theirs have {share(whole['published_rate'])} of another class, these "
    )
    sums = (
        f"Their share is inside the interval for {found['bits_inside']} of {len(bits)} bits and "
        f"for {found['layers_inside']} of {len(layers)} layers."
    )
    body = [
        paragraph(text, estimated(whole, "sdc_rate"), f". {sums}{_scores(found['scores'])}"),
        details(f"Bit by bit ({len(bits)})", _beside("bit", reversed(bits))),
        details(f"Layer by layer ({len(layers)})", _beside("layer", layers)),
        paragraph(
            "Intervals are over images: faults are the same on both sides, and those of a bit or "
            "a layer share their images. Of logits, "
            f"{percent(found['masked']['published_rate'])} were equal to the bit there and "
            f"{percent(found['masked']['rate'])} here, which depends on the order that sums are "
            "made in. faults.csv has every fault with its score.",
            kind="note",
        ),
    ]
    return Block(join(body))


def _scores(scores: Record) -> str:
    if "rms" not in scores:
        return ""
    return (
        f" Of {scores['faults']:,} faults at least {scores['expected_images']} images should be "
        f"critical, and as many not: their standard scores have a root mean square of "
        f"{number(scores['rms'])}, 1 if nothing but the images differs, and "
        f"{percent(scores['inside'])} are within ±1.96."
    )


def _beside(name: str, parts: Iterable[Record]) -> Html:
    rows = [
        (
            part[name],
            share(part["published_rate"]),
            estimated(part, "sdc_rate"),
            html("yes" if part["inside"] else "no"),
            f"{part['faults']:,}",
        )
        for part in parts
    ]
    return table((name, "theirs", "here", "inside", "faults"), rows)


PUBLISHED = (Part("What others measured of these faults", ("published",), published),)
